import { deepEqual, equal, match } from "node:assert/strict";
import { parseUpstreams } from "../../lib/dns/upstreams.ts";
import { type DaemonConfig, parseCommandLine } from "../../lib/config.ts";

function config(...args: string[]): DaemonConfig {
  const invocation = parseCommandLine(args);
  if (invocation.kind !== "run") throw new Error(`exit ${invocation.code}`);
  return invocation.config;
}

Deno.test("without flags every value is the operator guide's default", () => {
  deepEqual(config(), {
    socketPath: "/run/outcall/host.sock",
    bridge: "outcall0",
    rulesDir: "/etc/outcall/rules.d",
    dns: { address: null, port: 53 },
    dnsUpstreams: null,
    dnsQueryRate: { count: 1000, windowSecs: 1 },
    proxy: { address: null, port: 8080 },
    proxyLimits: { maxConnections: 4096, maxConnectionsPerAgent: 512 },
    agentSocketPath: "/run/outcall/agent.sock",
    shimPath: "/usr/local/bin/outcall-agent",
    agentTimeoutSecs: 5,
    agentPermissionRate: { count: 100, windowSecs: 10 },
    agentRuleRate: { count: 10, windowSecs: 60 },
    subnetBlock: "10.200.0.0/16",
    ca: null,
    interceptLeafTtlSecs: 86_400,
    interceptBodyCapBytes: 1_048_576,
    stateDir: "/var/lib/outcall",
    historyBounds: { maxBytes: 268_435_456, maxAgeMs: 2_592_000_000 },
    metricsListen: null,
    notifyUrl: null,
    logs: { format: "text", redactHostnames: false },
  });
});

Deno.test("every flag is read", () => {
  const given = config(
    ...["--socket", "/s/h.sock", "--bridge", "fence0", "--rules-dir", "/r"],
    ...["--dns-listen", "10.1.0.1", "--dns-port", "5353", "--dns-upstream", "9.9.9.9,1.1.1.1:54"],
    ...["--dns-query-rate", "50/2"],
    ...["--proxy-addr", "10.1.0.1:18080", "--proxy-max-connections", "20"],
    ...["--proxy-max-connections-per-agent", "10"],
    ...["--agent-socket-host-path", "/s/a.sock"],
    ...["--shim-host-path", "/b/shim", "--agent-timeout-secs", "7", "--agent-perm-rate", "5/6"],
    ...["--agent-rule-rate", "7/8", "--subnet-block", "192.168.0.0/20"],
    ...["--ca-cert", "/c.pem", "--ca-key", "/k.pem", "--intercept-leaf-ttl-secs", "600"],
    ...["--intercept-body-cap-bytes", "10", "--state-dir", "/v", "--log-format", "json"],
    ...["--history-max-size", "2g", "--history-max-age", "12h", "--log-redact-hostnames"],
  );
  deepEqual(given, {
    socketPath: "/s/h.sock",
    bridge: "fence0",
    rulesDir: "/r",
    dns: { address: "10.1.0.1", port: 5353 },
    dnsUpstreams: parseUpstreams("9.9.9.9,1.1.1.1:54"),
    dnsQueryRate: { count: 50, windowSecs: 2 },
    proxy: { address: "10.1.0.1", port: 18080 },
    proxyLimits: { maxConnections: 20, maxConnectionsPerAgent: 10 },
    agentSocketPath: "/s/a.sock",
    shimPath: "/b/shim",
    agentTimeoutSecs: 7,
    agentPermissionRate: { count: 5, windowSecs: 6 },
    agentRuleRate: { count: 7, windowSecs: 8 },
    subnetBlock: "192.168.0.0/20",
    ca: { certPath: "/c.pem", keyPath: "/k.pem" },
    interceptLeafTtlSecs: 600,
    interceptBodyCapBytes: 10,
    stateDir: "/v",
    historyBounds: { maxBytes: 2_147_483_648, maxAgeMs: 43_200_000 },
    metricsListen: null,
    notifyUrl: null,
    logs: { format: "json", redactHostnames: true },
  });
});

Deno.test("--metrics-listen takes an address of the loopback network", () => {
  deepEqual(config("--metrics-listen", "127.0.0.2:9464").metricsListen, {
    address: "127.0.0.2",
    port: 9464,
  });
});

Deno.test("--no-proxy takes the proxy away, and newer spellings of two flags work too", () => {
  equal(config("--no-proxy").proxy, null);
  equal(config("--agent-socket", "/s/a.sock").agentSocketPath, "/s/a.sock");
  equal(config("--agent-timeout", "9").agentTimeoutSecs, 9);
});

/** Bad command lines, and what the message must name. */
const REFUSED: readonly (readonly [args: readonly string[], named: RegExp])[] = [
  [["--bogus"], /--bogus/],
  [["extra"], /argument/],
  [["--dns-port", "0"], /--dns-port.*1 to 65535/s],
  [["--dns-port", "53x"], /--dns-port/],
  [["--dns-port", "65536"], /--dns-port/],
  [["--dns-listen", "localhost"], /--dns-listen.*IPv4/s],
  [["--dns-listen", "::"], /--dns-listen/],
  [["--dns-upstream", "9.9.9.9,dns.example"], /--dns-upstream.*dns\.example/s],
  [["--proxy-addr", "8080"], /--proxy-addr/],
  [["--proxy-addr", "0.0.0.0:"], /--proxy-addr/],
  [["--proxy-addr", "0177.0.0.1:8080"], /--proxy-addr/],
  [["--bridge", "a/b"], /--bridge/],
  [["--bridge", "this-name-is-too-long"], /--bridge.*15/s],
  [["--rules-dir", "relative"], /--rules-dir.*absolute/s],
  [["--subnet-block", "10.200.0.1/16"], /--subnet-block.*host bits/s], // S002-EC-016
  [["--subnet-block", "8.8.0.0/16"], /--subnet-block.*10\.0\.0\.0\/8/s],
  [["--subnet-block", "10.0.0.0/7"], /--subnet-block/],
  [["--subnet-block", "10.0.0.0/25"], /--subnet-block.*\/24/s],
  [["--agent-perm-rate", "100"], /--agent-perm-rate/],
  [["--agent-perm-rate", "0/1"], /--agent-perm-rate/],
  [["--agent-timeout-secs", "301"], /--agent-timeout/],
  [["--history-max-size", "3m"], /--history-max-size.*4m/s],
  [["--history-max-size", "0"], /--history-max-size/],
  [["--history-max-age", "0d"], /--history-max-age.*30d/s],
  [["--metrics-listen", "0.0.0.0:9464"], /--metrics-listen.*127\.0\.0\.1/s],
  [["--metrics-listen", "10.0.0.1:9464"], /--metrics-listen.*loopback/s],
  [["--metrics-listen", "127.0.0.1"], /--metrics-listen/],
  [["--log-format", "xml"], /--log-format.*text or json/s],
  [["--ca-cert", "/c.pem"], /--ca-key/],
  [["--socket", "/run/x.sock", "--agent-socket", "/run/x.sock"], /different/], // ADV-HOST-03
];

for (const [args, named] of REFUSED) {
  Deno.test(`outcalld ${args.join(" ")} exits with 2 and says why`, async () => {
    const output = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", "main.ts", ...args],
      cwd: new URL("../..", import.meta.url),
    }).output();
    const text = new TextDecoder().decode(output.stderr);
    equal(output.code, 2, text);
    match(text, named);
    match(text, /^error: /);
  });
}

Deno.test("outcalld --version and --help print to stdout and exit with 0", async () => {
  for (
    const [flag, expected] of [["--version", /^outcalld \d+\.\d+\.\d+\n$/], [
      "--help",
      /--dns-upstream/,
    ]] as const
  ) {
    const output = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", "main.ts", flag],
      cwd: new URL("../..", import.meta.url),
    }).output();
    equal(output.code, 0);
    match(new TextDecoder().decode(output.stdout), expected);
  }
});
