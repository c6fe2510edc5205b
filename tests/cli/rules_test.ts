/** The policy tools as an operator uses them, over the real policy. */
import { deepEqual, equal, match } from "node:assert/strict";
import { type ServedPolicy, withPolicy, writeRules } from "../api/policy.ts";
import { connectFacts, dnsFacts } from "../rules/support.ts";
import { outcall, type Outcome } from "./outcall.ts";

const RULES = `version: "1"
definitions:
  docs: http.host == "docs.org"
rules:
  - id: api
    description: "the API"
    condition: 'http.host == "api.org"'
    action: allow
  - id: read-docs
    condition: |
      $docs &&
      http.method in ["GET", "HEAD"]
    action: allow
    egress: { ports: [80], allow_private_ips: true }
  - id: no-force
    condition: 'run.tool == "git" && "--force" in run.args'
    action: block
  - id: strange
    condition: 'http.host == "strange.org" && network.port == 80 && http.headers["x"] == "y"'
    action: block
  - id: strange-host
    condition: 'http.host == "strange.org" && network.port == 80'
    action: allow
tests:
  - { url: https://api.org/, expect: allow }
`;

/** Runs a command against the served policy; paths of the test's directory are printed as `DIR`. */
async function run(served: ServedPolicy, ...args: readonly string[]): Promise<Outcome> {
  const { code, out, err } = await outcall("--socket", served.path, ...args);
  const short = (text: string): string => text.replaceAll(served.directory, "DIR");
  return { code, out: short(out), err: short(err) };
}

function ok(out: string): Outcome {
  return { code: 0, out, err: "" };
}

Deno.test("rules show prints one rule in full; an unknown id is an error", () =>
  withPolicy({ "a.yaml": RULES }, async (served) => {
    deepEqual(
      await run(served, "rules", "show", "read-docs"),
      ok(`Rule:         read-docs
File:         DIR/rules.d/a.yaml:9
Action:       allow
Priority:     100
Egress:       proxy; ports 80; tls sni; private addresses allowed; plain bodies up to 16777216 bytes
Log:          no
Matches:      0 (0 blocked, 0 failed)
Last matched: never since load
Condition:
  (http.host == "docs.org") &&
  http.method in ["GET", "HEAD"]
`),
    );
    deepEqual(await run(served, "rules", "show", "nope"), {
      code: 1,
      out: "",
      err: 'error: rule not found: "nope"\nhint: `outcall rules list` shows the rules in force.\n',
    });
  }));

Deno.test("rules counters shows what each rule did, and which never matched", () =>
  withPolicy({ "a.yaml": RULES }, async (served) => {
    served.attempt("dns", dnsFacts("api.org"));
    const { time } = served.attempt("connect", connectFacts("api.org"));
    deepEqual(
      await run(served, "rules", "counters"),
      ok(`ID                       ACTION MATCHES  BLOCKS  ERRORS  LAST MATCHED
api                      allow  2        0       0       ${time}
read-docs                allow  0        0       0       never since load
no-force                 block  0        0       0       never since load
strange                  block  0        0       0       never since load
strange-host             allow  0        0       0       never since load
`),
    );
  }));

Deno.test("rules explain: each layer, its rule, and the values of its clauses", () =>
  withPolicy({ "a.yaml": RULES }, async (served) => {
    const explain = (...args: string[]): Promise<Outcome> =>
      run(served, "rules", "explain", ...args);
    deepEqual(
      await explain("--url", "https://docs.org/a", "--agent", "worker"),
      ok(`BLOCK  GET https://docs.org/a by worker

dns       ALLOW  rule read-docs (DIR/rules.d/a.yaml:9)
            true   http.host == "docs.org"         http.host is "docs.org"
            later  http.method in ["GET", "HEAD"]  http.method is not known yet

connect   BLOCK  no rule matches (default policy)
          nearest: read-docs (DIR/rules.d/a.yaml:9)
          fails on: http.method in ["GET", "HEAD"] (DIR/rules.d/a.yaml:12:7)
            true   http.host == "docs.org"         http.host is "docs.org"
            false  http.method in ["GET", "HEAD"]  http.method is "CONNECT"

note: in HTTPS nobody sees method, path, headers and body: no rule can judge them.
`),
    );
    deepEqual(
      await explain("--connect", "api.org:22"),
      ok(`BLOCK  CONNECT api.org:22

dns       ALLOW  rule api (DIR/rules.d/a.yaml:5)
            true   http.host == "api.org"  http.host is "api.org"

connect   BLOCK  rule api (DIR/rules.d/a.yaml:5) allows the host, but not this port
            true   http.host == "api.org"  http.host is "api.org"
`),
    );
    deepEqual(
      await explain("--tool", "git", "--args", "push --force"),
      ok(`BLOCK  git push --force

agent     BLOCK  rule no-force (DIR/rules.d/a.yaml:15)
            true   run.tool == "git"      run.tool is "git"
            true   "--force" in run.args  run.args is ["push","--force"]
`),
    );
    const failing = await explain("--url", "http://strange.org/");
    match(
      failing.out,
      /http {6}BLOCK {2}rule strange .* fails, which blocks: the map has no key 'x'\n/,
    );
    const plain = await explain(
      "--url",
      "http://docs.org/",
      "--method",
      "post",
      "--header",
      "A: b",
    );
    match(plain.out, /http {6}BLOCK .*\n.*nearest: read-docs .*\n.*fails on: http\.method in/);
    const long = await explain("--url", "http://api.org/", "--body-size", "17m");
    match(long.out, /^BLOCK {2}GET http:\/\/api\.org\/ with 17825792 bytes\n/);
    match(long.out, /http {6}BLOCK {2}rule api .* allows no body as long as this\n/);
    match((await explain("--dns", "api.org", "--type", "aaaa")).out, /^ALLOW {2}DNS api\.org\n/);
    deepEqual(await explain("--url", "http://a/", "--dns", "a"), {
      code: 1,
      out: "",
      err: "error: a request needs exactly one of url, dns, connect, direct and tool\n",
    });
  }));

Deno.test("rules explain says when a yes still depends on the address, until it is given", () => {
  const pinned = `version: "1"
rules:
  - id: pinned
    condition: 'http.host == "x.org" && network.ip.inCidr("93.184.0.0/16")'
    action: allow
`;
  return withPolicy({ "a.yaml": pinned }, async (served) => {
    const explain = (...args: string[]): Promise<Outcome> =>
      run(served, "rules", "explain", "--connect", "x.org", ...args);
    const open = await explain();
    match(open.out, /^ALLOW /);
    match(open.out, /\nnote: allowed only if network\.ip suits the rule: give --address /);
    const given = await explain("--address", "93.184.216.34");
    match(given.out, /^ALLOW [^]*\ndial {6}ALLOW /);
    equal(given.out.includes("note:"), false);
    match((await explain("--address", "93.185.0.1")).out, /^BLOCK /);
  });
});

Deno.test("rules test: true, false, unknown with what is missing, and a mistake with its place", () =>
  withPolicy({}, async (served) => {
    const test = (expr: string, context = '{"http":{"host":"X.org"}}'): Promise<Outcome> =>
      run(served, "rules", "test", "--expr", expr, "--context", context);
    deepEqual(await test('http.host == "x.org"'), ok("Result: true\n"));
    deepEqual(await test('http.host == "y.org"'), ok("Result: false\n"));
    deepEqual(
      await test('http.host == "x.org" && agent.name == "a"'),
      ok("Result: unknown\nNot known: agent.name\n"),
    );
    deepEqual(await test("http_host == 1"), {
      code: 1,
      out: `Result: error
expression:1:1: CEL parse error: undefined identifier 'http_host'
    http_host == 1
    ^^^^^^^^^
    hint: Fields are written with a dot. Did you mean http.host?
`,
      err: "",
    });
    equal((await test("true", "{")).code, 2);
    equal(
      (await test("true", '{"http":{"hots":"x"}}')).err,
      'error: invalid request body: unknown field "context.http.hots"\n',
    );
  }));

Deno.test("rules diff lists what would flip: recorded decisions and the tests of both sets", () =>
  withPolicy({ "a.yaml": RULES }, async (served) => {
    for (let i = 0; i < 3; i++) served.attempt("connect", connectFacts("api.org"));
    served.attempt("dns", dnsFacts("new.org"));
    const diff = (name: string, text: string): Promise<Outcome> => {
      writeRules(`${served.directory}/${name}`, { "a.yaml": text });
      return run(served, "rules", "diff", `${served.directory}/${name}`);
    };
    deepEqual(
      await diff("same", RULES),
      ok("4 recorded decisions and 1 policy test judged by both sets: nothing would change\n"),
    );
    const other = `version: "1"
rules:
  - { id: api, condition: 'http.host == "new.org"', action: allow }
  - { id: no-force, condition: 'run.tool == "git" && "--force" in run.args', action: block }
`;
    deepEqual(
      await diff("other", other),
      ok(`Rules removed: read-docs, strange, strange-host
Rules changed: api
4 recorded decisions and 1 policy test judged by both sets: 3 would change

CHANGE          COUNT LAYER   ATTEMPT                          BEFORE               AFTER
allow -> block  3     connect CONNECT api.org:443 by tester    api                  (default policy)
block -> allow  1     dns     new.org A by tester              (default policy)     api
allow -> block  test  dns     GET https://api.org/             api                  (default policy)
`),
    );
    const broken = await diff("broken", other.replace("http.host", "http_host"));
    deepEqual([broken.code, broken.out], [1, ""]);
    match(
      broken.err,
      /^error: the rules are refused: 1 mistake\nDIR\/broken\/a\.yaml:3:28: CEL parse/,
    );
    const missing = await run(served, "rules", "diff", `${served.directory}/a.yaml`);
    deepEqual([missing.code, missing.err.split("\n")[1]], [
      1,
      "DIR/a.yaml:1:1: there is no such directory",
    ]);
  }));

Deno.test("rules reload prints every mistake with its line, a caret and what to do", () =>
  withPolicy({ "a.yaml": RULES }, async (served) => {
    writeRules(`${served.directory}/new`, {});
    Deno.writeTextFileSync(
      `${served.rulesDir}/a.yaml`,
      RULES.replace('"api.org"', '"api.org').replace("http.method in", "http_method in"),
    );
    deepEqual(await run(served, "rules", "reload"), {
      code: 1,
      out: "",
      err: `error: the rules are refused: 2 mistakes
DIR/rules.d/a.yaml:7:30: CEL parse error: a text is not closed
        condition: 'http.host == "api.org'
                                 ^^^^^^^^
    hint: Add the closing quote on the same line.
DIR/rules.d/a.yaml:12:7: CEL parse error: undefined identifier 'http_method'
          http_method in ["GET", "HEAD"]
          ^^^^^^^^^^^
    hint: Fields are written with a dot. Did you mean http.method?
hint: nothing was changed; correct the rules (outcall rules check shows each mistake) and load them again
`,
    });
    const json = await run(served, "rules", "reload", "--json");
    const { ok, code, details } = JSON.parse(json.out);
    deepEqual([ok, code, details.length], [false, "rules.invalid", 2]);
  }));

/** Runs `rules check` on rule files in a directory of their own; it is printed as `DIR`. */
async function check(
  files: Readonly<Record<string, string>>,
  ...args: readonly string[]
): Promise<Outcome> {
  const directory = Deno.makeTempDirSync({ prefix: "outcall-check-" });
  try {
    writeRules(`${directory}/rules`, files);
    const { code, out, err } = await outcall("rules", "check", `${directory}/rules`, ...args);
    return { code, out: out.replaceAll(`${directory}/rules`, "DIR"), err };
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

const OPEN = `version: "1"
rules:
  - { id: open, condition: 'agent.name == "a"', action: allow }
`;

Deno.test("rules check needs no daemon: 0 clean, 1 warnings with --strict, 2 errors", async () => {
  deepEqual(
    await check({ "a.yaml": RULES }),
    ok("1 file, 5 rules, 1 test: 0 errors, 0 warnings\n"),
  );
  const warned = `DIR/a.yaml:3:1: warning: rule 'open' allows every host
    hint: Add a clause on the host, such as http.host == "api.example.com".
1 file, 1 rule, 0 tests: 0 errors, 1 warning
`;
  deepEqual(await check({ "a.yaml": OPEN }), ok(warned));
  deepEqual(await check({ "a.yaml": OPEN }, "--strict"), { code: 1, out: warned, err: "" });
  deepEqual(await check({ "a.yaml": OPEN.replace("action: allow", "action: deny") }), {
    code: 2,
    out: `DIR/a.yaml:3:57: 'action' must be 'allow' or 'block', not 'deny'
      - { id: open, condition: 'agent.name == "a"', action: deny }
                                                            ^^^^
    hint: Did you mean 'block'?
1 file: 1 error, 0 warnings
`,
    err: "",
  });
});

Deno.test("rules check runs the tests beside the rules, also from a file of their own", async () => {
  const tests = 'version: "1"\ntests:\n  - { dns: other.org, expect: allow }\n';
  deepEqual(await check({ "a.yaml": RULES, "a.test.yaml": tests }), {
    code: 2,
    out:
      `DIR/a.test.yaml:3:7: test 'DNS other.org' expects allow, and the answer is block at layer dns (no rule)
      - { dns: other.org, expect: allow }
          ^^^
    hint: Correct the rules or the test; \`outcall rules explain\` shows why.
2 files: 1 error, 0 warnings
`,
    err: "",
  });
});

Deno.test("rules check as JSON is an envelope; as SARIF it names rule, file and line", async () => {
  const clean = await check({ "a.yaml": RULES }, "--json");
  const { tests, ...counts } = JSON.parse(clean.out);
  deepEqual(counts, { ok: true, files: 1, rules: 5, errors: [], warnings: [] });
  equal(tests.length, 1);
  equal((await check({ "a.yaml": RULES }, "--format", "json")).out, clean.out);
  const broken = await check({ "a.yaml": "rules: []\n" }, "--json");
  const { ok: isOk, code, error, errors } = JSON.parse(broken.out);
  deepEqual([broken.code, isOk, code, error], [
    2,
    false,
    "rules.invalid",
    "DIR/a.yaml:1: 'version' is missing",
  ]);
  equal(errors.length, 1);
  const sarif = await check({ "a.yaml": OPEN }, "--format", "sarif");
  const { version, runs } = JSON.parse(sarif.out);
  equal(version, "2.1.0");
  deepEqual(runs[0].results.map((each: { ruleId: string }) => each.ruleId), ["lint.any_host"]);
});

Deno.test("rules check refuses what is no directory, and says so", async () => {
  const missing = await outcall("rules", "check", "/nonexistent");
  equal(missing.code, 2);
  match(missing.out, /^\/nonexistent:1:1: there is no such directory\n/);
  const outcome = await outcall("rules", "check", new URL(import.meta.url).pathname);
  equal(outcome.code, 2);
  match(outcome.out, /rules_test\.ts:1:1: is not a directory\n {4}hint: Name the directory/);
});
