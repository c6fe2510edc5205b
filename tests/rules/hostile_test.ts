/** Rule files that mean harm: agents may submit them (ADV-AGENT-10). Nothing throws, nothing loads. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { decide } from "../../lib/rules/decide.ts";
import { formatDiagnostic } from "../../lib/rules/diagnostic.ts";
import { lint } from "../../lib/rules/lint.ts";
import { LIMITS } from "../../lib/rules/limits.ts";
import { SEED } from "../random.ts";
import { completeFacts } from "./generate.ts";

/** What an agent may submit. */
const SIZE = 65_536;

function withCondition(condition: string): string {
  return JSON.stringify({ version: "1", rules: [{ id: "a", action: "allow", condition }] });
}

const FILES: Readonly<Record<string, string>> = {
  "nested lists": "[".repeat(SIZE),
  "nested mappings": "{a: ".repeat(SIZE / 4),
  "nested sequences": "- ".repeat(SIZE / 2),
  "anchors": "&a ".repeat(SIZE / 3),
  "an alias bomb": 'version: "1"\nrules: &a [*a, *a]\n',
  "tags": "!".repeat(SIZE),
  "block headers": "|\n".repeat(SIZE / 2),
  "documents": "---\n".repeat(SIZE / 4),
  "unknown fields": Array.from({ length: SIZE / 8 }, (_, i) => `k${i}: 1\n`).join(""),
  "rules that are numbers": `version: "1"\nrules: [${"1,".repeat(SIZE / 2)}]`,
  "NUL bytes": "\0".repeat(SIZE),
  "a long chain": withCondition(`${"true||".repeat(SIZE / 6)}true`),
  "many negations": withCondition(`${"!".repeat(SIZE)}true`),
  "many signs": withCondition(`${"-".repeat(SIZE)}1 == 1`),
  "many parentheses": withCondition("(".repeat(SIZE)),
  "a long path": withCondition(`a${".a".repeat(SIZE / 2)}`),
  "many indexes": withCondition(`run.args${"[0]".repeat(SIZE / 3)} == 1`),
  "nested choices": withCondition(`${"true?true:".repeat(SIZE / 10)}true`),
  "a long sum": withCondition(`1${"+1".repeat(SIZE / 2)} == 1`),
  "a list that is too long": withCondition(
    `http.host in [${"'a',".repeat(LIMITS.listItems + 1)}'b']`,
  ),
  "nested loops": withCondition(`${"run.args.map(x,".repeat(200)}1${")".repeat(200)} == 1`),
  "quotes": withCondition('"'.repeat(SIZE / 2 + 1)),
  "definitions in a circle": `version: "1"\ndefinitions:\n${
    Array.from({ length: 3000 }, (_, i) => ` d${i}: $d${(i + 1) % 3000}\n`).join("")
  }rules: []\n`,
};
for (const [name, text] of Object.entries(FILES)) {
  Deno.test(`a rule file of ${name} is refused with a diagnostic`, () => {
    const result = compilePolicy([{ path: "a.yaml", text }], { generation: 1 });
    assert.ok(!result.ok);
    assert.ok(result.errors.length >= 1 && result.errors.length <= LIMITS.errors);
    for (const error of result.errors) assert.ok(formatDiagnostic(error).length < 2000);
  });
}

Deno.test("more rules than the limit are refused, however they are spread over files (S003)", () => {
  const file = (name: string, count: number) => ({
    path: name,
    text: JSON.stringify({
      version: "1",
      rules: Array.from({ length: count }, (_, i) => ({
        id: `${name}${i}`,
        condition: "false",
        action: "allow",
      })),
    }),
  });
  const half = LIMITS.rules / 2;
  assert.ok(compilePolicy([file("a", half), file("b", half)], { generation: 1 }).ok);
  const result = compilePolicy([file("a", half), file("b", half + 1)], { generation: 1 });
  assert.ok(!result.ok);
  assert.deepEqual(result.errors.map(({ code, file }) => [code, file]), [["rules.too_many", "b"]]);
});

Deno.test("a control character of a file does not reach the operator's terminal (CWE-150)", () => {
  const result = compilePolicy([{
    path: "a.yaml",
    text:
      'version: "1"\nrules:\n  - { id: "a\\e[2J", condition: "x\\e[31m", action: allow } # \x1b[2J\n',
  }], { generation: 1 });
  assert.ok(!result.ok);
  for (const error of result.errors) {
    assert.doesNotMatch(formatDiagnostic(error), /(?!\n)\p{Cc}/u);
  }
});

const VALID = `version: "1"
definitions:
  api: http.host == "api.example.com" # the API
  paths: 'http.path.matches("^/v[0-9]+/") || http.path in ["/", "/health"]'
rules:
  - id: api
    description: "the API"
    condition: |
      $api && ($paths) &&
      (http.method == "GET" || network.port in [80, 8080])
    action: allow
    priority: 50
    log: true
    egress: { mode: proxy, ports: [80, 443], allow_private_ips: false, tls: sni }
  - id: tools
    condition: run.tool == "git" && !run.args.exists(a, a.startsWith("--force"))
    action: block
tests:
  - { name: x, url: "http://api.example.com/v1/", method: GET, expect: allow, rule: api }
`;

const SCRAPS = [
  "",
  " ",
  "\n",
  "'",
  '"',
  "$",
  "&a ",
  "*a",
  "(",
  ")",
  "[",
  "{",
  ":",
  "- ",
  "# ",
  "\\",
  "//",
  "&&",
  "0",
  "é",
  "\0",
];

Deno.test("a mutated rule file is refused or judged, and never throws", () => {
  let loaded = 0;
  const mutation = fc.record({
    at: fc.nat(VALID.length),
    cut: fc.nat(3),
    put: fc.oneof(
      fc.constantFrom(...SCRAPS),
      fc.nat(VALID.length).map((i) => VALID.slice(i, i + 9)),
    ),
  });
  fc.assert(
    fc.property(
      fc.array(mutation, { minLength: 1, maxLength: 2 }),
      completeFacts,
      (mutations, facts) => {
        let text = VALID;
        for (const { at, cut, put } of mutations) {
          text = text.slice(0, at) + put +
            text.slice(at + cut);
        }
        const result = compilePolicy([{ path: "a.yaml", text }], { generation: 1 });
        if (!result.ok) {
          for (const error of result.errors) formatDiagnostic(error);
          return;
        }
        loaded++;
        lint(result.policy);
        for (const layer of ["dns", "connect", "http", "dial", "agent"] as const) {
          decide(result.policy, layer, facts);
        }
      },
    ),
    { numRuns: 3000, seed: SEED },
  );
  assert.ok(loaded > 50, `${loaded} mutants were valid`);
});
