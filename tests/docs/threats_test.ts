/** The table of threats in docs/security.md is complete, and what it points at exists. */
import assert from "node:assert/strict";

const TESTS = new URL("../", import.meta.url);
const [, table = ""] = Deno.readTextFileSync(new URL("../docs/security.md", TESTS))
  .split("## Threats and proofs");
const ROWS = table.split("\n").filter((line) =>
  /^\| [A-Z]/.test(line) && !/^\| Threat /.test(line)
);

function numbered(prefix: string, count: number, digits: number): string[] {
  return Array.from({ length: count }, (_, i) => `${prefix}${`${i + 1}`.padStart(digits, "0")}`);
}

Deno.test("every threat has a row", () => {
  const named = new Set(ROWS.flatMap((row) => /^\| ([^:]*):/.exec(row)?.[1]?.split(", ") ?? []));
  const threats = [
    ...numbered("T-", 10, 1),
    ...numbered("ADV-NET-", 14, 2),
    ...numbered("ADV-CONTAINER-", 10, 2),
    ...numbered("S015-AS-", 13, 3),
  ];
  assert.deepEqual(threats.filter((threat) => !named.has(threat)), []);
});

Deno.test("every row names tests that exist", () => {
  for (const row of ROWS) {
    const proofs = [...row.matchAll(/`([^`]+)` "([^"]+)"/g)];
    assert.ok(proofs.length > 0, row);
    for (const [, path = "", text = ""] of proofs) {
      const source = Deno.readTextFileSync(new URL(path, TESTS));
      assert.ok(source.includes(text), `${path} has no ${text}`);
    }
  }
});
