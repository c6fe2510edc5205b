/** Counters, diff, policy tests, expression tests, SARIF and the whole of `rules check`. */
import assert from "node:assert/strict";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { RuleCounters } from "../../lib/rules/counters.ts";
import { decide } from "../../lib/rules/decide.ts";
import { diffPolicies, type RecordedAttempt } from "../../lib/rules/diff.ts";
import { testExpression } from "../../lib/rules/expression.ts";
import { toSarif } from "../../lib/rules/sarif.ts";
import { exitCodeOf, validate } from "../../lib/rules/validate.ts";
import { connectFacts, httpFacts, policyOf, ruleFileText } from "./support.ts";

Deno.test("RuleCounters counts matches, blocks and errors, and remembers the last match", () => {
  const policy = policyOf(
    { id: "no", condition: 'http.host == "bad.org"', action: "block" },
    { id: "yes", condition: 'http.host == "x.org"' },
    { id: "odd", condition: 'http.headers["a"] == "b"' },
    { id: "never", condition: 'http.host == "never.org"' },
  );
  const counters = new RuleCounters();
  const judge = (host: string, nowMs: number): number =>
    counters.count(decide(policy, "http", httpFacts("GET", host)), nowMs).length;
  judge("x.org", 1000);
  judge("x.org", 2000);
  judge("bad.org", 3000);
  assert.equal(judge("other.org", 4000), 1, "a failure is due to be logged");
  assert.equal(judge("other.org", 63_999), 0, "once a minute at most (D9)");
  assert.equal(judge("other.org", 64_000), 1);
  const rows = counters.list(policy).map(({ id, matches, blocks, errors, last_matched }) => [
    id,
    matches,
    blocks,
    errors,
    last_matched,
  ]);
  assert.deepEqual(rows, [
    ["no", 1, 1, 0, "1970-01-01T00:00:03.000Z"],
    ["yes", 2, 0, 0, "1970-01-01T00:00:02.000Z"],
    ["odd", 0, 0, 3, null],
    ["never", 0, 0, 0, null],
  ]);
});

Deno.test("RuleCounters counts no match for a rule that was refused its port, and forgets removed rules", () => {
  const policy = policyOf({ id: "web", condition: 'http.host == "x.org"' });
  const counters = new RuleCounters();
  counters.count(decide(policy, "connect", connectFacts("x.org", 22)), 1);
  assert.equal(counters.list(policy)[0]?.matches, 0);
  counters.count(decide(policy, "connect", connectFacts("x.org", 443)), 1);
  assert.equal(counters.list(policy)[0]?.matches, 1);
  counters.keepOnly(policyOf({ id: "other", condition: "true" }));
  assert.equal(counters.list(policy)[0]?.matches, 0);
});

function attempt(layer: RecordedAttempt["layer"], host: string, port = 443): RecordedAttempt {
  return {
    layer,
    agent: { name: "a" },
    attempt: layer === "dns" ? { host, recordType: "A" } : { host, port, method: "CONNECT" },
  };
}

Deno.test("diffPolicies() lists what would flip, the most frequent first", () => {
  const before = policyOf({ condition: 'http.host in ["x.org", "y.org"]' });
  const after = policyOf({ condition: 'http.host in ["x.org", "z.org"]' });
  const diff = diffPolicies(before, after, [
    attempt("dns", "x.org"),
    attempt("connect", "z.org"),
    attempt("connect", "y.org"),
    attempt("connect", "y.org"),
    attempt("dns", "y.org"),
    attempt("connect", "x.org", 22),
    attempt("kernel", "1.2.3.4"),
    { ...attempt("dns", "y.org"), agent: null },
  ]);
  assert.equal(diff.examined, 6);
  assert.deepEqual(
    diff.flips.map(({ layer, facts, count, before, after }) => [
      layer,
      facts.http?.host,
      count,
      before.allowed,
      after.allowed,
    ]),
    [
      ["connect", "y.org", 2, true, false],
      ["connect", "z.org", 1, false, true],
      ["dns", "y.org", 1, true, false],
    ],
  );
});

const TESTED = `
version: "1"
rules:
  - { id: api, condition: 'http.host == "x.org"', action: allow }
`;

Deno.test("policy tests beside the rules and in a file of their own judge the whole set", () => {
  const tests = `
version: "1"
tests:
  - { name: open, url: https://x.org/, expect: allow, rule: api }
  - { dns: y.org, expect: block }
  - { connect: "x.org:22", expect: block }
`;
  const result = compilePolicy([
    { path: "a.yaml", text: TESTED },
    { path: "a.test.yaml", text: tests },
  ], { generation: 1 });
  assert.ok(result.ok);
  assert.deepEqual(result.warnings, []);
  assert.deepEqual(result.tests, [
    { name: "open", expect: "allow", verdict: "allow", layer: "sni", rule: "api", failure: null },
    {
      name: "DNS y.org",
      expect: "block",
      verdict: "block",
      layer: "dns",
      rule: null,
      failure: null,
    },
    {
      name: "CONNECT x.org:22",
      expect: "block",
      verdict: "block",
      layer: "connect",
      rule: "api",
      failure: null,
    },
  ]);
});

Deno.test("a set whose own tests fail is refused, and each failure is named", () => {
  const tests = "tests:\n  - { dns: x.org, expect: block }\n  - { dns: y.org, expect: allow }\n";
  const result = compilePolicy([{ path: "a.yaml", text: TESTED + tests }], { generation: 1 });
  assert.ok(!result.ok);
  assert.deepEqual(result.errors.map(({ line, message }) => [line, message]), [
    [6, "test 'DNS x.org' expects block, and the answer is allow at layer dns (rule 'api')"],
    [7, "test 'DNS y.org' expects allow, and the answer is block at layer dns (no rule)"],
  ]);
});

Deno.test("testExpression() tells true, false, unknown and error apart", () => {
  const facts = httpFacts("GET", "x.org");
  const outcome = (text: string): [string, boolean, string | null] => {
    const { outcome, result, error } = testExpression(text, facts);
    return [outcome, result, error];
  };
  assert.deepEqual(outcome('http.host == "x.org"'), ["true", true, null]);
  assert.deepEqual(outcome('http.host == "y.org"'), ["false", false, null]);
  assert.deepEqual(outcome('run.tool == "git"'), ["unknown", false, null]);
  assert.deepEqual(outcome('http.headers["a"] == "b"'), [
    "error",
    false,
    "the map has no key 'a'",
  ]);
  assert.deepEqual(outcome("http_host == 1"), [
    "error",
    false,
    "CEL parse error: undefined identifier 'http_host'",
  ]);
  assert.equal(testExpression("http.host", facts).outcome, "error");
  assert.ok(testExpression('network.ip == "1.2.3.4"', facts, "http").pending);
  assert.ok(!testExpression('network.ip == "1.2.3.4"', facts, "dial").pending);
});

Deno.test("validate() reports errors, warnings, lint and tests, with the exit code of rules check", () => {
  const check = (text: string): ReturnType<typeof validate> =>
    validate({ files: [{ path: "a.yaml", text }], problems: [] });
  const clean = check(TESTED);
  assert.deepEqual([clean.rules, exitCodeOf(clean, false), exitCodeOf(clean, true)], [1, 0, 0]);
  const open = check(ruleFileText([{ condition: "true" }]));
  assert.deepEqual(open.warnings.map(({ code }) => code), ["lint.any_host"]);
  assert.deepEqual([exitCodeOf(open, false), exitCodeOf(open, true)], [0, 1]);
  const broken = check(ruleFileText([{ condition: "tru" }]));
  assert.deepEqual([broken.errors.length, exitCodeOf(broken, false)], [1, 2]);
  const problem = {
    severity: "error",
    code: "rules.symlink",
    file: "b.yaml",
    line: 1,
    column: 1,
    message: "",
  } as const;
  const unsafe = validate({ files: [], problems: [problem] });
  assert.equal(exitCodeOf(unsafe, false), 2);
});

Deno.test("toSarif() places each finding at its line and columns", () => {
  const report = validate({
    files: [{ path: "rules/my file.yaml", text: TESTED.replace("http.host", "http.hots") }],
    problems: [],
  });
  const log = toSarif(report.errors, "1.2.3");
  assert.equal(log.version, "2.1.0");
  const [run] = log.runs;
  assert.deepEqual(run?.tool.driver, {
    name: "outcall",
    version: "1.2.3",
    rules: [{ id: "rules.unknown_fact" }],
  });
  assert.deepEqual(run?.results, [{
    ruleId: "rules.unknown_fact",
    level: "error",
    message: { text: "CEL type error: http has no field 'hots'\nDid you mean http.host?" },
    locations: [{
      physicalLocation: {
        artifactLocation: { uri: "rules/my%20file.yaml" },
        region: { startLine: 4, startColumn: 33, endColumn: 37 },
      },
    }],
  }]);
  assert.deepEqual(JSON.parse(JSON.stringify(log)), log);
});
