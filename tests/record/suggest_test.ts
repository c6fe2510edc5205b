import assert from "node:assert/strict";
import fc from "fast-check";
import { type Decision, DECISION_SCHEMA, decisionId } from "../../lib/decision.ts";
import { OutcallError } from "../../lib/errors.ts";
import { pathClause } from "../../lib/record/suggestion/paths.ts";
import { suggest, type Suggestion } from "../../lib/record/suggest.ts";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { decide } from "../../lib/rules/decide.ts";
import { LIMITS } from "../../lib/rules/limits.ts";
import { lint } from "../../lib/rules/lint.ts";
import { emptyPolicy, type Policy } from "../../lib/rules/policy.ts";
import { isAdmitted } from "../../lib/rules/propose.ts";
import { walkOf } from "../../lib/rules/replay.ts";
import { SEED } from "../random.ts";
import { connectFacts, dnsFacts, httpFacts, policyOf } from "../rules/support.ts";

const NOTHING = emptyPolicy(1);

type Given = Partial<Decision> & Pick<Decision, "layer" | "attempt">;

function record(given: Given): Decision {
  return {
    schema: DECISION_SCHEMA,
    id: decisionId(),
    time: "2026-05-04T09:30:00.000Z",
    generation: 1,
    agent: { name: "worker", address: "10.200.0.2", network: "outcall-agent-net" },
    source: "10.200.0.2",
    verdict: "allow",
    reason: "observed",
    rule: null,
    ...given,
  };
}

function connect(host: string, port = 443, given: Partial<Decision> = {}): Decision {
  return record({ layer: "sni", attempt: { host, port, method: "CONNECT" }, ...given });
}

function lookup(host: string, recordType = "A"): Decision {
  return record({ layer: "dns", attempt: { host, recordType } });
}

function request(method: string, host: string, path: string, port = 80): Decision {
  return record({ layer: "http", attempt: { host, port, method, path } });
}

function suggested(recorded: readonly Decision[], policy = NOTHING): Suggestion {
  return suggest(policy, recorded, { agent: "worker", includeBlocked: false });
}

/** The rules of a suggestion; its tests pass, or there are none. */
function policyIn({ file }: Suggestion): Policy {
  const result = compilePolicy([{ path: "worker.yaml", text: file }], { generation: 1 });
  assert.ok(result.ok, JSON.stringify(result));
  return result.policy;
}

/** Conditions of a suggestion, on one line each. */
function conditions(suggestion: Suggestion): string[] {
  return policyIn(suggestion).rules.map(({ condition }) => condition.replace(/\s+/g, " ").trim());
}

const BY_WORKER = 'agent.name == "worker" && ';

Deno.test("hosts with the same ports share a rule; their look-ups need none", () => {
  const suggestion = suggested([
    lookup("api.a.org"),
    lookup("api.a.org", "AAAA"),
    connect("api.a.org"),
    connect("api.a.org"),
    connect("b.net"),
    connect("c.net", 8443),
    lookup("d.net"),
    lookup("a.org", "TXT"),
  ]);
  assert.deepEqual(conditions(suggestion), [
    `${BY_WORKER}http.host in ["api.a.org", "b.net"] && http.method == "CONNECT"`,
    `${BY_WORKER}http.host == "c.net" && http.method == "CONNECT" && network.port == 8443`,
    `${BY_WORKER}dns.query == "d.net" && dns.record_type == "A"`,
    `${BY_WORKER}dns.query == "a.org" && dns.record_type == "TXT"`,
  ]);
  assert.equal(suggestion.covered, 8);
  assert.match(suggestion.file, /# 5 attempts: api\.a\.org \(4\), b\.net \(1\)\n/);
});

Deno.test("plain HTTP is narrowed to methods and paths, and says where it is wider than what was seen", () => {
  const paths = Array.from({ length: 9 }, (_, i) => `/debian/pool/p${i}.deb`);
  const suggestion = suggested([
    request("GET", "one.org", "/a"),
    request("HEAD", "one.org", "/a"),
    ...paths.map((path) => request("GET", "deb.org", path)),
  ]);
  assert.deepEqual(conditions(suggestion), [
    `${BY_WORKER}http.host == "one.org" && network.port == 80 && ` +
    'http.method in ["GET", "HEAD"] && http.path == "/a"',
    `${BY_WORKER}http.host == "deb.org" && network.port == 80 && ` +
    'http.method == "GET" && http.path.startsWith("/debian/pool/")',
  ]);
  assert.equal(suggestion.file.match(/WIDER/g)?.length, 1);
});

Deno.test("many hosts of one owner become the domain, and that is said", () => {
  const hosts = Array.from({ length: 12 }, (_, i) => `h${i}.cdn.net`);
  const suggestion = suggested([...hosts, "a.org"].map((host) => connect(host)));
  assert.deepEqual(conditions(suggestion), [
    `${BY_WORKER}http.host == "a.org" && http.method == "CONNECT"`,
    `${BY_WORKER}http.host.under("cdn.net") && http.method == "CONNECT"`,
  ]);
  assert.match(
    suggestion.file,
    /# WIDER than what was seen: every name below cdn\.net, for its 12/,
  );
  // Where anybody can have a name, each one is another owner's.
  const shared = suggested(hosts.map((host) => connect(host.replace("cdn.net", "github.io"))));
  assert.ok(!shared.file.includes("under("));
});

Deno.test("tools and files that the agent asked about are covered", () => {
  const suggestion = suggested([
    record({ layer: "agent", attempt: { tool: "git" } }),
    record({ layer: "agent", attempt: { tool: "ls" } }),
    record({ layer: "agent", attempt: { path: "/srv/data" } }),
    record({ layer: "agent", attempt: { host: "a.org", port: 443, method: "GET", path: "/x" } }),
  ]);
  assert.deepEqual(conditions(suggestion), [
    `${BY_WORKER}http.host == "a.org" && http.method == "CONNECT"`,
    `${BY_WORKER}run.tool in ["git", "ls"]`,
    `${BY_WORKER}run.tool == "file" && run.args.all(path, path in ["/srv/data"])`,
  ]);
});

Deno.test("what rules allow or block, other agents, and other failures are no part of it, and what is left out is told", () => {
  const policy = policyOf({ condition: 'http.host == "a.org"' }, {
    condition: 'network.ip == "93.184.216.34"',
    action: "block",
  });
  const suggestion = suggested([
    connect("a.org"),
    connect("b.org"),
    connect("r.org", 443, { verdict: "block", reason: "rule" }),
    connect("x.org", 443, {
      agent: { name: "other", address: "10.200.0.3", network: "outcall-agent-net" },
    }),
    connect("s.org", 443, { verdict: "block", reason: "sni_mismatch" }),
    connect("t.org", 443, { verdict: "block", reason: "default" }),
    connect("93.184.216.34"),
    record({
      layer: "dial",
      attempt: { host: "p.org", port: 443, method: "CONNECT", address: "10.0.0.7" },
      verdict: "block",
      reason: "restricted_address",
    }),
    record({
      layer: "kernel",
      attempt: { address: "1.2.3.4", port: 25, protocol: "tcp" },
      verdict: "block",
      reason: "forward_denied",
    }),
  ], policy);
  assert.deepEqual(conditions(suggestion), [
    `${BY_WORKER}http.host == "b.org" && http.method == "CONNECT"`,
  ]);
  assert.deepEqual(
    suggestion.notCovered.map(({ attempt, why }) => `${attempt}: ${why}`).sort(),
    [
      "CONNECT 93.184.216.34:443 by worker: a block rule, or a restriction of addresses, comes first",
      "CONNECT p.org:443 by worker: the name leads to an address that is not public",
      "CONNECT s.org:443 by worker: the agent's TLS names another server than the CONNECT",
      "CONNECT t.org:443 by worker: it was refused, and not observed",
      "tcp 1.2.3.4:25 by worker: packets past the DNS filter and the proxy go nowhere",
    ],
  );
  assert.match(suggestion.file, /^# {3}1 x CONNECT s\.org:443 by worker: /m);
});

Deno.test("refused attempts are covered on request only", () => {
  const recorded = [connect("t.org", 443, { verdict: "block", reason: "default" })];
  assert.throws(
    () => suggested(recorded),
    (thrown: unknown) =>
      thrown instanceof OutcallError && thrown.code === "suggest.nothing" &&
      /--blocked covers them/.test(thrown.hint ?? ""),
  );
  const suggestion = suggest(NOTHING, recorded, { agent: "worker", includeBlocked: true });
  assert.equal(suggestion.rules, 1);
});

Deno.test("nothing recorded can break out of its place in the file (CWE-94)", () => {
  const evil = "x\"\n    action: allow\n  - id: evil\u001b[2J\u202e\u{1f600}'";
  const suggestion = suggested([
    request("GET", "a.org", `/${evil}`),
    record({ layer: "agent", attempt: { tool: evil } }),
    record({ layer: "agent", attempt: { path: evil } }),
    connect("s.org", 443, { reason: "malformed", attempt: { host: evil, port: 1, method: evil } }),
  ]);
  assert.equal(policyIn(suggestion).rules.length, 3);
  for (const char of ["\u001b", "\u202e"]) assert.ok(!suggestion.file.includes(char));
});

Deno.test("more hosts than anybody reads are left out, and that is said", () => {
  const recorded = Array.from({ length: 503 }, (_, i) => connect(`host${i}.d${i}.org`, 1_000 + i));
  const suggestion = suggested([...recorded, connect("host0.d0.org", 1_000)]);
  assert.equal(policyIn(suggestion).rules.length, 500);
  assert.equal(suggestion.covered, 501);
  assert.deepEqual(suggestion.notCovered.map(({ count, why }) => [count, why]), [
    [1, "it is too much for one set"],
    [1, "it is too much for one set"],
    [1, "it is too much for one set"],
  ]);
});

Deno.test("paths: exact where few, folders where many, everything only where nothing else covers", () => {
  const many = (folder: string): string[] => Array.from({ length: 5 }, (_, i) => `${folder}f${i}`);
  assert.equal(pathClause(["/a", "/a", "/b"]).clause, 'http.path in ["/a", "/b"]');
  assert.equal(pathClause(many("/a/b/")).clause, 'http.path.startsWith("/a/b/")');
  assert.equal(
    pathClause([...many("/a/b/"), ...many("/c/"), "/d"]).clause,
    '(http.path.startsWith("/a/b/") || http.path.startsWith("/c/") || http.path == "/d")',
  );
  assert.equal(pathClause(many("/")).clause, null);
});

Deno.test("a suggestion compiles, passes its tests, allows every attempt, and little else", () => {
  const label = fc.constantFrom("a", "b", "api", "www", "x1", "x2", "x3", "x4", "x5", "x6", "x7");
  const domain = fc.constantFrom("one.org", "two.co.uk", "three.github.io");
  const host = fc.oneof(
    fc.tuple(label, domain).map(([name, parent]) => `${name}.${parent}`),
    fc.constantFrom("93.184.216.34", "one.org"),
  );
  const path = fc.array(fc.constantFrom("a", "b b", "c'\"", "%2e", "é"), { maxLength: 3 })
    .map((parts) => `/${parts.join("/")}`);
  const attempt = fc.oneof(
    fc.tuple(host, fc.constantFrom(443, 8443)).map(([name, port]) => connect(name, port)),
    fc.tuple(fc.constantFrom("GET", "POST"), host, path, fc.constantFrom(80, 8080))
      .map(([method, name, path, port]) => request(method, name, path, port)),
    fc.tuple(label, domain, fc.constantFrom("A", "AAAA", "TXT"))
      .map(([name, parent, type]) => lookup(`${name}.${parent}`, type)),
    fc.constantFrom("git", "l s").map((tool) => record({ layer: "agent", attempt: { tool } })),
  );
  const inForce = fc.constantFrom(
    NOTHING,
    policyOf({ condition: 'http.host == "one.org"' }),
    policyOf({ condition: 'http.host.under("two.co.uk")', action: "block" }),
  );
  fc.assert(
    fc.property(fc.array(attempt, { minLength: 1, maxLength: 40 }), inForce, (recorded, before) => {
      let suggestion: Suggestion;
      try {
        suggestion = suggested(recorded, before);
      } catch (thrown) {
        assert.ok(thrown instanceof OutcallError && thrown.code === "suggest.nothing");
        return;
      }
      const policy = policyIn(suggestion);
      assert.deepEqual(lint(policy).filter(({ code }) => code !== "lint.shared_domain"), []);
      for (const decision of recorded) {
        const steps = walkOf(decision);
        const isBlocked = steps.some(({ layer, facts }) =>
          decide(before, layer, facts).reason === "rule" && !decide(before, layer, facts).allowed
        );
        const isCovered = isAdmitted(policy, steps) || isAdmitted(before, steps);
        assert.ok(isBlocked || isCovered, suggestion.file);
      }
      const isWider = suggestion.file.includes("WIDER");
      for (
        const [layer, facts] of [
          ["dns", dnsFacts("unseen.org", "worker")],
          ["connect", connectFacts("unseen.org", 443, "worker")],
          ["connect", connectFacts("a.one.org", 22, "worker")],
          ["connect", connectFacts("a.one.org", 443, "other")],
          ["http", httpFacts("DELETE", "a.one.org", "/a")],
        ] as const
      ) assert.equal(decide(policy, layer, facts).allowed, false, suggestion.file);
      const sibling = connectFacts("unseen.one.org", 443, "worker");
      if (!isWider) assert.equal(decide(policy, "connect", sibling).allowed, false);
    }),
    { seed: SEED, numRuns: 150 },
  );
});

Deno.test("however much an agent did, what is suggested is a file that loads, and says what it left out", () => {
  const path = `/${"long/".repeat(700)}`;
  for (
    const recorded of [
      Array.from({ length: 2_500 }, (_, i) => request("GET", `h${i}.example.com`, `${path}${i}`)),
      Array.from({ length: 2_500 }, (_, i) => request("GET", `h${i}.example.com`, `/${i}`)),
      Array.from({ length: 2_500 }, (_, i) => connect(`${"h".repeat(50)}${i}.example${i}.com`)),
      Array.from({ length: 2_500 }, (_, i) => connect("a.example.com", 1_000 + i)),
    ]
  ) {
    const suggestion = suggested(recorded);
    const { ok } = compilePolicy([{ path: "worker.yaml", text: suggestion.file }], {
      generation: 1,
    });
    assert.ok(ok);
    assert.ok(suggestion.file.length <= LIMITS.fileBytes, `${suggestion.file.length}`);
    assert.equal(suggestion.covered + suggestion.notCovered.length, 2_500);
    assert.ok(suggestion.notCovered.length > 0);
  }
});
