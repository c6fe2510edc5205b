import assert from "node:assert/strict";
import { decide } from "../../lib/rules/decide.ts";
import { buildPolicy, emptyPolicy } from "../../lib/rules/policy.ts";
import { type DnsTerms, LAYERS, MAX_BODY_BYTES } from "../../lib/rules/types.ts";
import {
  compileFiles,
  connectFacts,
  dnsFacts,
  httpFacts,
  policyOf,
  ruleFileText,
  type RuleSpec,
  withAddress,
} from "./support.ts";

Deno.test("decide() blocks everything when there are no rules (S003-FR-009)", () => {
  for (const layer of LAYERS) {
    assert.deepEqual(decide(emptyPolicy(1), layer, connectFacts("example.com")), {
      allowed: false,
      reason: "default",
      rule: null,
      egress: null,
    });
  }
});

Deno.test("decide() follows the quickstart's rule at every layer (D7)", () => {
  const policy = policyOf({ id: "allow-openai", condition: 'http.host == "api.openai.com"' });
  const allowed = { id: "allow-openai", file: "/rules/test.yaml", line: 1 };
  const dns = decide(policy, "dns", dnsFacts("api.openai.com"));
  assert.deepEqual(dns, {
    allowed: true,
    reason: "rule",
    rule: allowed,
    egress: { mode: "proxy", allowPrivateIps: false, tls: "sni" },
    dns: { namesRecordType: false, namesHost: true },
  });
  assert.ok(decide(policy, "connect", connectFacts("api.openai.com")).allowed);
  assert.ok(decide(policy, "sni", connectFacts("api.openai.com")).allowed);
  const dial = withAddress(connectFacts("api.openai.com"), "1.2.3.4");
  assert.ok(decide(policy, "dial", dial).allowed);
  assert.ok(!decide(policy, "dns", dnsFacts("example.com")).allowed);
  assert.ok(!decide(policy, "connect", connectFacts("example.com")).allowed);
  assert.ok(!decide(policy, "dns", dnsFacts("api.openai.com.evil.net")).allowed);
});

Deno.test("decide(): no rule has a name of the local link resolved (S007-FR-033, ADV-DNS-03)", () => {
  const all = policyOf({ id: "all", condition: "true" });
  const none = policyOf(
    { id: "none", condition: 'dns.query.endsWith(".local")', action: "block" },
    { id: "all", condition: "true" },
  );
  for (const name of ["local", "printer.local"]) {
    const { allowed, reason, rule } = decide(all, "dns", dnsFacts(name));
    assert.deepEqual([allowed, reason, rule], [false, "default", null]);
  }
  assert.equal(decide(none, "dns", dnsFacts("printer.local")).rule?.id, "none");
  for (const name of ["notlocal", "local.test", "printer.local.test"]) {
    assert.ok(decide(all, "dns", dnsFacts(name)).allowed, name);
  }
});

Deno.test("decide(): a rule on the method resolves the name, and a tunnel stays shut", () => {
  const policy = policyOf({ condition: 'http.host == "x.org" && http.method == "GET"' });
  assert.ok(decide(policy, "dns", dnsFacts("x.org")).allowed);
  assert.ok(decide(policy, "http", httpFacts("GET", "x.org")).allowed);
  assert.ok(!decide(policy, "http", httpFacts("POST", "x.org")).allowed);
  assert.ok(!decide(policy, "connect", connectFacts("x.org")).allowed);
});

Deno.test("decide(): a rule on the path cannot open a tunnel, where nobody sees it", () => {
  const policy = policyOf({ condition: 'http.host == "x.org" && http.path.startsWith("/v1/")' });
  assert.ok(decide(policy, "dns", dnsFacts("x.org")).allowed);
  assert.ok(!decide(policy, "connect", connectFacts("x.org")).allowed);
  assert.ok(!decide(policy, "dial", withAddress(connectFacts("x.org"), "1.2.3.4")).allowed);
});

Deno.test("decide(): what never applies to a layer never opens it, negated or not", () => {
  for (
    const condition of [
      'run.tool != "rm"',
      'run.tool == "curl"',
      '!(run.tool == "rm")',
      'docker.image != "evil"',
      'http.host == "x.org" && run.tool != "rm"',
      '!run.args.exists(a, a == "-f")',
      'run.tool == "curl" ? http.host == "x.org" : run.cwd == "/"',
    ]
  ) {
    const policy = policyOf({ condition });
    assert.ok(!decide(policy, "dns", dnsFacts("x.org")).allowed, condition);
    assert.ok(!decide(policy, "connect", connectFacts("x.org")).allowed, condition);
    assert.ok(!decide(policy, "http", httpFacts("GET", "x.org")).allowed, condition);
  }
});

Deno.test("decide(): a rule on dns.query alone resolves and opens nothing else", () => {
  const policy = policyOf({ condition: 'dns.query == "x.org"' });
  assert.ok(decide(policy, "dns", dnsFacts("x.org")).allowed);
  assert.ok(!decide(policy, "connect", connectFacts("x.org")).allowed);
});

Deno.test("decide(): either half of the landing page's rule is enough", () => {
  const policy = policyOf({ condition: 'dns.query == "github.com" || http.host == "github.com"' });
  assert.ok(decide(policy, "dns", dnsFacts("github.com")).allowed);
  assert.ok(decide(policy, "connect", connectFacts("github.com")).allowed);
});

Deno.test("decide(): a rule on the address waits for it, and needs it to dial (D32)", () => {
  const policy = policyOf({
    condition: 'http.host == "x.org" && network.ip.inCidr("93.184.0.0/16")',
  });
  assert.ok(decide(policy, "dns", dnsFacts("x.org")).allowed);
  assert.ok(decide(policy, "connect", connectFacts("x.org")).allowed);
  assert.ok(decide(policy, "http", httpFacts("GET", "x.org")).allowed);
  const facts = connectFacts("x.org");
  assert.ok(decide(policy, "sni", facts).allowed, "judged before the name is resolved");
  assert.ok(!decide(policy, "dial", facts).allowed);
  assert.ok(decide(policy, "dial", withAddress(facts, "93.184.216.34")).allowed);
  assert.ok(!decide(policy, "dial", withAddress(facts, "10.0.0.1")).allowed);
});

Deno.test("decide(): unknown only for want of the address counts, unknown for more does not (D32)", () => {
  const opens = (condition: string): boolean =>
    decide(policyOf({ condition }), "connect", connectFacts("x.org")).allowed;
  const address = 'network.ip == "1.2.3.4"';
  const path = 'http.path == "/"';
  assert.ok(opens(address));
  assert.ok(opens(`!(${address})`));
  assert.ok(opens(`${address} || ${path}`));
  assert.ok(!opens(`${address} && ${path}`));
  assert.ok(opens(`!(${address} && ${path})`));
  assert.ok(!opens(`!(${address} || ${path})`));
  assert.ok(!opens(path));
  assert.ok(opens(`${address} ? http.host == "x.org" : false`));
  assert.ok(!opens(`${address} ? ${path} : false`));
});

Deno.test("decide(): the first rule that counts decides (S003-FR-008, S003-AS-004)", () => {
  const policy = compileFiles({
    "00-base.yaml": ruleFileText([{ id: "allow-all", condition: 'http.host == "github.com"' }]),
    "10-restrictions.yaml": ruleFileText([{
      id: "no-admin",
      condition: 'http.path.startsWith("/admin")',
      action: "block",
    }]),
  });
  const verdict = decide(policy, "http", httpFacts("GET", "github.com", "/admin/settings"));
  assert.equal(verdict.rule?.id, "allow-all");
  const other = decide(policy, "http", httpFacts("GET", "gitlab.com", "/admin"));
  assert.equal(other.rule?.id, "no-admin");
});

Deno.test("decide(): lower priority comes first across files, then file, then position (D10, S003-AS-011)", () => {
  const policy = compileFiles({
    "50-custom.yaml": ruleFileText([{ id: "c1", condition: "true" }, {
      id: "c0",
      condition: "true",
      priority: 1,
    }]),
    "00-base.yaml": ruleFileText([{ id: "a1", condition: "true" }, {
      id: "a2",
      condition: "true",
      priority: 50,
    }]),
    "25-team.yaml": ruleFileText([{ id: "b1", condition: "true" }, {
      id: "b2",
      condition: "true",
    }]),
  });
  assert.deepEqual(policy.rules.map(({ id }) => id), ["c0", "a2", "a1", "b1", "b2", "c1"]);
});

Deno.test("decide(): a block rule that is only unknown does not block; one that holds does", () => {
  const policy = policyOf(
    { condition: 'http.path.startsWith("/admin")', action: "block" },
    { condition: 'http.host == "x.org"' },
  );
  assert.ok(decide(policy, "dns", dnsFacts("x.org")).allowed);
  assert.ok(decide(policy, "connect", connectFacts("x.org")).allowed);
  assert.ok(!decide(policy, "http", httpFacts("GET", "x.org", "/admin")).allowed);
  assert.ok(decide(policy, "http", httpFacts("GET", "x.org", "/")).allowed);
});

Deno.test("decide(): an error in a block rule blocks and names it, everywhere (D9)", () => {
  const policy = policyOf(
    { id: "broken", condition: "1 / (size(agent.name) - 6) == 1", action: "block" },
    { condition: 'http.host == "x.org"' },
  );
  for (const layer of ["dns", "connect", "http", "dial"] as const) {
    const verdict = decide(policy, layer, withAddress(connectFacts("x.org"), "1.2.3.4"));
    assert.equal(verdict.allowed, false);
    assert.equal(verdict.reason, "rule_error");
    assert.equal(verdict.rule?.id, "broken");
    assert.deepEqual(verdict.failures?.map(({ id, message }) => [id, message]), [
      ["broken", "division by zero"],
    ]);
  }
});

Deno.test("decide(): an error in an allow rule is no match, and is told (D9)", () => {
  const policy = policyOf(
    { id: "broken", condition: 'http.headers["x-token"] == "1"' },
    { id: "next", condition: 'http.host == "x.org"' },
  );
  const verdict = decide(policy, "http", httpFacts("GET", "x.org"));
  assert.equal(verdict.rule?.id, "next");
  assert.deepEqual(verdict.failures?.map(({ id }) => id), ["broken"]);
});

Deno.test("decide(): a tunnel goes to 443 unless the rule says more (D25)", () => {
  const reason = (egress: Record<string, unknown> | undefined, condition: string, port: number) => {
    const rule = egress === undefined ? { condition } : { condition, egress };
    const verdict = decide(policyOf(rule), "connect", connectFacts("x.org", port));
    return verdict.allowed ? "allowed" : verdict.reason;
  };
  const host = 'http.host == "x.org"';
  assert.equal(reason(undefined, host, 443), "allowed");
  assert.equal(reason(undefined, host, 22), "port");
  assert.equal(reason({ ports: [8443] }, host, 8443), "allowed");
  assert.equal(reason({ ports: [8443] }, host, 443), "port");
  assert.equal(reason(undefined, `${host} && network.port == 22`, 22), "allowed");
  assert.equal(reason(undefined, `${host} && network.port in [22, 443]`, 22), "allowed");
  assert.equal(reason(undefined, `${host} && network.port == 22`, 23), "default");
  assert.equal(reason({ ports: [443] }, `${host} && network.port == 22`, 22), "port");
});

Deno.test("decide(): a port comparison about one host opens no port of another (D25)", () => {
  const condition = 'http.host == "a.org" || (http.host == "b.org" && network.port == 22)';
  const policy = policyOf({ condition });
  assert.ok(decide(policy, "connect", connectFacts("b.org", 22)).allowed);
  assert.equal(decide(policy, "connect", connectFacts("a.org", 22)).reason, "port");
  assert.ok(decide(policy, "connect", connectFacts("a.org", 443)).allowed);
});

Deno.test("decide(): a port is admitted when a comparison of it is among the reasons (D25)", () => {
  const allows = (condition: string, port: number, ip?: string): boolean => {
    const facts = connectFacts("a.org", port);
    return ip === undefined
      ? decide(policyOf({ condition }), "connect", facts).allowed
      : decide(policyOf({ condition }), "dial", withAddress(facts, ip)).allowed;
  };
  const either = 'http.host == "a.org" && (network.port == 22 || network.ip == "1.2.3.4")';
  assert.ok(allows(either, 22));
  assert.ok(allows(either, 22, "1.2.3.4"));
  assert.ok(allows(either, 22, "5.6.7.8"));
  assert.ok(!allows(either, 23, "1.2.3.4"), "by its address alone");
  const other = '(http.host == "a.org" && network.ip == "1.2.3.4") || ' +
    '(http.host == "b.org" && network.port == 22)';
  assert.ok(!allows(other, 22), "the comparison is about another host");
  assert.ok(!allows(other, 22, "1.2.3.4"));
  assert.ok(allows('http.host == "a.org" && !(network.port < 1024)', 8443));
  assert.ok(!allows('!(http.host != "a.org" && network.port != 22)', 8443), "a.org, whatever port");
});

Deno.test("decide(): plain http goes to other services' ports only where the rule names them", () => {
  const reason = (rule: RuleSpec, port: number): string => {
    const facts = withAddress(httpFacts("POST", "x.org", "/", port), "1.2.3.4");
    const verdicts = (["http", "dial"] as const).map((layer) =>
      decide(policyOf(rule), layer, facts)
    );
    return verdicts.map(({ allowed, reason }) => allowed ? "allowed" : reason).join();
  };
  const condition = 'http.host == "x.org"';
  for (const port of [21, 22, 25, 53, 110, 143, 587, 3306, 5432, 6379, 6667, 11211, 27017]) {
    assert.equal(reason({ condition }, port), "port,port", `${port}`);
    assert.equal(reason({ condition, egress: { ports: [port] } }, port), "allowed,allowed");
    assert.equal(
      reason({ condition: `${condition} && network.port == ${port}` }, port),
      "allowed,allowed",
    );
  }
  for (const port of [80, 443, 3000, 5000, 8000, 8080, 9000, 9200]) {
    assert.equal(reason({ condition }, port), "allowed,allowed", `${port}`);
  }
});

Deno.test("decide(): plain http may go to any other port, or to those of egress.ports (D25)", () => {
  const host = 'http.host == "x.org"';
  assert.ok(
    decide(policyOf({ condition: host }), "http", httpFacts("GET", "x.org", "/", 8080)).allowed,
  );
  const only80 = policyOf({ condition: host, egress: { ports: [80] } });
  assert.ok(decide(only80, "http", httpFacts("GET", "x.org", "/", 80)).allowed);
  assert.equal(decide(only80, "http", httpFacts("GET", "x.org", "/", 8080)).reason, "port");
});

Deno.test("decide(): the dial layer judges the port of a tunnel and of plain http as they are (D25)", () => {
  const policy = policyOf({ condition: 'http.host == "x.org"' });
  const tunnel = withAddress(connectFacts("x.org", 22), "1.2.3.4");
  assert.equal(decide(policy, "dial", tunnel).reason, "port");
  const plain = withAddress(httpFacts("GET", "x.org", "/", 8080), "1.2.3.4");
  assert.ok(decide(policy, "dial", plain).allowed);
});

Deno.test("decide(): a tunnel to an unknown port is not admitted", () => {
  const policy = policyOf({ condition: 'http.host == "x.org"', egress: { ports: [443] } });
  const verdict = decide(policy, "connect", { http: { host: "x.org", method: "CONNECT" } });
  assert.equal(verdict.reason, "port");
});

Deno.test("decide(): a later rule that admits the port decides, a later block rule blocks", () => {
  const policy = policyOf(
    { id: "https", condition: 'http.host == "x.org"' },
    { id: "ssh", condition: 'http.host == "x.org"', egress: { ports: [22] } },
  );
  assert.equal(decide(policy, "connect", connectFacts("x.org", 22)).rule?.id, "ssh");
  const blocked = policyOf(
    { id: "https", condition: 'http.host == "x.org"' },
    { id: "no", condition: "network.port != 443", action: "block" },
  );
  assert.equal(decide(blocked, "connect", connectFacts("x.org", 22)).reason, "rule");
});

Deno.test("decide(): DNS keeps private answers when any rule that may follow wants them (D23)", () => {
  const open = { mode: "proxy", allow_private_ips: true };
  const privateIps = (...rules: RuleSpec[]): boolean | undefined =>
    decide(policyOf(...rules), "dns", dnsFacts("x.org")).egress?.allowPrivateIps;
  const get = { condition: 'http.host == "x.org" && http.method == "GET"' };
  const post = { condition: 'http.host == "x.org" && http.method == "POST"', egress: open };
  assert.equal(privateIps(get), false);
  assert.equal(privateIps(get, post), true);
  assert.equal(privateIps(post, get), true);
  const other = { condition: 'http.host == "y.org"', egress: open };
  assert.equal(privateIps(get, other), false);
  const never = { condition: 'http.host == "x.org" && run.tool == "a"', egress: open };
  assert.equal(privateIps(get, never), false);
  const block = { condition: 'http.host == "x.org"', action: "block" as const };
  assert.equal(privateIps(get, block, post), false);
  const failing = { condition: 'http.headers["a"] == "b" || 1 / 0 == 1', action: "block" as const };
  assert.equal(privateIps(get, failing, post), true, "unknown is no failure");
});

Deno.test("decide(): DNS learns whether a rule that may follow names the host, and record types", () => {
  const terms = (...rules: RuleSpec[]): DnsTerms | undefined =>
    decide(policyOf(...rules), "dns", dnsFacts("a.x.org")).dns;
  const suffix = { condition: 'http.host.endsWith(".x.org")' };
  const exact = { condition: 'http.host == "a.x.org" && http.method == "GET"' };
  const typed = { condition: 'dns.query.under("x.org") && dns.record_type != "TXT"' };
  assert.deepEqual(terms(suffix), { namesRecordType: false, namesHost: false });
  assert.deepEqual(terms(suffix, exact), { namesRecordType: false, namesHost: true });
  assert.deepEqual(terms(suffix, typed), { namesRecordType: true, namesHost: false });
  const block = { condition: 'dns.query == "a.x.org"', action: "block" as const };
  assert.deepEqual(terms(suffix, block, exact), { namesRecordType: false, namesHost: false });
  const typedBlock = { condition: 'dns.record_type == "TXT"', action: "block" as const };
  assert.deepEqual(terms(typedBlock, suffix), { namesRecordType: false, namesHost: false });
});

Deno.test("decide(): the deciding rule's own egress governs every other layer (ADV-TLS-07)", () => {
  const policy = policyOf(
    { condition: 'http.host == "x.org"' },
    { condition: 'http.host == "x.org"', egress: { allow_private_ips: true, tls: "any" } },
  );
  assert.deepEqual(decide(policy, "connect", connectFacts("x.org")).egress, {
    mode: "proxy",
    allowPrivateIps: false,
    tls: "sni",
  });
});

Deno.test("decide(): the deciding rule's own limit for bodies holds (S006-FR-024)", () => {
  const limit = (...rules: RuleSpec[]): number | undefined =>
    decide(policyOf(...rules), "http", httpFacts("POST", "x.org", "/")).egress?.maxBodyBytes;
  const own = (max_body_bytes: number): RuleSpec => ({
    condition: 'http.host == "x.org"',
    egress: { max_body_bytes },
  });
  assert.equal(limit(own(1), own(MAX_BODY_BYTES)), 1);
  assert.equal(limit(own(MAX_BODY_BYTES), own(1)), MAX_BODY_BYTES);
  assert.equal(limit({ condition: 'http.host == "x.org"' }, own(1)), undefined);
});

Deno.test("decide(): an agent that Docker does not know matches no name (D5, S013)", () => {
  const policy = policyOf({ condition: 'agent.name == "web" && http.host == "x.org"' });
  assert.ok(decide(policy, "connect", connectFacts("x.org", 443, "web")).allowed);
  assert.ok(!decide(policy, "connect", connectFacts("x.org", 443, "")).allowed);
  assert.ok(!decide(policy, "connect", connectFacts("x.org", 443, "web2")).allowed);
});

Deno.test("decide() answers alike after the policy crossed to another isolate", () => {
  const policy = policyOf(
    { condition: 'http.host.under("x.org") && http.path.matches("^/v[0-9]+/")' },
    { condition: 'http.host in ["a.org", "b.org"]', egress: { ports: [443, 8443] } },
  );
  const copy = buildPolicy(structuredClone(policy.data));
  for (const host of ["x.org", "a.x.org", "a.org", "c.org"]) {
    for (const facts of [httpFacts("GET", host, "/v1/"), connectFacts(host, 8443)]) {
      assert.deepEqual(decide(copy, "http", facts), decide(policy, "http", facts));
    }
  }
});

Deno.test("decide(): a fact that is larger than it can be fails closed", () => {
  const policy = policyOf(
    { id: "no-admin", condition: 'http.path.contains("admin")', action: "block" },
    { condition: 'http.host == "x.org"' },
  );
  const verdict = decide(policy, "http", httpFacts("GET", "x.org", `/${"a".repeat(9000)}`));
  assert.equal(verdict.reason, "rule_error");
  const long = policyOf({ condition: '!(http.host == "x.org")', action: "block" }, {
    condition: "true",
  });
  assert.equal(decide(long, "http", httpFacts("GET", "a".repeat(300))).reason, "rule_error");
});

Deno.test("decide(): agent and container layers judge their own facts (S003-AS-002)", () => {
  const policy = policyOf(
    { id: "no-force", condition: 'run.tool == "git" && "-f" in run.flags', action: "block" },
    { id: "git", condition: 'run.tool == "git"' },
    {
      id: "image",
      condition: 'docker.image.startsWith("python:") && docker.capabilities.size() == 0',
    },
  );
  const run = (flags: string[]): string | undefined =>
    decide(policy, "agent", { run: { tool: "git", flags, args: [] }, agent: { name: "a" } }).rule
      ?.id;
  assert.equal(run(["-f"]), "no-force");
  assert.equal(run(["-v"]), "git");
  const image = { docker: { image: "python:3.12", capabilities: [] }, agent: { name: "a" } };
  assert.equal(decide(policy, "container", image).rule?.id, "image");
});
