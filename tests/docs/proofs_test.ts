/**
 * The tables of threats (docs/security.md) and of requirements (docs/requirements.md) are complete,
 * and what they point at exists.
 */
import assert from "node:assert/strict";

const TESTS = new URL("../", import.meta.url);
const LIB = new URL("../../lib/", import.meta.url);

/** The rows of a page that begin with identifiers: `| T-1, ADV-NET-01: …`. */
function rowsOf(page: string): string[] {
  const text = Deno.readTextFileSync(new URL(`../docs/${page}`, TESTS));
  return text.split("\n").filter((line) => /^\| [A-Z][A-Z0-9]*-[A-Z0-9-]+/.test(line));
}

function numbered(prefix: string, count: number, digits = 3): string[] {
  return Array.from({ length: count }, (_, i) => `${prefix}${`${i + 1}`.padStart(digits, "0")}`);
}

/** What each page must have a row for. */
const PAGES: Readonly<Record<string, readonly string[]>> = {
  "security.md": [
    ...numbered("T-", 10, 1),
    ...numbered("ADV-NET-", 14, 2),
    ...["ADV-DNS-00", ...numbered("ADV-DNS-", 19, 2)],
    ...numbered("ADV-HTTP-", 29, 2),
    ...numbered("ADV-TLS-", 14, 2),
    ...numbered("ADV-CONTAINER-", 10, 2),
    ...numbered("S015-AS-", 13),
  ],
  "requirements.md": [
    ...[...numbered("S002-FR-", 33), ...numbered("S002-EC-", 16), ...numbered("S002-AS-", 16)],
    ...[...numbered("S006-FR-", 26), ...numbered("S006-EC-", 17), ...numbered("S006-AS-", 13)],
    ...[...numbered("S007-FR-", 40), ...numbered("S007-EC-", 17), ...numbered("S007-AS-", 16)],
    ...[...numbered("S008-FR-", 39), ...numbered("S008-EC-", 21), ...numbered("S008-AS-", 19)],
    ...[...numbered("S004-FR-", 19), ...numbered("S004-EC-", 10), ...numbered("S004-AS-", 11)],
    ...[...numbered("S005-FR-", 22), ...numbered("S005-EC-", 12), ...numbered("S005-AS-", 10)],
  ],
};

for (const [page, wanted] of Object.entries(PAGES)) {
  Deno.test(`docs/${page} has a row for everything`, () => {
    const named = rowsOf(page).flatMap((row) => /^\| ([^:]*):/.exec(row)?.[1]?.split(", ") ?? []);
    assert.deepEqual(wanted.filter((id) => !named.includes(id)), []);
    if (page === "requirements.md") assert.equal(new Set(named).size, named.length);
  });

  Deno.test(`every row of docs/${page} names tests that exist`, () => {
    for (const row of rowsOf(page)) {
      const proofs = [...row.matchAll(/`([^`]+\.(?:ts|case))` "([^"]+)"/g)];
      assert.ok(proofs.length > 0, row);
      for (const [, path = "", text = ""] of proofs) {
        const source = Deno.readTextFileSync(new URL(path, TESTS));
        assert.ok(source.includes(text), `${path} has no ${text}`);
      }
    }
  });
}

Deno.test("no program is run to talk to Docker (S002-FR-001, S008-FR-001, S008-SC-009)", () => {
  for (const { name } of Deno.readDirSync(new URL("docker/", LIB))) {
    const source = Deno.readTextFileSync(new URL(`docker/${name}`, LIB));
    assert.doesNotMatch(source, /Deno\.Command|child_process/, name);
  }
});

Deno.test("the shim knows no path but the agent socket's, and nothing of the daemon (S005-FR-001, S005-FR-005)", () => {
  const paths: string[] = [];
  for (const { name } of Deno.readDirSync(new URL("shim/", LIB))) {
    const source = Deno.readTextFileSync(new URL(`shim/${name}`, LIB));
    for (const [, specifier = ""] of source.matchAll(/ from "([^"]+)";$/gm)) {
      assert.match(specifier, /^\.\/|^\.\.\/version\.ts$/, name);
    }
    paths.push(
      ...[...source.matchAll(/"(\/(?:run|etc|var)\/[^"]*)"/g)].map(([, path = ""]) => path),
    );
  }
  assert.deepEqual(paths, ["/run/outcall/agent.sock"]);
});
