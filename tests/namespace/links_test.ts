/** What a cable's alias says, and whom a command may run as. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { agentBehind, aliasOf, isPortName, newPortName } from "../../lib/namespace/links.ts";
import { userOf } from "../../lib/namespace/process.ts";

Deno.test("an alias gives back the agent that it was made from", () => {
  const part = fc.stringMatching(/^[A-Za-z0-9_.-]{0,64}$/);
  fc.assert(fc.property(part, fc.ipV4(), part, (name, address, suffix) => {
    const agent = { name, address, network: `outcall-${suffix}` };
    const cable = newPortName();
    assert.deepEqual(agentBehind({ name: cable, alias: aliasOf(agent) }), { ...agent, cable });
  }));
});

Deno.test("no other link is taken for an agent's, whatever its alias", () => {
  const alias = aliasOf({ name: "a", address: "10.200.0.9", network: "outcall-x" });
  for (const name of ["eth0", "veth1a2b3c4", "ocr1234567", "ocr123456789", "outcall0"]) {
    assert.equal(isPortName(name), false);
    assert.equal(agentBehind({ name, alias }), null, name);
  }
  fc.assert(fc.property(fc.string(), (text) => {
    if (!text.startsWith("outcall-run ")) {
      assert.equal(agentBehind({ name: newPortName(), alias: text }), null);
    }
  }));
  for (const wrong of ["outcall-run", "outcall-run 10.0.0 n a", `${alias} more`]) {
    assert.equal(agentBehind({ name: newPortName(), alias: wrong }), null, wrong);
  }
});

Deno.test("a name that would read as another agent makes no alias", () => {
  const agent = { name: "a", address: "10.200.0.9", network: "outcall-x" };
  assert.throws(() => aliasOf({ ...agent, name: "a b" }), RangeError);
  assert.throws(() => aliasOf({ ...agent, name: "a".repeat(255) }), RangeError);
});

Deno.test("a command never runs as root", () => {
  assert.deepEqual(userOf("1000:1001"), { uid: 1000, gid: 1001 });
  for (
    const text of ["0:0", "0:1", "1:0", "1", "1:2:3", "a:b", "-1:1", "01:1", "4294967296:1", ""]
  ) {
    assert.throws(() => userOf(text), text);
  }
});
