/** What `outcall dns test` says, beside what a real query then gets. */
import assert from "node:assert/strict";
import { RecordType } from "../../lib/dns/codes.ts";
import { encodeQuery } from "./oracle.ts";
import { ownAddress, replying, type TestRule } from "./support.ts";
import { CLIENT, World } from "./world.ts";

const NAMED: TestRule = { id: "named", condition: 'http.host == "a.test"' };
const BELOW: TestRule = { id: "below", condition: 'dns.query.endsWith(".cdn.test")' };

const byName = replying(({ message }) => {
  const name = message.questions[0]?.name ?? "";
  const data = name === "inside.cdn.test" ? "10.0.0.1" : "93.184.216.34";
  return { answers: [{ name, type: "A", ttl: name === "zero.cdn.test" ? 0 : 60, data }] };
});

/** Response code of a real query for `name`. */
async function ask(world: World, gateway: string, name: string, from: string): Promise<string> {
  return (await world.udp(gateway, encodeQuery(name, "A", { opt: {} }), from)).rcode;
}

Deno.test("it tells what is blocked, what an upstream will say, and what the cache has", async () => {
  await using world = new World([NAMED, BELOW], byName);
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  assert.deepEqual(await world.rehearse("b.test"), {
    verdict: "block",
    reason: "default",
    rule: null,
    rcode: "NXDOMAIN",
    cached: false,
    typePasses: true,
    addresses: [],
  });
  const fresh = await world.rehearse("a.test", "coder");
  assert.deepEqual([fresh.verdict, fresh.rule?.id, fresh.rcode], ["allow", "named", null]);
  assert.deepEqual(fresh.addresses, [CLIENT]);
  assert.deepEqual(world.upstream.names, [], "nothing is asked");
  assert.deepEqual(world.decisions.recent(), [], "nothing is recorded");
  assert.equal(world.server.status().queries_total, 0, "nothing is counted");

  for (const name of ["a.test", "inside.cdn.test"]) await ask(world, gateway, name, CLIENT);
  const stats = world.server.cacheStats();
  const cached = await world.rehearse("a.test");
  assert.deepEqual([cached.verdict, cached.rcode, cached.cached], ["allow", "NOERROR", true]);
  const inside = await world.rehearse("inside.cdn.test");
  assert.deepEqual([inside.reason, inside.rcode], ["restricted_address", "SERVFAIL"]);
  assert.deepEqual(world.server.cacheStats(), stats);
});

Deno.test("types that the rules do not let pass are told apart", async () => {
  await using world = new World([NAMED]);
  assert.equal((await world.rehearse("a.test", "", RecordType.HTTPS)).typePasses, true);
  assert.equal((await world.rehearse("a.test", "", RecordType.AAAA)).typePasses, false);
  assert.equal((await world.rehearse("a.test", "", RecordType.TXT)).typePasses, false);
});

Deno.test("limits on names are those of the agent at this moment, and are not used up (ADV-DNS-17)", async () => {
  await using world = new World([NAMED, BELOW], byName);
  const [gateway, calm] = [ownAddress(), ownAddress()];
  await world.server.serve([gateway]);
  world.agents.add(calm, "calm");
  for (let i = 0; i < 200; i++) {
    assert.equal((await world.rehearse(`r${i}.cdn.test`, "coder")).verdict, "allow");
  }
  const shape = await world.rehearse(`${"a".repeat(60)}.cdn.test`, "coder");
  assert.deepEqual([shape.reason, shape.rcode, shape.rule?.id], [
    "name_shape",
    "NXDOMAIN",
    "below",
  ]);
  for (let i = 0; i < 120; i++) {
    assert.equal(await ask(world, gateway, `n${i}.cdn.test`, CLIENT), "NOERROR");
  }
  const { reason, rcode } = await world.rehearse("new.cdn.test", "coder");
  assert.deepEqual([reason, rcode], ["name_rate", "SERVFAIL"]);
  assert.equal((await world.rehearse("new.cdn.test", "calm")).verdict, "allow");
  assert.equal(await ask(world, gateway, "new.cdn.test", CLIENT), "SERVFAIL");
  assert.equal(await ask(world, gateway, "new.cdn.test", calm), "NOERROR");
});

Deno.test("it knows when too much was asked of which the cache keeps nothing (ADV-DNS-17)", async () => {
  await using world = new World([BELOW], byName, { queryRate: { count: 5000, windowSecs: 1 } });
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  const rcodes = new Map<string, number>();
  for (let i = 0; i < 1_210; i++) {
    const rcode = await ask(world, gateway, "zero.cdn.test", CLIENT);
    rcodes.set(rcode, (rcodes.get(rcode) ?? 0) + 1);
  }
  assert.deepEqual([...rcodes], [["NOERROR", 1_200], ["SERVFAIL", 10]]);
  const { reason, rcode } = await world.rehearse("zero.cdn.test", "coder");
  assert.deepEqual([reason, rcode], ["name_rate", "SERVFAIL"]);
});

Deno.test("an agent that asks too fast is told, also among others of its name", async () => {
  await using world = new World([NAMED], byName, { queryRate: { count: 3, windowSecs: 3600 } });
  const [gateway, calm] = [ownAddress(), ownAddress()];
  await world.server.serve([gateway]);
  world.agents.add(calm, "coder");
  assert.equal((await world.rehearse("a.test", "coder")).verdict, "allow");
  while (await ask(world, gateway, "a.test", CLIENT) !== "SERVFAIL");
  await world.server.settle();
  const { reason, rcode, addresses } = await world.rehearse("a.test", "coder");
  assert.deepEqual([reason, rcode, addresses], ["query_rate", "SERVFAIL", [CLIENT, calm]]);
});
