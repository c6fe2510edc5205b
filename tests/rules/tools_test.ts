/** Counters, diff, policy tests, expression tests, SARIF and the whole of `rules check`. */
import assert from "node:assert/strict";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { RuleCounters } from "../../lib/rules/counters.ts";
import { decide } from "../../lib/rules/decide.ts";
import { diffPolicies, diffRules, diffTests, type RecordedAttempt } from "../../lib/rules/diff.ts";
import { testExpression } from "../../lib/rules/expression.ts";
import { toSarif } from "../../lib/rules/sarif.ts";
import { exitCodeOf, validate } from "../../lib/rules/validate.ts";
import { compileFiles, httpFacts, policyOf, ruleFileText } from "./support.ts";

Deno.test("RuleCounters counts matches and blocks, and remembers the last match", () => {
  const policy = policyOf({ id: "no", condition: "true", action: "block" }, {
    id: "never",
    condition: 'http.host == "never.org"',
  });
  const counters = new RuleCounters();
  const rule = policy.rules[0] ?? assert.fail();
  counters.countMatch(rule, true, 2000);
  counters.countMatch(rule, false, 3000, 5);
  const place = { file: "/rules/test.yaml", line: 1, blocks: 0, errors: 0 };
  assert.deepEqual(counters.list(policy), [
    {
      ...place,
      id: "no",
      action: "block",
      matches: 6,
      blocks: 1,
      last_matched: "1970-01-01T00:00:03.000Z",
    },
    { ...place, id: "never", action: "allow", matches: 0, last_matched: null },
  ]);
});

Deno.test("RuleCounters counts every failure and lets one a minute be logged (D9)", () => {
  const policy = policyOf({ id: "odd", condition: 'http.headers["a"] == "b"' });
  const counters = new RuleCounters();
  const due = (nowMs: number): number => {
    const { failures = [] } = decide(policy, "http", httpFacts("GET", "x.org"));
    return counters.countFailures(failures, nowMs).length;
  };
  assert.deepEqual([due(4000), due(63_999), due(64_000)], [1, 0, 1]);
  assert.deepEqual(counters.list(policy).map(({ errors, matches }) => [errors, matches]), [[3, 0]]);
});

Deno.test("RuleCounters keeps the counts of rules that a reload leaves as they were", () => {
  const [same, other] = [
    { id: "same", condition: 'http.host == "x.org"' },
    { id: "other", condition: 'http.host == "y.org"' },
  ];
  const before = policyOf(same, other);
  const counters = new RuleCounters();
  for (const rule of before.rules) counters.countMatch(rule, false, 1);
  const after = policyOf({ ...other, condition: 'http.host == "z.org"' }, same);
  counters.keepUnchanged(before, after);
  assert.deepEqual(counters.list(after).map(({ id, matches }) => [id, matches]), [
    ["other", 0],
    ["same", 1],
  ]);
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

Deno.test("diffTests() lists the policy tests whose answer would change, each request once", () => {
  const tests = `tests:
  - { url: https://x.org/, expect: allow }
  - { name: again, url: https://x.org/, expect: allow }
  - { dns: y.org, expect: block }
`;
  const before = compilePolicy([{ path: "a.yaml", text: TESTED + tests }], { generation: 1 });
  assert.ok(before.ok);
  const after = policyOf({ id: "late", condition: 'http.host == "x.org" && network.port == 80' });
  const { examined, flips } = diffTests(before.policy, after, before.policyTests);
  assert.equal(examined, 2);
  assert.deepEqual(
    flips.map(({ name, before, after }) => [name, before.allowed, after.steps.at(-1)?.layer]),
    [["again", true, "connect"]],
  );
});

Deno.test("diffRules() tells added, removed and changed rules apart, wherever they are written", () => {
  const [a, b] = [{ id: "a", condition: "true" }, { id: "b", condition: "true" }];
  const before = compileFiles({ "1.yaml": ruleFileText([a, b, { ...a, id: "gone" }]) });
  const after = compileFiles({
    "2.yaml": ruleFileText([{ ...b, log: true }, { ...a, id: "new" }, a]),
  });
  assert.deepEqual(diffRules(before, after), { added: ["new"], removed: ["gone"], changed: ["b"] });
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

Deno.test("a rule in a test file is refused", () => {
  for (const path of ["a.test.yaml", "a.test.yml"]) {
    const result = compilePolicy([{ path, text: TESTED }], { generation: 1 });
    assert.ok(!result.ok);
    assert.deepEqual(result.errors.map(({ code, line }) => [code, line]), [["rules.test_file", 4]]);
  }
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
  const { missing } = testExpression('http.host == "x.org" && run.tool == agent.name', {
    http: { host: "x.org" },
  });
  assert.deepEqual(missing, ["agent.name", "run.tool"]);
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
