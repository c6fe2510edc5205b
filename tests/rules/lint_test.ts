import assert from "node:assert/strict";
import { lint } from "../../lib/rules/lint.ts";
import { policyOf, type RuleSpec } from "./support.ts";

/** What lint says of `rules`, without the rule's name. */
function findings(...rules: RuleSpec[]): [string, string][] {
  return lint(policyOf(...rules)).map(({ code, message }) => [
    code,
    message.replace(/^rule 'r[0-9]+' /, ""),
  ]);
}

/** Codes of what lint says of one allow rule. */
function codes(condition: string): string[] {
  return findings({ condition }).map(([code]) => code);
}

const CLEAN: readonly RuleSpec[] = [
  { condition: 'http.host == "api.openai.com"' },
  { condition: 'http.host in ["a.org", "b.org"] && agent.name == "web"' },
  { condition: 'http.host.under("example.com")' },
  { condition: 'http.host.endsWith(".example.com")' },
  { condition: 'dns.query == "github.com" || http.host == "github.com"' },
  { condition: 'http.host == "x.org" && network.port == 22' },
  { condition: 'run.tool == "git" && run.args.size() > 0' },
  { condition: 'docker.image.startsWith("python:")' },
  { condition: 'http.host.matches("^api[0-9]\\\\.example\\\\.com$")' },
  { condition: 'http.method == "CONNECT"', action: "block" },
];
for (const rule of CLEAN) {
  Deno.test(`lint() has nothing against ${rule.condition}`, () => {
    assert.deepEqual(findings(rule), []);
  });
}

const NEVER_EQUAL: readonly (readonly [string, string])[] = [
  [
    'http.host == "API.openai.com"',
    "compares http.host with 'API.openai.com', which it never is: it is in canonical form",
  ],
  [
    'http.host == "x.org."',
    "compares http.host with 'x.org.', which it never is: it is in canonical form",
  ],
  [
    'http.host == "https://x.org/"',
    "compares http.host with 'https://x.org/', which it never is: it is a host name alone",
  ],
  [
    'http.host == "x.org:443"',
    "compares http.host with 'x.org:443', which it never is: it is a host name alone",
  ],
  [
    'http.host == "*.x.org"',
    "compares http.host with '*.x.org', which it never is: it has no wildcards",
  ],
  [
    'http.host in ["x.org", "Y.org"]',
    "compares http.host with 'Y.org', which it never is: it is in canonical form",
  ],
  [
    'http.host == "x.org" && http.method == "get"',
    "compares http.method with 'get', which it never is: it is in upper case",
  ],
  [
    'http.host == "x.org" && http.path == "v1"',
    "compares http.path with 'v1', which it never is: it starts with '/'",
  ],
  [
    'http.host == "x.org" && http.path == "/a?b"',
    "compares http.path with '/a?b', which it never is: it has no query",
  ],
  [
    'http.host == "x.org" && network.protocol == "https"',
    "compares network.protocol with 'https', which it never is: it is 'tcp' or 'udp'",
  ],
  [
    'dns.query == "x.org" && dns.record_type == "a"',
    "compares dns.record_type with 'a', which it never is: it is in upper case",
  ],
];
for (const [condition, message] of NEVER_EQUAL) {
  Deno.test(`lint() finds a comparison that never holds: ${condition}`, () => {
    assert.deepEqual(findings({ condition }).filter(([code]) => code === "lint.never_equal"), [
      ["lint.never_equal", message],
    ]);
  });
}

Deno.test("lint() finds conditions that can never hold", () => {
  assert.deepEqual(codes("false"), ["lint.never_matches"]);
  assert.deepEqual(codes('http.host == "a.org" && http.host == "b.org"'), ["lint.never_matches"]);
});

Deno.test("lint() finds rules that allow every host", () => {
  for (
    const condition of [
      "true",
      'http.method == "GET"',
      'agent.name == "web"',
      'http.host != "evil.org"',
      "network.port == 443",
      'network.ip.inCidr("93.184.0.0/16")',
    ]
  ) {
    assert.ok(codes(condition).includes("lint.any_host"), condition);
  }
  assert.ok(!codes('run.tool == "git"').includes("lint.any_host"));
});

Deno.test("lint() finds tests of a host that other people's names pass", () => {
  const message = (condition: string): string | undefined =>
    findings({ condition }).find(([code]) => code === "lint.loose_host")?.[1];
  assert.equal(
    message('http.host.endsWith("example.com")'),
    "tests a host with 'example.com', which also matches evilexample.com",
  );
  assert.equal(
    message('http.host == "x.org" || http.host.under("y.org") && http.host.contains("api")'),
    "tests a host with 'api', which also matches api.evil.example",
  );
});

Deno.test("lint() finds domains under which anybody can have a name", () => {
  assert.ok(codes('http.host.under("amazonaws.com")').includes("lint.shared_domain"));
  assert.ok(codes('http.host.endsWith(".github.io")').includes("lint.shared_domain"));
  assert.ok(codes('http.host.under("com")').includes("lint.shared_domain"));
  assert.ok(!codes('http.host.under("mybucket.s3.amazonaws.com")').includes("lint.shared_domain"));
});

Deno.test("lint() finds rules that admit known DoH resolvers (T-9)", () => {
  assert.deepEqual(findings({ condition: 'http.host in ["dns.google", "x.org"]' }), [
    ["lint.encrypted_dns", "admits DNS over HTTPS (dns.google), which hides what is looked up"],
  ]);
  assert.ok(codes('http.host.under("cloudflare-dns.com")').includes("lint.encrypted_dns"));
});

Deno.test("lint() finds clauses that HTTPS can never satisfy", () => {
  assert.deepEqual(findings({ condition: 'http.host == "x.org" && http.path.startsWith("/v1")' }), [
    ["lint.plain_http_only", "never allows HTTPS: nobody sees http.path inside a tunnel"],
  ]);
  assert.deepEqual(
    findings({ condition: 'http.path.startsWith("/admin")', action: "block" }),
    [["lint.plain_http_only", "never blocks HTTPS: nobody sees http.path inside a tunnel"]],
  );
  assert.deepEqual(codes('http.host == "x.org" && http.method in ["GET", "CONNECT"]'), []);
});

Deno.test("lint() takes a rule for port 80 as meant for plain HTTP", () => {
  const condition = 'http.host == "x.org" && http.path.startsWith("/v1")';
  assert.deepEqual(findings({ condition: `${condition} && network.port == 80` }), []);
  assert.deepEqual(findings({ condition, egress: { ports: [80] } }), []);
  assert.equal(findings({ condition, egress: { ports: [80, 443] } }).length, 1);
});

Deno.test("lint() finds rules that an earlier one hides", () => {
  const hidden = (...rules: RuleSpec[]): string[] =>
    findings(...rules).filter(([code]) => code === "lint.hidden").map(([, message]) => message);
  const host = 'http.host == "x.org"';
  assert.deepEqual(hidden({ condition: host }, { condition: `${host} && http.method == "GET"` }), [
    "never decides: rule 'r0' (/rules/test.yaml:1) comes first",
  ]);
  assert.equal(
    hidden({ condition: 'http.host.under("x.org")' }, { condition: 'http.host == "a.x.org"' })
      .length,
    1,
  );
  assert.equal(
    hidden({ condition: 'http.host in ["x.org", "y.org"]' }, { condition: host, action: "block" })
      .length,
    1,
  );
  assert.equal(hidden({ condition: "true", action: "block" }, { condition: host }).length, 1);
  assert.equal(
    hidden({ condition: `${host} && http.method == "GET"` }, { condition: host }).length,
    0,
  );
  assert.equal(hidden({ condition: host }, { condition: host, egress: { ports: [22] } }).length, 0);
  assert.equal(hidden({ condition: host }, { condition: 'http.host == "y.org"' }).length, 0);
  assert.equal(
    hidden({ condition: host, priority: 200 }, { condition: `${host} && http.method == "GET"` })
      .length,
    0,
  );
});

Deno.test("lint() warns when rules about any host add up to a slow decision", () => {
  const slow = Array.from({ length: 60 }, (_, i) => ({
    condition: `http.path.lowerAscii().contains("secret${i}")`,
    action: "block" as const,
  }));
  assert.ok(findings(...slow).some(([code]) => code === "lint.slow"));
  assert.ok(!findings(...slow.slice(0, 5)).some(([code]) => code === "lint.slow"));
});

Deno.test("lint() warns of direct_ip rules that open nothing, or not all", () => {
  const direct = (condition: string, ports?: readonly number[]): string[] =>
    findings({
      condition,
      egress: { mode: "direct_ip", ...(ports === undefined ? {} : { ports }) },
    }).map(([code]) => code);
  const host = 'http.host == "x.org"';
  assert.deepEqual(direct(host), []);
  assert.deepEqual(direct(`${host} && network.port in [22, 80]`), []);
  assert.deepEqual(direct(`${host} && network.protocol == "udp" && network.port == 53`), []);
  assert.deepEqual(direct(`${host} && agent.name == "a" && network.ip == "1.1.1.1"`), []);
  assert.deepEqual(direct(`${host} && network.port > 1000`), ["lint.direct_nothing"]);
  assert.deepEqual(direct(`${host} && network.port > 1000`, [2000]), []);
  assert.ok(direct(`${host} && http.method == "GET"`).includes("lint.direct_nothing"));
  const many = Array.from({ length: 70 }, (_, i) => i + 1);
  assert.deepEqual(direct(`${host} && network.port in [${many}]`), ["lint.direct_ports"]);
});

Deno.test("lint() warns of a limit for bodies that HTTPS escapes", () => {
  const found = (condition: string, maxBytes: number, ports?: number[]): string[] =>
    findings({
      condition,
      egress: { max_body_bytes: maxBytes, ...(ports === undefined ? {} : { ports }) },
    }).map(([code]) => code);
  const host = 'http.host == "x.org"';
  assert.deepEqual(found(host, 4096), ["lint.body_limit"]);
  assert.deepEqual(found(host, 4096, [80, 443]), ["lint.body_limit"]);
  assert.deepEqual(found(host, 4096, [80]), []);
  assert.deepEqual(found(`${host} && network.port == 80`, 4096), []);
  assert.deepEqual(found(host, 64 * 1024 * 1024), [], "a longer one promises nothing");
});
