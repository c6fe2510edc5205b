/** Observation: what no rule allows passes, and nothing else does. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { decide } from "../../lib/rules/decide.ts";
import { buildPolicy, type Policy, withObserved } from "../../lib/rules/policy.ts";
import type { Facts, Layer } from "../../lib/rules/types.ts";
import { SEED } from "../random.ts";
import { connectFacts, dnsFacts, httpFacts, policyOf, type RuleSpec } from "./support.ts";

const KEY = "a1b2c3";

function observed(...rules: readonly RuleSpec[]): Policy {
  return withObserved(policyOf(...rules), 2, new Set([KEY]));
}

function by(facts: Facts, key = KEY): Facts {
  return { ...facts, agent: { name: "tester", key } };
}

Deno.test("an observed agent passes where no rule allows, with the narrowest egress", () => {
  const policy = observed({ condition: 'http.host == "other.org"' });
  for (
    const [layer, facts] of [
      ["connect", connectFacts("a.org")],
      ["sni", connectFacts("a.org")],
      ["http", httpFacts("PUT", "a.org", "/x")],
      ["agent", { run: { tool: "git", args: [] } }],
    ] satisfies [Layer, Facts][]
  ) {
    assert.deepEqual(decide(policy, layer, by(facts)), {
      allowed: true,
      reason: "observed",
      rule: null,
      egress: { mode: "proxy", allowPrivateIps: false, tls: "sni" },
    });
  }
  const { dns, reason } = decide(policy, "dns", by(dnsFacts("a.org")));
  assert.equal(reason, "observed");
  assert.equal(dns?.namesRecordType, false);
  // The limits on names that no rule spells out hold.
  assert.equal(dns?.namesHost, false);
});

Deno.test("an observed agent passes to a port that the host's rule does not admit", () => {
  const policy = observed({ condition: 'http.host == "a.org"' });
  assert.equal(decide(policy, "connect", by(connectFacts("a.org", 8443))).reason, "observed");
  assert.equal(decide(policy, "connect", by(connectFacts("a.org", 443))).reason, "rule");
});

Deno.test("observation yields to block rules, also to those that fail", () => {
  const policy = observed(
    { condition: 'http.host == "bad.org"', action: "block" },
    { condition: 'http.headers["x"] == "y"', action: "block" },
  );
  assert.equal(decide(policy, "dns", by(dnsFacts("bad.org"))).reason, "rule");
  assert.equal(decide(policy, "connect", by(connectFacts("bad.org"))).allowed, false);
  assert.equal(decide(policy, "http", by(httpFacts("GET", "a.org"))).reason, "rule_error");
});

Deno.test("nobody else is observed: not by the same name, nor without a key", () => {
  const policy = observed();
  assert.equal(decide(policy, "dns", by(dnsFacts("a.org"), "other")).reason, "default");
  assert.equal(decide(policy, "dns", dnsFacts("a.org")).reason, "default");
  assert.equal(decide(policyOf(), "dns", by(dnsFacts("a.org"))).reason, "default");
});

Deno.test("observation opens nothing past the proxy, and creates no container", () => {
  const policy = observed();
  const facts = by({ network: { hostname: "a.org", port: 443, protocol: "tcp", ip: "1.2.3.4" } });
  assert.equal(decide(policy, "grant", facts).allowed, false);
  assert.equal(decide(policy, "container", by({ docker: { image: "x" } })).allowed, false);
});

Deno.test("another isolate observes the same agents", () => {
  const copy = buildPolicy(structuredClone(observed().data));
  assert.equal(decide(copy, "dns", by(dnsFacts("a.org"))).reason, "observed");
});

Deno.test("observation changes a verdict only where it would be the default's", () => {
  const host = fc.constantFrom("a.org", "b.a.org", "c.net");
  const rule = fc.record({
    condition: fc.oneof(
      host.map((name) => `http.host == "${name}"`),
      fc.constantFrom(
        'http.host.under("a.org") && network.port == 22',
        'http.method == "POST" && http.path.startsWith("/x")',
        'http.headers["x"] == "y"',
        'network.ip == "1.2.3.4"',
        'dns.record_type == "TXT"',
      ),
    ),
    action: fc.constantFrom("allow" as const, "block" as const),
  });
  const attempt = fc.oneof(
    host.map((name) => ["dns", dnsFacts(name)] as const),
    fc.tuple(host, fc.constantFrom(22, 443)).map(([name, port]) =>
      ["connect", connectFacts(name, port)] as const
    ),
    host.map((name) => ["http", httpFacts("POST", name, "/x")] as const),
  );
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 4 }), attempt, (rules, [layer, facts]) => {
      const policy = policyOf(...rules);
      const plain = decide(policy, layer, by(facts));
      const seen = decide(withObserved(policy, 2, new Set([KEY])), layer, by(facts));
      const isDefault = plain.reason === "default" || plain.reason === "port";
      if (isDefault) assert.deepEqual([seen.allowed, seen.reason], [true, "observed"]);
      else assert.deepEqual(seen, plain);
    }),
    { seed: SEED, numRuns: 500 },
  );
});
