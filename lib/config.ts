/**
 * The daemon's flags, all of them: there is no configuration file (operator guide, "Daemon flags").
 * A value is checked here, once, and is of its final type afterwards.
 */
import { Command, CommanderError, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { assertBridgeName, DEFAULT_BRIDGE } from "./bridge/names.ts";
import { parseUpstreams, type Upstream } from "./dns/upstreams.ts";
import { messageOf } from "./errors.ts";
import type { LogFormat, LogOptions } from "./log.ts";
import { Cidr } from "./net/cidr.ts";
import { Ip } from "./net/ip.ts";
import { DEFAULT_RULES_DIR, DEFAULT_SOCKET, wholeNumber } from "./options.ts";
import { DEFAULT_LIMITS, type ProxyLimits } from "./proxy/context.ts";
import type { Rate } from "./rate.ts";
import type { Bounds } from "./record/table.ts";
import { VERSION } from "./version.ts";

/** Where a service listens: on every managed gateway (the wildcard, decision D6), or on one address. */
export interface ListenAddress {
  /** Null: every managed gateway address, and nothing else on the host. */
  readonly address: string | null;
  readonly port: number;
}

/** Where metrics are served: an address of the loopback network, dotted decimal. */
export interface LoopbackAddress {
  readonly address: string;
  readonly port: number;
}

/** Root certificate for interception; both files or none. */
export interface CaFiles {
  readonly certPath: string;
  readonly keyPath: string;
}

/** Everything the operator said on the command line. */
export interface DaemonConfig {
  readonly socketPath: string;
  readonly bridge: string;
  readonly rulesDir: string;
  readonly dns: ListenAddress;
  /** Asked in this order; null: the nameservers of /etc/resolv.conf. */
  readonly dnsUpstreams: readonly Upstream[] | null;
  /** DNS queries each agent may send. */
  readonly dnsQueryRate: Rate;
  /** Null: `--no-proxy`. */
  readonly proxy: ListenAddress | null;
  readonly proxyLimits: Pick<ProxyLimits, "maxConnections" | "maxConnectionsPerAgent">;
  readonly agentSocketPath: string;
  readonly shimPath: string;
  readonly agentTimeoutSecs: number;
  readonly agentPermissionRate: Rate;
  readonly agentRuleRate: Rate;
  /** Canonical private IPv4 block of at least a /24, in CIDR form. */
  readonly subnetBlock: string;
  readonly ca: CaFiles | null;
  readonly interceptLeafTtlSecs: number;
  readonly interceptBodyCapBytes: number;
  readonly stateDir: string;
  /** How much of the decisions is kept. */
  readonly historyBounds: Bounds;
  /** Where metrics are served beside the operator socket; null: nowhere. */
  readonly metricsListen: LoopbackAddress | null;
  /** Receives each new rule request; null: nobody does. */
  readonly notifyUrl: URL | null;
  readonly logs: LogOptions;
}

/** What the command line asked for: run with a configuration, or print text and exit. */
export type Invocation =
  | { readonly kind: "run"; readonly config: DaemonConfig }
  | { readonly kind: "exit"; readonly code: number };

function absolutePath(text: string): string {
  if (!text.startsWith("/") || text.includes("\0")) {
    throw new InvalidArgumentError("It must be an absolute path.");
  }
  return text;
}

function ipv4(text: string): string {
  const ip = Ip.parse(text);
  if (ip?.version !== 4) throw new InvalidArgumentError("It must be an IPv4 address.");
  return ip.text;
}

const port = wholeNumber(1, 65_535);

function addressAndPort(text: string): ListenAddress {
  const colon = text.lastIndexOf(":");
  if (colon < 0) throw new InvalidArgumentError("It must be <ip>:<port>, such as 0.0.0.0:8080.");
  return listen(ipv4(text.slice(0, colon)), port(text.slice(colon + 1)));
}

/**
 * Who may read metrics is not asked by TCP, so only the host's own programs can: there is no way to
 * name another address.
 */
function loopbackAddress(text: string): LoopbackAddress {
  const { address, port: portNumber } = addressAndPort(text);
  if (address === null || !address.startsWith("127.")) {
    throw new InvalidArgumentError(
      "It must be an address of the loopback network, such as 127.0.0.1:9464.",
    );
  }
  return { address, port: portNumber };
}

function listen(address: string, portNumber: number): ListenAddress {
  return { address: address === "0.0.0.0" ? null : address, port: portNumber };
}

/** What another part refuses, told as the fault of the flag's value. */
function checked<T>(check: () => T): T {
  try {
    return check();
  } catch (thrown) {
    throw new InvalidArgumentError(messageOf(thrown));
  }
}

function bridgeName(text: string): string {
  return checked(() => {
    assertBridgeName(text);
    return text;
  });
}

function upstreams(text: string): readonly Upstream[] {
  return checked(() => parseUpstreams(text));
}

/** S002-FR-030: canonical, at least a /24, wholly inside one private range (RFC 1918). */
function subnetBlock(text: string): string {
  const block = Cidr.parse(text);
  if (block === null || block.network.version !== 4) {
    throw new InvalidArgumentError(
      "It must be an IPv4 block without host bits, such as 10.200.0.0/16.",
    );
  }
  if (block.prefix > 24) throw new InvalidArgumentError("It must be a /24 or larger.");
  const ranges = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
  const inside = ranges.some((range) => {
    const outer = Cidr.parse(range);
    return outer !== null && outer.prefix <= block.prefix && outer.contains(block.network);
  });
  if (!inside) {
    throw new InvalidArgumentError(`It must lie inside one of ${ranges.join(", ")}.`);
  }
  return block.toString();
}

function webUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || !["http:", "https:"].includes(url.protocol)) {
    throw new InvalidArgumentError("It must be an http or https URL.");
  }
  return url;
}

function rate(text: string): Rate {
  const match = /^([0-9]+)\/([0-9]+)$/.exec(text);
  if (match === null) {
    throw new InvalidArgumentError("It must be <count>/<seconds>, such as 100/10.");
  }
  return {
    count: wholeNumber(1, 1_000_000)(match[1] ?? ""),
    windowSecs: wholeNumber(1, 86_400)(match[2] ?? ""),
  };
}

const SIZE_UNITS: Readonly<Record<string, number>> = { m: 1024 ** 2, g: 1024 ** 3 };

function historySize(text: string): number {
  const [, digits, unit] = /^([0-9]{1,6})([mg])$/.exec(text) ?? [];
  const bytes = Number(digits) * (SIZE_UNITS[unit ?? ""] ?? NaN);
  // Below it the history would be at its pruning more than at its writing.
  if (!(bytes >= 4 * 1024 ** 2)) {
    throw new InvalidArgumentError("It must be a size of at least 4m, such as 256m or 2g.");
  }
  return bytes;
}

const AGE_UNITS_MS: Readonly<Record<string, number>> = { h: 3_600_000, d: 86_400_000 };

function historyAge(text: string): number {
  const [, digits, unit] = /^([1-9][0-9]{0,4})([hd])$/.exec(text) ?? [];
  const ms = Number(digits) * (AGE_UNITS_MS[unit ?? ""] ?? NaN);
  if (Number.isNaN(ms)) throw new InvalidArgumentError("It must be a time such as 12h or 30d.");
  return ms;
}

function logFormat(text: string): LogFormat {
  if (text !== "text" && text !== "json") {
    throw new InvalidArgumentError("It must be text or json.");
  }
  return text;
}

/** A constant, so that its type is the list of options itself; it may parse several times. */
const COMMAND = new Command("outcalld")
  .description(
    "Egress firewall for agent containers: kernel, DNS and HTTP(S), denied unless a rule allows.",
  )
  .version(`outcalld ${VERSION}`, "-V, --version")
  .allowExcessArguments(false)
  .option(
    "--socket <path>",
    "operator API Unix socket",
    absolutePath,
    DEFAULT_SOCKET,
  )
  .option(
    "--bridge <name>",
    "Linux bridge of the default network; created if missing",
    bridgeName,
    DEFAULT_BRIDGE,
  )
  .option(
    "--rules-dir <path>",
    "directory of YAML rule files",
    absolutePath,
    DEFAULT_RULES_DIR,
  )
  .option(
    "--dns-listen <ip>",
    "DNS filter bind address; 0.0.0.0 means every managed gateway",
    ipv4,
    "0.0.0.0",
  )
  .option("--dns-port <port>", "DNS filter bind port", port, 53)
  .option(
    "--dns-upstream <list>",
    "comma-separated upstream resolvers, IP[:port] (default: from /etc/resolv.conf)",
    upstreams,
  )
  .addOption(
    new Option("--dns-query-rate <count/seconds>", "DNS queries allowed per container")
      .argParser(rate).default({ count: 1000, windowSecs: 1 }, "1000/1"),
  )
  .addOption(
    new Option(
      "--proxy-addr <host:port>",
      "HTTP proxy bind address; 0.0.0.0 means every managed gateway",
    ).argParser(addressAndPort).default(listen("0.0.0.0", 8080), "0.0.0.0:8080"),
  )
  .option("--no-proxy", "disable the HTTP proxy entirely")
  .option(
    "--proxy-max-connections <n>",
    "client connections of all agents together, tunnels included",
    wholeNumber(1, 100_000),
    DEFAULT_LIMITS.maxConnections,
  )
  .option(
    "--proxy-max-connections-per-agent <n>",
    "client connections of one agent, tunnels included",
    wholeNumber(1, 100_000),
    DEFAULT_LIMITS.maxConnectionsPerAgent,
  )
  .option(
    "--agent-socket-host-path, --agent-socket <path>",
    "agent API Unix socket, one shared socket per host",
    absolutePath,
    "/run/outcall/agent.sock",
  )
  .option(
    "--shim-host-path <path>",
    "outcall-agent binary that is mounted into agent containers",
    absolutePath,
    "/usr/local/bin/outcall-agent",
  )
  .option(
    "--agent-timeout-secs, --agent-timeout <n>",
    "time limit of a permission check, in seconds",
    wholeNumber(1, 300),
    5,
  )
  .addOption(
    new Option("--agent-perm-rate <count/seconds>", "permission checks allowed per container")
      .argParser(rate).default({ count: 100, windowSecs: 10 }, "100/10"),
  )
  .addOption(
    new Option("--agent-rule-rate <count/seconds>", "rule submissions allowed per container")
      .argParser(rate).default({ count: 10, windowSecs: 60 }, "10/60"),
  )
  .option(
    "--subnet-block <cidr>",
    "private block that each network takes a /24 from",
    subnetBlock,
    "10.200.0.0/16",
  )
  .option("--ca-cert <path>", "PEM root certificate for interception", absolutePath)
  .option("--ca-key <path>", "PEM root key for interception, mode 0600", absolutePath)
  .option(
    "--intercept-leaf-ttl-secs <n>",
    "validity of generated leaf certificates, in seconds",
    wholeNumber(60, 31_536_000),
    86_400,
  )
  .option(
    "--intercept-body-cap-bytes <n>",
    "bytes buffered for http.body matching",
    wholeNumber(0, 1_073_741_824),
    1_048_576,
  )
  .option(
    "--metrics-listen <host:port>",
    "serve metrics on a loopback address too, such as 127.0.0.1:9464 (always: GET /metrics on the operator socket)",
    loopbackAddress,
  )
  .option("--notify-url <url>", "webhook that is told of each new rule request", webUrl)
  .option(
    "--state-dir <path>",
    "persistent state (rule requests, grants, decisions)",
    absolutePath,
    "/var/lib/outcall",
  )
  .addOption(
    new Option("--history-max-size <size>", "how large the history of decisions may grow")
      .argParser(historySize).default(256 * 1024 ** 2, "256m"),
  )
  .addOption(
    new Option("--history-max-age <time>", "how long decisions are kept")
      .argParser(historyAge).default(30 * 86_400_000, "30d"),
  )
  .option("--log-format <format>", "text or json, on stderr", logFormat, "text")
  .option("--log-redact-hostnames", "keep hosts, addresses and paths out of the log", false)
  .exitOverride();

function configFrom(options: ReturnType<typeof COMMAND.opts>): DaemonConfig {
  return {
    socketPath: options.socket,
    bridge: options.bridge,
    rulesDir: options.rulesDir,
    dns: listen(options.dnsListen, options.dnsPort),
    dnsUpstreams: options.dnsUpstream ?? null,
    dnsQueryRate: options.dnsQueryRate,
    proxy: options.proxy ? options.proxyAddr : null,
    proxyLimits: {
      maxConnections: options.proxyMaxConnections,
      maxConnectionsPerAgent: options.proxyMaxConnectionsPerAgent,
    },
    agentSocketPath: options.agentSocket,
    shimPath: options.shimHostPath,
    agentTimeoutSecs: options.agentTimeout,
    agentPermissionRate: options.agentPermRate,
    agentRuleRate: options.agentRuleRate,
    subnetBlock: options.subnetBlock,
    ca: options.caCert !== undefined && options.caKey !== undefined
      ? { certPath: options.caCert, keyPath: options.caKey }
      : null,
    interceptLeafTtlSecs: options.interceptLeafTtlSecs,
    interceptBodyCapBytes: options.interceptBodyCapBytes,
    stateDir: options.stateDir,
    historyBounds: { maxBytes: options.historyMaxSize, maxAgeMs: options.historyMaxAge },
    metricsListen: options.metricsListen ?? null,
    notifyUrl: options.notifyUrl ?? null,
    logs: { format: options.logFormat, redactHostnames: options.logRedactHostnames },
  };
}

/**
 * Reads `outcalld`'s command line. Help and version go to stdout; a flag or value that is wrong is
 * named on stderr and gives exit code 2.
 */
export function parseCommandLine(args: readonly string[]): Invocation {
  try {
    COMMAND.parse([...args], { from: "user" });
    const options = COMMAND.opts();
    if ((options.caCert === undefined) !== (options.caKey === undefined)) {
      COMMAND.error("error: --ca-cert and --ca-key must be given together");
    }
    if (options.socket === options.agentSocket) {
      // Agents would reach the operator API (ADV-HOST-03).
      COMMAND.error("error: --socket and --agent-socket-host-path must be different files");
    }
    return { kind: "run", config: configFrom(options) };
  } catch (thrown) {
    if (!(thrown instanceof CommanderError)) throw thrown;
    return { kind: "exit", code: thrown.exitCode === 0 ? 0 : 2 };
  }
}
