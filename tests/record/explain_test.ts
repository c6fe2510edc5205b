import assert from "node:assert/strict";
import fc from "fast-check";
import { type Decision, DECISION_SCHEMA, decisionId } from "../../lib/decision.ts";
import { type DecisionExplanation, explainDecision } from "../../lib/record/explain.ts";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { decide } from "../../lib/rules/decide.ts";
import { PolicyHistory } from "../../lib/rules/history.ts";
import type { Policy } from "../../lib/rules/policy.ts";
import { walkOf } from "../../lib/rules/replay.ts";
import { SEED } from "../random.ts";
import { policyOf, ruleFileText, type RuleSpec } from "../rules/support.ts";

const NOW = "2026-05-04T09:30:00.000Z";
const BEFORE_MS = Date.parse(NOW) - 60_000;

type Given = Partial<Decision> & Pick<Decision, "layer" | "attempt">;

function record(given: Given): Decision {
  return {
    schema: DECISION_SCHEMA,
    id: decisionId(),
    time: NOW,
    generation: 1,
    agent: { name: "worker", address: "10.200.0.2", network: "outcall-agent-net" },
    source: "10.200.0.2",
    verdict: "block",
    reason: "default",
    rule: null,
    ...given,
  };
}

function connect(host: string, port = 443, given: Partial<Decision> = {}): Decision {
  return record({ layer: "connect", attempt: { host, port, method: "CONNECT" }, ...given });
}

function lookup(host: string, recordType = "A"): Decision {
  return record({ layer: "dns", attempt: { host, recordType } });
}

function request(method: string, host: string, path: string): Decision {
  return record({ layer: "http", attempt: { host, port: 80, method, path } });
}

/** Explains by one policy that was in force all the time. */
function explained(
  policy: Policy,
  decision: Decision,
  others: Decision[] = [],
): DecisionExplanation {
  const history = new PolicyHistory();
  history.add(policy.data, BEFORE_MS);
  return explainDecision(decision, history, policy, [decision, ...others]);
}

/** The policy with a proposed rule pasted into a file of its own that comes last. */
function pasted(rules: readonly RuleSpec[], rule: string): Policy {
  const result = compilePolicy([
    { path: "/rules/a.yaml", text: ruleFileText(rules) },
    { path: "/rules/z.yaml", text: `version: "1"\nrules:\n${rule}\n` },
  ], { generation: 2 });
  assert.ok(result.ok, JSON.stringify(result));
  return result.policy;
}

Deno.test("a blocked CONNECT: the walk, the clause in the way with its place, and three widths", () => {
  const policy = policyOf({ condition: 'http.host == "docs.org" && http.method == "GET"' });
  const { rules, then, now, proposals, advice } = explained(policy, connect("docs.org"), [
    lookup("www.docs.org"),
    connect("other.net"),
  ]);
  assert.equal(rules, "same");
  assert.equal(now, null);
  assert.deepEqual(advice, []);
  assert.deepEqual(then?.steps.map(({ layer, verdict }) => [layer, verdict.allowed]), [
    ["dns", true],
    ["connect", false],
  ]);
  const failed = then?.steps.at(-1)?.nearest?.failed;
  assert.equal(failed?.text, 'http.method == "GET"');
  assert.deepEqual(failed?.facts, { "http.method": "CONNECT" });
  assert.ok((failed?.column ?? 0) > 1);
  assert.deepEqual(proposals.map(({ width, rule }) => [width, rule.split("\n").slice(2, -1)]), [
    ["request", [
      "    condition: |",
      '      agent.name == "worker" &&',
      '      http.host == "docs.org" &&',
      '      http.method == "CONNECT" &&',
      "      network.port == 443",
    ]],
    ["host", [`    condition: 'agent.name == "worker" && http.host == "docs.org"'`]],
    ["domain", [`    condition: 'agent.name == "worker" && http.host.under("docs.org")'`]],
  ]);
  assert.deepEqual(proposals.map(({ alsoAdmits }) => alsoAdmits), [
    { count: 0, examples: [] },
    { count: 0, examples: [] },
    { count: 1, examples: ["DNS www.docs.org A by worker"] },
  ]);
});

Deno.test("the domain is the owner's, by the Public Suffix List; an address has none", () => {
  const widest = (host: string): string[] =>
    explained(policyOf(), connect(host)).proposals
      .flatMap(({ width, rule }) =>
        width === "domain" ? [/under\("(.*?)"\)/.exec(rule)?.[1] ?? ""] : []
      );
  assert.deepEqual(widest("a.b.example.co.uk"), ["example.co.uk"]);
  assert.deepEqual(widest("me.github.io"), ["me.github.io"]);
  assert.deepEqual(widest("93.184.216.34"), []);
  assert.deepEqual(widest("github.io"), []);
});

Deno.test("each proposal opens what it says, and nothing beside it", () => {
  const agent = { name: "worker" };
  const tunnel = (host: string, port: number, name = "worker"): boolean =>
    decide(policy, "connect", {
      network: { hostname: host, port, protocol: "tcp" },
      http: { host, method: "CONNECT" },
      agent: { name },
    }).allowed;
  const plain = (method: string, host: string, path: string): boolean =>
    decide(policy, "http", {
      network: { hostname: host, port: 80, protocol: "tcp" },
      http: { host, method, path, headers: {}, body_size: 0 },
      agent,
    }).allowed;
  let policy = policyOf();
  const [narrow, host, domain] = explained(policyOf(), connect("api.a.org", 8443)).proposals;
  assert.ok(narrow !== undefined && host !== undefined && domain !== undefined);
  policy = pasted([], narrow.rule);
  assert.deepEqual(
    [tunnel("api.a.org", 8443), tunnel("api.a.org", 443), tunnel("www.a.org", 8443)],
    [true, false, false],
  );
  assert.equal(tunnel("api.a.org", 8443, "other"), false);
  assert.equal(plain("GET", "api.a.org", "/"), false);
  policy = pasted([], host.rule);
  assert.deepEqual(
    [tunnel("api.a.org", 8443), tunnel("api.a.org", 443), tunnel("api.a.org", 22)],
    [true, true, false],
  );
  assert.deepEqual([tunnel("www.a.org", 8443), plain("PUT", "api.a.org", "/x")], [false, true]);
  policy = pasted([], domain.rule);
  assert.deepEqual([tunnel("www.a.org", 8443), tunnel("xa.org", 8443)], [true, false]);

  const [exact] = explained(policyOf(), request("GET", "a.org", '/it\'s "1"\u{1f600}')).proposals;
  assert.ok(exact !== undefined);
  policy = pasted([], exact.rule);
  assert.equal(plain("GET", "a.org", '/it\'s "1"\u{1f600}'), true);
  assert.deepEqual(
    [plain("GET", "a.org", "/"), plain("POST", "a.org", '/it\'s "1"\u{1f600}')],
    [false, false],
  );
  assert.equal(tunnel("a.org", 443), false);
});

Deno.test("a name of the local link gets no proposal, since no rule could have it resolved", () => {
  assert.equal(explained(policyOf(), lookup("printer.example")).proposals.length > 0, true);
  assert.deepEqual(explained(policyOf(), lookup("printer.local")).proposals, []);
});

Deno.test("a look-up of another type is proposed as just that: no connection", () => {
  const { proposals } = explained(policyOf(), lookup("a.org", "TXT"));
  assert.deepEqual(proposals.map(({ width }) => width), ["request", "domain"]);
  const policy = pasted([], proposals[0]?.rule ?? "");
  assert.equal(decide(policy, "connect", walkOf(connect("a.org"))[1]?.facts ?? {}).allowed, false);
});

Deno.test("a block rule in front is named: a paste alone does not help", () => {
  const rules = [{ id: "no-docs", condition: 'http.host == "docs.org"', action: "block" as const }];
  const policy = policyOf(...rules);
  const decision = connect("docs.org", 443, { reason: "rule" });
  const { proposals, advice } = explained(policy, decision);
  assert.deepEqual(proposals.map(({ inFront }) => inFront?.id), ["no-docs", "no-docs", "no-docs"]);
  assert.match(advice.join("\n"), /Pasting a rule is not enough: .*no-docs \(.*:1\)/);
});

Deno.test("a rule behind priority 100 is no obstacle to one that is pasted", () => {
  const condition = 'http.host == "docs.org"';
  const policy = policyOf({ id: "late", condition, action: "block", priority: 200 });
  const { proposals } = explained(policy, connect("docs.org", 443, { reason: "rule" }));
  assert.deepEqual(proposals.map(({ inFront }) => inFront), [null, null, null]);
});

Deno.test("every proposal is proven: pasted, it allows what was refused, at every layer", () => {
  const host = fc.constantFrom("a.org", "www.a.org", "b.co.uk", "x.github.io", "93.184.216.34");
  const condition = fc.oneof(
    host.map((name) => `http.host == "${name}"`),
    fc.constantFrom(
      'http.host.under("a.org") && network.port == 8443',
      'http.method == "POST"',
      'dns.record_type == "TXT"',
      'agent.name == "other"',
      'network.ip.inCidr("93.184.0.0/16")',
      'http.headers["x"] == "y"',
      '!http.host.under("a.org") && network.port > 400',
    ),
  );
  const rule = fc.record({
    condition,
    action: fc.constantFrom("allow" as const, "block" as const),
    priority: fc.constantFrom(50, 100, 150),
  });
  const attempt = fc.oneof(
    fc.tuple(host, fc.constantFrom(80, 443, 8443)).map(([name, port]) => connect(name, port)),
    host.map((name) => request("POST", name, "/p a'th")),
    fc.tuple(host, fc.constantFrom("A", "TXT")).map(([name, type]) => lookup(name, type)),
    host.map((name) =>
      record({
        layer: "dial",
        attempt: { host: name, port: 443, method: "CONNECT", address: "93.184.216.34" },
      })
    ),
  );
  let proven = 0;
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 5 }), attempt, (rules, decision) => {
      const { proposals } = explained(policyOf(...rules), decision);
      for (const { inFront, rule } of proposals) {
        const policy = pasted(rules, rule);
        const verdicts = walkOf(decision).map(({ layer, facts }) => decide(policy, layer, facts));
        if (inFront === null) assert.ok(verdicts.every(({ allowed }) => allowed), rule);
        else assert.ok(verdicts.some(({ rule }) => rule?.id === inFront.id), rule);
        proven++;
      }
    }),
    { seed: SEED, numRuns: 300 },
  );
  assert.ok(proven > 100);
});

Deno.test("rules that changed since are both shown; rules no longer kept are told apart from those of another daemon", () => {
  const before = policyOf({ condition: 'http.host == "a.org" && agent.name == "x"' });
  const result = compilePolicy([{
    path: "/rules/test.yaml",
    text: ruleFileText([{ condition: 'http.host == "a.org"' }]),
  }], { generation: 2 });
  assert.ok(result.ok);
  const history = new PolicyHistory();
  history.add(before.data, BEFORE_MS);
  history.add(result.policy.data, BEFORE_MS + 1);
  const changed = explainDecision(connect("a.org"), history, result.policy, []);
  assert.equal(changed.rules, "changed");
  assert.deepEqual([changed.then?.generation, changed.now?.generation], [1, 2]);
  assert.deepEqual(changed.proposals, []);
  assert.match(changed.advice.join(), /rules in force now allow it/);

  const unknown = explainDecision(
    connect("b.org", 443, { generation: 7 }),
    history,
    result.policy,
    [],
  );
  assert.deepEqual([unknown.rules, unknown.then, unknown.now?.generation], ["forgotten", null, 2]);
  const older = connect("b.org", 443, { time: "2026-05-04T09:00:00.000Z" });
  assert.equal(explainDecision(older, history, result.policy, []).rules, "forgotten");
});

Deno.test("the history keeps a bounded number of generations", () => {
  const history = new PolicyHistory();
  const { rules } = policyOf({ condition: "true" }).data;
  for (let generation = 1; generation <= 100; generation++) {
    history.add({ generation, rules }, BEFORE_MS);
  }
  assert.equal(history.at(1, BEFORE_MS), null);
  assert.equal(history.at(100, BEFORE_MS)?.generation, 100);
  const many = Array.from({ length: 15_000 }, () => rules).flat();
  history.add({ generation: 101, rules: many }, BEFORE_MS);
  history.add({ generation: 102, rules: many }, BEFORE_MS);
  assert.equal(history.at(101, BEFORE_MS), null);
  assert.equal(history.at(102, BEFORE_MS)?.rules.length, many.length);
});

Deno.test("reasons that no rule answers get the right advice, and no rule", () => {
  const policy = policyOf({ id: "docs", condition: 'http.host == "docs.org"' });
  const advice = (given: Partial<Decision> & Pick<Decision, "layer">): string => {
    const attempt = { host: "docs.org", port: 443, method: "CONNECT" };
    const { proposals, advice } = explained(policy, record({ attempt, ...given }));
    assert.deepEqual(proposals, []);
    return advice.join(" ");
  };
  assert.match(advice({ layer: "sni", reason: "sni_mismatch" }), /tls: any \} on docs \(/);
  assert.match(advice({ layer: "sni", reason: "not_tls" }), /tls: any/);
  assert.match(advice({ layer: "dns", reason: "query_rate" }), /--dns-query-rate/);
  assert.match(advice({ layer: "dns", reason: "name_rate" }), /spells the name out/);
  assert.match(advice({ layer: "dial", reason: "local_address" }), /Nothing opens this/);
  assert.match(
    advice({
      layer: "dial",
      reason: "restricted_address",
      attempt: { host: "docs.org", port: 443, method: "CONNECT", address: "10.0.0.7" },
    }),
    /allow_private_ips: true \} on docs \(/,
  );
  const packet = { address: "93.184.216.34", port: 5432, protocol: "tcp" };
  assert.match(
    advice({ layer: "kernel", attempt: packet }),
    /past the DNS filter .*outcall grants/,
  );
  assert.match(advice({ layer: "grant", reason: "proxy_only" }), /mode: direct_ip/);
  const toResolver = { address: "8.8.8.8", port: 53, protocol: "udp" };
  assert.match(advice({ layer: "kernel", attempt: toResolver }), /gateway as the only resolver/);
  for (
    const [reason, expected] of [
      ["forward_denied", /outcall grants/],
      ["input_denied", /^Nothing opens this: of the host/],
      ["agent_to_agent", /^Nothing opens this: agents/],
      ["outside_denied", /^Nothing opens this: nobody outside/],
      ["spoofed", /NET_RAW/],
      ["unpinned", /a moment after the agent's start/],
      ["ipv6", /IPv4 alone/],
      ["foreign_ethertype", /IPv4 alone/],
    ] as const
  ) assert.match(advice({ layer: "kernel", attempt: packet, reason }), expected);
  assert.match(
    advice({ layer: "connect", attempt: { host: "10.0.0.7", port: 443, method: "CONNECT" } }),
    /not public/,
  );
});

Deno.test("what was to be opened in the kernel is judged, and proposed, as that", () => {
  const policy = policyOf({
    condition: 'network.hostname == "db.org" && network.port == 5432 && agent.name == "x"',
    egress: { mode: "direct_ip" },
  });
  const decision = record({
    layer: "grant",
    attempt: { host: "db.org", address: "93.184.216.34", port: 5432, protocol: "tcp" },
  });
  const { then, proposals } = explained(policy, decision);
  assert.deepEqual(then?.steps.map(({ layer }) => layer), ["dns", "grant"]);
  const [only] = proposals;
  const opened = walkOf(decision).map(({ layer, facts }) =>
    decide(pasted([], only?.rule ?? ""), layer, facts)
  );
  assert.deepEqual(opened.map(({ allowed, egress }) => [allowed, egress?.mode]), [
    [true, "direct_ip"],
    [true, "direct_ip"],
  ]);
});

Deno.test("what passed because the agent was observed gets the rules that would allow it", () => {
  const decision = connect("a.org", 443, { verdict: "allow", reason: "observed" });
  const { proposals, advice } = explained(policyOf(), decision);
  assert.deepEqual(proposals.map(({ width }) => width), ["request", "host", "domain"]);
  assert.deepEqual(advice, []);
});

Deno.test("what records leave out is said to have made the difference", () => {
  const policy = policyOf({ condition: 'http.host == "a.org" && http.headers["x"] == "y"' });
  const allowed = {
    ...request("GET", "a.org", "/"),
    verdict: "allow" as const,
    reason: "rule" as const,
  };
  assert.match(explained(policy, allowed).advice.join(), /what records never hold/);
});
