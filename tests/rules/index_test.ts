/** The index leaves out only rules that cannot matter. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { decide } from "../../lib/rules/decide.ts";
import { Candidates, hostsOf } from "../../lib/rules/index.ts";
import { PENDING_FACTS } from "../../lib/rules/language.ts";
import type { Policy } from "../../lib/rules/policy.ts";
import type { Facts, Layer } from "../../lib/rules/types.ts";
import { SEED } from "../random.ts";
import { completeFacts, ruleCondition } from "./generate.ts";
import { policyOf, type RuleSpec } from "./support.ts";

const HOSTS = ["x.org", "a.x.org", "b.a.x.org", "y.org", "evilx.org", "org", "1.2.3.4", "::1"];
const host = fc.constantFrom(...HOSTS);
const fact = fc.constantFrom("http.host", "network.hostname", "dns.query");

const hostClause = fc.oneof(
  fc.tuple(fact, host).map(([name, text]) => `${name} == "${text}"`),
  fc.tuple(fact, host).map(([name, text]) => `"${text}" == ${name}`),
  fc.tuple(fact, host).map(([name, text]) => `${name} != "${text}"`),
  fc.tuple(fact, fc.array(host, { minLength: 1, maxLength: 3 })).map(([name, texts]) =>
    `${name} in ${JSON.stringify(texts)}`
  ),
  fc.tuple(fact, fc.constantFrom("x.org", "a.x.org", "org")).map(([name, text]) =>
    `${name}.under("${text}")`
  ),
  fc.tuple(fact, fc.constantFrom(".x.org", "x.org", "org", ".", "x.", "g", ".4", ".3.4")).map((
    [name, text],
  ) => `${name}.endsWith("${text}")`),
);
const otherClause = fc.constantFrom(
  'http.method == "GET"',
  'agent.name == "a"',
  "network.port == 22",
  'run.tool == "x"',
  'http.headers["x"] == "1"',
  "true",
  "false",
);
const { clause } = fc.letrec<{ clause: string }>((tie) => ({
  clause: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    hostClause,
    hostClause,
    otherClause,
    fc.tuple(tie("clause"), tie("clause")).map(([a, b]) => `(${a} && ${b})`),
    fc.tuple(tie("clause"), tie("clause")).map(([a, b]) => `(${a} || ${b})`),
    tie("clause").map((each) => `!(${each})`),
    fc.tuple(tie("clause"), tie("clause")).map(([a, b]) => `(${a} ? ${b} : ${a})`),
  ),
}));

const priority = fc.constantFrom(1, 100);
const rule: fc.Arbitrary<RuleSpec> = fc.oneof(
  fc.record({ condition: clause, priority, action: fc.constant("block" as const) }),
  fc.record({
    condition: clause,
    priority,
    egress: fc.constantFrom({}, { allow_private_ips: true }, { ports: [22, 443] }),
  }),
);

const request: fc.Arbitrary<Facts> = fc.record({
  network: fc.record({
    hostname: fc.oneof(host, fc.constant("z".repeat(300))),
    port: fc.constantFrom(22, 443),
  }, { requiredKeys: [] }),
  http: fc.record({ host, method: fc.constantFrom("GET", "CONNECT") }, { requiredKeys: [] }),
  dns: fc.record({ query: host }, { requiredKeys: [] }),
  agent: fc.record({ name: fc.constantFrom("a", "") }),
}, { requiredKeys: [] });

const layer = fc.constantFrom<Layer>("dns", "connect", "sni", "http", "dial", "agent");

/** The same policy, judged rule by rule. */
function linear(policy: Policy): Policy {
  const all = policy.rules.map((_, i) => i);
  return { ...policy, index: { candidates: () => new Candidates([all]) } };
}

Deno.test("the index decides as a scan of all rules does, for rules about hosts", () => {
  fc.assert(
    fc.property(
      fc.array(rule, { maxLength: 12 }),
      fc.array(request, { minLength: 4, maxLength: 8 }),
      layer,
      (rules, requests, at) => {
        const policy = policyOf(...rules);
        for (const facts of requests) {
          const { failures: _ours, ...indexed } = decide(policy, at, facts);
          const { failures: _all, ...scanned } = decide(linear(policy), at, facts);
          assert.deepEqual(indexed, scanned);
        }
      },
    ),
    { numRuns: 1500, seed: SEED },
  );
});

Deno.test("the index decides as a scan of all rules does, for any rules", () => {
  fc.assert(
    fc.property(
      fc.array(ruleCondition, { maxLength: 6 }),
      completeFacts,
      layer,
      (texts, facts, at) => {
        const policy = policyOf(
          ...texts.map((condition, i) => ({
            condition,
            action: i % 2 === 0 ? "block" as const : "allow" as const,
          })),
        );
        assert.deepEqual(decide(policy, at, facts), decide(linear(policy), at, facts));
      },
    ),
    { numRuns: 1000, seed: SEED },
  );
});

Deno.test("hostsOf() finds the hosts of the rules people write", () => {
  const hosts = (condition: string): unknown => {
    const expr = policyOf({ condition }).rules[0]?.expr;
    assert.ok(expr !== undefined);
    const set = hostsOf(expr);
    return set === null ? "any" : { exact: [...set.exact], under: [...set.under] };
  };
  const exactly = (...exact: string[]): unknown => ({ exact, under: [] });
  assert.deepEqual(hosts('http.host == "a.org"'), exactly("a.org"));
  assert.deepEqual(
    hosts('dns.query == "a.org" || http.host == "b.org"'),
    exactly("a.org", "b.org"),
  );
  assert.deepEqual(hosts('http.host in ["a.org", "b.org"]'), exactly("a.org", "b.org"));
  assert.deepEqual(hosts('http.method == "GET" && http.host == "a.org"'), exactly("a.org"));
  assert.deepEqual(hosts('http.host.under("a.org")'), { exact: [], under: ["a.org"] });
  assert.deepEqual(hosts('http.host.endsWith(".a.org")'), { exact: [], under: ["a.org"] });
  assert.equal(hosts('http.host.endsWith("org")'), "any");
  assert.equal(hosts('http.host != "a.org"'), "any");
  assert.equal(hosts('http.method == "GET"'), "any");
  assert.deepEqual(hosts("false"), exactly());
});

Deno.test("Candidates gives every position once, in order", () => {
  const positions = fc.uniqueArray(fc.nat(50)).map((each) => each.sort((a, b) => a - b));
  fc.assert(fc.property(fc.array(positions, { maxLength: 5 }), (lists) => {
    const candidates = new Candidates(lists);
    const found: number[] = [];
    for (let i = candidates.next(); i >= 0; i = candidates.next()) found.push(i);
    assert.deepEqual(found, [...new Set(lists.flat())].sort((a, b) => a - b));
  }));
});

Deno.test("no layer waits for a host: the index relies on it", () => {
  for (const pending of Object.values(PENDING_FACTS)) {
    for (const fact of ["network.hostname", "http.host", "dns.query"] as const) {
      assert.ok(!pending.has(fact));
    }
  }
});
