import { equal, ok, throws } from "node:assert/strict";
import fc from "fast-check";
import {
  assertBridgeName,
  bridgeName,
  firstNames,
  isInterfaceName,
  isManagedName,
} from "../../lib/bridge/names.ts";
import { OutcallError } from "../../lib/errors.ts";

Deno.test("D3: further bridges are numbered on from the default one", () => {
  const rows: readonly [string, number, string][] = [
    ["outcall0", 0, "outcall0"],
    ["outcall0", 1, "outcall1"],
    ["outcall0", 12, "outcall12"],
    ["agents", 0, "agents"],
    ["agents", 1, "agents1"],
    ["br7", 1, "br8"],
    ["br-a9", 2, "br-a11"],
    ["a1b", 1, "a1b1"],
  ];
  for (const [name, n, expected] of rows) equal(bridgeName(name, n), expected);
});

Deno.test("bridgeName() refuses to go beyond IFNAMSIZ", () => {
  equal(bridgeName("outcall-agents0", 9), "outcall-agents9");
  throws(
    () => bridgeName("outcall-agents0", 10),
    (error: unknown) => error instanceof OutcallError && error.code === "bridge.names_exhausted",
  );
});

Deno.test("firstNames() are those that bridgeName() gives out first", () => {
  equal(firstNames("br7", 3).join(), "br7,br8,br9");
  equal(firstNames("outcall-agents8", 4).join(), "outcall-agents8,outcall-agents9");
});

Deno.test("isManagedName() knows the names that bridgeName() gives out, and no others", () => {
  const defaults = fc.stringMatching(/^[a-z][a-z0-9.-]{0,10}$/);
  fc.assert(fc.property(defaults, fc.nat(999), (name, n) => {
    ok(isManagedName(name, bridgeName(name, n)));
  }));
  for (
    const foreign of ["outcall", "outcall01", "outcall00", "outcall-1", "xoutcall1", "docker0", ""]
  ) {
    ok(!isManagedName("outcall0", foreign), foreign);
  }
  ok(!isManagedName("br7", "br3"), "numbers below the default's are not given out");
});

Deno.test("assertBridgeName() accepts what can name a bridge without quoting", () => {
  for (const name of ["outcall0", "a", "br-agents", "x.y_z-9", "abcdefghijklmno"]) {
    assertBridgeName(name);
  }
});

Deno.test("assertBridgeName() refuses what could break out of a rule, a path or a name", () => {
  const bad = [
    "",
    "lo",
    "abcdefghijklmnop",
    "../x",
    "a b",
    'a"',
    "a*",
    "-a",
    ".",
    "0",
    "9a",
    "a\n",
    "ä",
  ];
  for (const name of bad) {
    throws(
      () => assertBridgeName(name),
      (error: unknown) => error instanceof OutcallError && error.code === "bridge.name",
      JSON.stringify(name),
    );
  }
});

Deno.test("isInterfaceName() holds names that the kernel takes literally", () => {
  fc.assert(fc.property(fc.string(), (text) => {
    if (isInterfaceName(text)) ok(/^[\w.-]{1,15}$/.test(text));
  }));
});
