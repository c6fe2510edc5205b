/** The endpoints about rules, over the real policy. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { connectFacts, dnsFacts } from "../rules/support.ts";
import { withPolicy } from "./policy.ts";
import { post, type Reply, send } from "./running.ts";

const RULES = `version: "1"
rules:
  - id: api
    condition: 'http.host == "x.org"'
    action: allow
    log: true
    egress: { ports: [443, 8443], tls: any, max_body_bytes: 1048576 }
  - id: no-force
    condition: 'run.tool == "git" && "--force" in run.args'
    action: block
  - id: odd
    condition: 'http.host == "odd.org" && http.headers["a"] == "b"'
    action: allow
tests:
  - { url: https://x.org/, expect: allow }
`;

function get(path: string, url: string): Promise<Reply> {
  return send(path, "GET", url);
}

function field(reply: Reply, name: string): unknown {
  return Reflect.get(Object(reply.json), name);
}

Deno.test("counters follow the decisions, and GET /rule/:id shows one rule's", () =>
  withPolicy({ "a.yaml": RULES }, async ({ path, rulesDir, attempt }) => {
    attempt("dns", dnsFacts("x.org"));
    const last = attempt("connect", connectFacts("x.org"));
    attempt("connect", connectFacts("x.org", 22));
    attempt("dns", dnsFacts("y.org"));
    attempt("agent", { run: { tool: "git", args: ["--force"] }, agent: { name: "a" } });
    const rows = field(await get(path, "/api/v1/rules/counters"), "rules");
    ok(Array.isArray(rows));
    deepEqual(rows.map(({ id, matches, blocks }) => [id, matches, blocks]), [
      ["api", 2, 0],
      ["no-force", 1, 1],
      ["odd", 0, 0],
    ]);
    deepEqual((await get(path, "/api/v1/rule/api")).json, {
      ok: true,
      id: "api",
      file: `${rulesDir}/a.yaml`,
      line: 3,
      action: "allow",
      priority: 100,
      condition: 'http.host == "x.org"',
      description: null,
      matches: 2,
      blocks: 0,
      errors: 0,
      last_matched: last.time,
      log: true,
      egress: {
        mode: "proxy",
        ports: [443, 8443],
        allow_private_ips: false,
        tls: "any",
        max_body_bytes: 1048576,
      },
    });
    equal(field(await get(path, "/api/v1/rule/no-force"), "egress"), null);
  }));

Deno.test("a failing rule is counted by what enforces, not by a dry run (D9)", () =>
  withPolicy({ "a.yaml": RULES }, async ({ path, attempt }) => {
    const context = { http: { host: "odd.org", headers: {} } };
    const errors = async (): Promise<unknown> =>
      field(await get(path, "/api/v1/rule/odd"), "errors");
    equal((await post(path, "/api/v1/rule/evaluate", { context })).status, 200);
    equal(await errors(), 0);
    attempt("http", { ...context, network: { port: 80 } });
    equal(await errors(), 1);
  }));

Deno.test("a reload keeps the counts of unchanged rules and refuses a set whose tests fail", () =>
  withPolicy({ "a.yaml": RULES }, async ({ path, rulesDir, attempt }) => {
    attempt("dns", dnsFacts("x.org"));
    const reload = (text: string): Promise<Reply> => {
      Deno.writeTextFileSync(`${rulesDir}/a.yaml`, text);
      return post(path, "/api/v1/rules/reload");
    };
    equal((await reload(RULES.replace("no-force", "other"))).status, 200);
    equal(field(await get(path, "/api/v1/rule/api"), "matches"), 1);
    const refused = await reload(RULES.replace('"x.org"', '"z.org"'));
    equal(refused.status, 422);
    deepEqual(field(refused, "details"), [{
      file: `${rulesDir}/a.yaml`,
      line: 15,
      column: 7,
      message:
        "test 'GET https://x.org/' expects allow, and the answer is block at layer dns (no rule)",
    }]);
    match(
      String(field(refused, "report")),
      /\n {4} {2}- \{ url: https:\/\/x\.org\/, expect: allow \}\n/,
    );
    equal(field(await get(path, "/api/v1/rule/api"), "matches"), 1);
    equal((await reload(RULES.replace('"x.org"', '"z.org"').replace("//x", "//z"))).status, 200);
    equal(field(await get(path, "/api/v1/rule/api"), "matches"), 0);
  }));

Deno.test("POST /api/v1/rule/test tells true, false, unknown and a mistake apart (S003-IF-005)", () =>
  withPolicy({}, async ({ path }) => {
    const test = async (expression: string): Promise<unknown> => {
      const context = { http: { host: "X.org", headers: {} } };
      return (await post(path, "/api/v1/rule/test", { expression, context })).json;
    };
    const known = { ok: true, error: null, missing: [], report: null };
    deepEqual(await test('http.host == "x.org"'), { ...known, result: true, outcome: "true" });
    deepEqual(await test('http.host == "y.org"'), { ...known, result: false, outcome: "false" });
    deepEqual(await test('http.method == "GET" || run.tool == "x"'), {
      ...known,
      result: false,
      outcome: "unknown",
      missing: ["http.method", "run.tool"],
    });
    deepEqual(await test('http.headers["a"] == "b"'), {
      ...known,
      result: false,
      outcome: "error",
      error: "the map has no key 'a'",
    });
    deepEqual(await test("http_host == 1"), {
      ok: true,
      result: false,
      outcome: "error",
      error: "CEL parse error: undefined identifier 'http_host'",
      missing: [],
      report: `expression:1:1: CEL parse error: undefined identifier 'http_host'
    http_host == 1
    ^^^^^^^^^
    hint: Fields are written with a dot. Did you mean http.host?`,
    });
    equal((await post(path, "/api/v1/rule/test", { expression: "true" })).status, 422);
  }));

Deno.test("POST /api/v1/rules/explain answers layer by layer, and strictly", () =>
  withPolicy({ "a.yaml": RULES }, async ({ path }) => {
    const explain = (request: object): Promise<Reply> =>
      post(path, "/api/v1/rules/explain", request);
    const reply = await explain({ url: "https://x.org/", agent: "worker" });
    equal(field(reply, "decision"), "allow");
    equal(field(reply, "request"), "GET https://x.org/ by worker");
    const steps = field(reply, "steps");
    ok(Array.isArray(steps));
    deepEqual(
      steps.map(({ layer, decision, reason, rule }) => [layer, decision, reason, rule.id]),
      [
        ["dns", "allow", "rule", "api"],
        ["connect", "allow", "rule", "api"],
        ["sni", "allow", "rule", "api"],
      ],
    );
    deepEqual(steps[0].facts.dns, { query: "x.org", record_type: "A" });
    const typo = await explain({ uri: "https://x.org/" });
    equal(field(typo, "error"), 'invalid request body: unknown field "uri"');
    const none = await explain({});
    deepEqual([none.status, field(none, "error")], [
      422,
      "a request needs exactly one of url, dns, connect, direct and tool",
    ]);
  }));

Deno.test("POST /api/v1/rules/diff judges what was recorded and the tests by other files", () =>
  withPolicy({ "a.yaml": RULES }, async ({ path, attempt }) => {
    for (let i = 0; i < 3; i++) attempt("dns", dnsFacts("x.org"));
    attempt("dns", dnsFacts("z.org"));
    const text = `version: "1"
rules:
  - { id: api, condition: 'http.host == "z.org"', action: allow }
  - { id: new, condition: 'http.host == "n.org"', action: allow }
tests:
  - { dns: n.org, expect: allow }
`;
    const reply = await post(path, "/api/v1/rules/diff", { files: [{ path: "b.yaml", text }] });
    const nobody = { agent: "tester", address: null, port: null, method: null, path: null };
    const [blocked, allowed] = [
      { decision: "block", reason: "default", matched_rule: null, file: null, line: null },
      { decision: "allow", reason: "rule", matched_rule: "api" },
    ];
    const file = String(field(await get(path, "/api/v1/rule/api"), "file"));
    const dns = { layer: "dns", record_type: "A", ...nobody };
    deepEqual(reply.json, {
      ok: true,
      rules: { added: ["new"], removed: ["no-force", "odd"], changed: ["api"] },
      decisions: {
        examined: 4,
        flips: [
          {
            ...dns,
            host: "x.org",
            count: 3,
            before: { ...allowed, file, line: 3 },
            after: blocked,
          },
          {
            ...dns,
            host: "z.org",
            count: 1,
            before: blocked,
            after: { ...allowed, file: "b.yaml", line: 3 },
          },
        ],
      },
      tests: {
        examined: 2,
        flips: [
          {
            name: "GET https://x.org/",
            before: { decision: "allow", layer: "sni", matched_rule: "api" },
            after: { decision: "block", layer: "dns", matched_rule: null },
          },
          {
            name: "DNS n.org",
            before: { decision: "block", layer: "dns", matched_rule: null },
            after: { decision: "allow", layer: "dns", matched_rule: "new" },
          },
        ],
      },
    });
    equal(field(await get(path, "/api/v1/rules"), "rules") instanceof Array, true);
    equal(field(await get(path, "/api/v1/rule/new"), "ok"), false, "nothing was changed");
  }));

Deno.test("a candidate set that cannot be loaded is refused like a reload", () =>
  withPolicy({}, async ({ path }) => {
    const text = RULES.replace("http.host", "http_host");
    const reply = await post(path, "/api/v1/rules/diff", { files: [{ path: "b.yaml", text }] });
    deepEqual([reply.status, field(reply, "code")], [422, "rules.invalid"]);
    equal(field(reply, "error"), "b.yaml:4: CEL parse error: undefined identifier 'http_host'");
  }));

Deno.test("a candidate set may be as large as a rules directory, unlike other bodies", () =>
  withPolicy({}, async ({ path }) => {
    const text = `version: "1"\n${"#".repeat(1024 * 1024 - 14)}\n`;
    const files = Array.from({ length: 3 }, (_, i) => ({ path: `${i}.yaml`, text }));
    equal((await post(path, "/api/v1/rules/diff", { files })).status, 200);
    const larger = await post(path, "/api/v1/rules/diff", {
      files: [{ path: "x.yaml", text: `${text}#` }],
    });
    equal(larger.status, 422);
  }));
