import assert from "node:assert/strict";
import { explain, type ExplainedStep, type Explanation } from "../../lib/rules/explain.ts";
import type { RequestSpec } from "../../lib/rules/request.ts";
import { compileFiles, policyOf } from "./support.ts";

function steps(explanation: Explanation): readonly ExplainedStep[] {
  assert.ok(explanation.ok, explanation.ok ? "" : explanation.message);
  return explanation.steps;
}

const policy = compileFiles({
  "agent.yaml": `
version: "1"
definitions:
  api: http.host == "api.openai.com"
rules:
  - id: no-delete
    condition: http.method == "DELETE"
    action: block
  - id: api
    condition: $api
    action: allow
  - id: docs
    condition: |
      http.host == "docs.org" &&
      http.method == "GET" &&
      agent.name == "reader"
    action: allow
  - id: git
    condition: run.tool == "git" && !("--force" in run.flags)
    action: allow
`,
});

Deno.test("explain() walks DNS, CONNECT and SNI for an https URL (D31)", () => {
  const result = explain(policy, { url: "https://api.openai.com/v1/models", method: "POST" });
  assert.ok(result.ok && result.allowed);
  assert.deepEqual(steps(result).map(({ layer, verdict }) => [layer, verdict.allowed]), [
    ["dns", true],
    ["connect", true],
    ["sni", true],
  ]);
  assert.deepEqual(steps(result)[1]?.rule, {
    id: "api",
    file: "/rules/agent.yaml",
    line: 9,
    action: "allow",
    condition: '(http.host == "api.openai.com")',
    truth: "true",
    clauses: [{
      text: 'http.host == "api.openai.com"',
      line: 10,
      column: 16,
      truth: "true",
      facts: { "http.host": "api.openai.com" },
    }],
  });
});

Deno.test("explain() walks DNS and HTTP for an http URL, and dials when the address is given (D31)", () => {
  const spec = { url: "http://docs.org/a?b=c", agent: "reader", address: "93.184.216.34" };
  const result = explain(policy, spec);
  assert.ok(result.ok && result.allowed);
  assert.deepEqual(steps(result).map(({ layer }) => layer), ["dns", "http", "dial"]);
  assert.equal(steps(result)[1]?.facts.http?.path, "/a");
});

Deno.test("explain() names the layer that says no, the nearest rule and the clause that failed", () => {
  const result = explain(policy, { url: "http://docs.org/", agent: "writer" });
  assert.ok(result.ok && !result.allowed);
  const [last] = steps(result).slice(-1);
  assert.equal(last?.layer, "dns");
  assert.equal(last?.nearest?.rule.id, "docs");
  assert.deepEqual(last?.nearest?.failed, {
    text: 'agent.name == "reader"',
    line: 16,
    column: 7,
    truth: "false",
    facts: { "agent.name": "writer" },
  });
});

Deno.test("explain() says what nobody sees inside a tunnel", () => {
  const result = explain(policy, { url: "https://docs.org/", agent: "reader" });
  const [last] = steps(result).slice(-1);
  assert.equal(last?.layer, "connect");
  assert.deepEqual(last?.nearest?.failed, {
    text: 'http.method == "GET"',
    line: 15,
    column: 7,
    truth: "false",
    facts: { "http.method": "CONNECT" },
  });
});

Deno.test("explain() names the block rule, and the port that was asked for", () => {
  const blocked = explain(policy, { url: "http://api.openai.com/", method: "delete" });
  assert.equal(steps(blocked).at(-1)?.rule?.id, "no-delete");
  const port = explain(policy, { connect: "api.openai.com:22" });
  assert.equal(steps(port).at(-1)?.verdict.reason, "port");
  assert.equal(steps(port).at(-1)?.rule?.id, "api");
});

Deno.test("explain() judges a tool by its flags, and a name by itself", () => {
  const tool = explain(policy, { tool: "git", args: ["push", "--force", "-"] });
  assert.ok(tool.ok && !tool.allowed);
  assert.deepEqual(steps(tool)[0]?.facts.run?.flags, ["--force"]);
  assert.equal(steps(tool)[0]?.nearest?.failed?.text, '!("--force" in run.flags)');
  const name = explain(policy, { dns: "DOCS.org.", record_type: "aaaa", agent: "reader" });
  assert.ok(name.ok && name.allowed);
  assert.deepEqual(steps(name)[0]?.facts.dns, { query: "docs.org", record_type: "AAAA" });
});

Deno.test("explain() shows what a condition still waits for", () => {
  const waiting = policyOf({ condition: 'network.ip == "1.2.3.4" && http.host == "x.org"' });
  const [dns] = steps(explain(waiting, { connect: "x.org" }));
  assert.equal(dns?.rule?.truth, "pending");
  assert.deepEqual(dns?.rule?.clauses.map(({ truth, facts }) => [truth, facts]), [
    ["pending", { "network.ip": null }],
    ["true", { "http.host": "x.org" }],
  ]);
});

Deno.test("explain() asks no DNS for an address", () => {
  const open = policyOf({ condition: 'http.host == "1.2.3.4"' });
  const layers = steps(explain(open, { connect: "1.2.3.4:443" })).map(({ layer }) => layer);
  assert.deepEqual(layers, ["connect", "sni", "dial"]);
  const v6 = policyOf({ condition: 'http.host == "2606:4700::1"' });
  assert.equal(steps(explain(v6, { connect: "[2606:4700::1]:443" })).length, 3);
  assert.equal(steps(explain(v6, { connect: "2606:4700::1" })).length, 3);
});

const BAD: readonly (readonly [RequestSpec, string])[] = [
  [{}, "a request needs exactly one of url, dns, connect, direct and tool"],
  [
    { url: "http://a/", dns: "a" },
    "a request needs exactly one of url, dns, connect, direct and tool",
  ],
  [{ url: "ftp://x.org/" }, "'ftp://x.org/' is not an http or https URL"],
  [{ url: "x.org" }, "'x.org' is not an http or https URL"],
  [{ dns: "1.2.3.4" }, "'1.2.3.4' is not a host name"],
  [{ connect: "x.org:0" }, "'x.org:0' has no port from 1 to 65535"],
  [{ connect: "x.org:65536" }, "'x.org:65536' has no port from 1 to 65535"],
  [{ connect: "a b:443" }, "'a b' is not a host name or an address"],
  [{ connect: "x.org", address: "here" }, "'here' is not an IP address"],
];
for (const [spec, message] of BAD) {
  Deno.test(`explain() refuses ${JSON.stringify(spec)}`, () => {
    assert.deepEqual(explain(policy, spec), { ok: false, message });
  });
}

Deno.test("explain() holds the body against the limit of the rule that admits the address, as the proxy does", () => {
  const rules = policyOf(
    {
      id: "short",
      condition: 'http.host == "x.org" && network.ip == "192.0.2.1"',
      egress: { max_body_bytes: 10 },
    },
    { id: "usual", condition: 'http.host == "x.org" && http.body_size != 7' },
  );
  const judged = (body_size: number, address: string): unknown[] => {
    const last = steps(explain(rules, { url: "http://x.org/", body_size, address })).at(-1);
    return [last?.layer, last?.verdict.reason, last?.rule?.id];
  };
  assert.deepEqual(judged(10, "192.0.2.1"), ["dial", "rule", "short"]);
  assert.deepEqual(judged(11, "192.0.2.1"), ["dial", "limit", "short"]);
  assert.deepEqual(judged(11, "192.0.2.2"), ["dial", "rule", "usual"]);
  assert.deepEqual(judged(7, "192.0.2.2"), ["dial", "default", undefined]);
  assert.deepEqual(judged(16 * 1024 * 1024, "192.0.2.2"), ["dial", "rule", "usual"]);
  assert.deepEqual(judged(16 * 1024 * 1024 + 1, "192.0.2.2"), ["dial", "limit", "usual"]);
  const open = steps(explain(rules, { url: "http://x.org/", body_size: 11 })).at(-1);
  assert.deepEqual([open?.layer, open?.verdict.reason, open?.rule?.id], ["http", "limit", "short"]);
});

Deno.test("explain() gives plain JSON", () => {
  const result = explain(policy, { url: "https://docs.org/" });
  assert.deepEqual(JSON.parse(JSON.stringify(result)), result);
});

Deno.test("explain() holds a rule about the host for nearer than one about another, however much it wants", () => {
  const rules = policyOf(
    { id: "other", condition: 'http.host == "other.org"' },
    {
      id: "about",
      condition: 'http.host.under("x.org") && http.method == "GET" && http.path == "/a"',
    },
    { id: "tool", condition: 'run.tool == "git"' },
  );
  const nearest = (spec: RequestSpec): string | undefined =>
    steps(explain(rules, spec)).at(-1)?.nearest?.rule.id;
  assert.equal(nearest({ url: "https://www.x.org/" }), "about");
  assert.equal(nearest({ tool: "rm" }), "tool");
});

Deno.test("explain() shows a negated clause as it stands", () => {
  const rules = policyOf({ condition: 'http.host == "x.org" && !(http.path == "/a")' });
  const last = steps(explain(rules, { url: "http://x.org/a" })).at(-1);
  assert.deepEqual(
    last?.nearest?.rule.clauses.map(({ text, truth }) => [text, truth]),
    [['http.host == "x.org"', "true"], ['!(http.path == "/a")', "false"]],
  );
});
