/**
 * A request as people put it ("may agent a POST to https://x/y?") and the layers that would judge it,
 * each with the facts that it knows (decision D31).
 */
import { Hostname, parseHost } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import type { Facts, Layer } from "./types.ts";

/** A hypothetical request: exactly one of `url`, `dns`, `connect`, `direct` and `tool`. */
export interface RequestSpec {
  /** http or https. */
  readonly url?: string;
  /** Of `url`; default GET. */
  readonly method?: string;
  /** Of `url`, plain http only. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Of `url`, plain http only: declared bytes; default 0. */
  readonly body_size?: number;
  /** A name to be resolved. */
  readonly dns?: string;
  /** Of `dns`; default A. */
  readonly record_type?: string;
  /** `host` or `host:port`; default port 443. */
  readonly connect?: string;
  /** A connection past the proxy: `host`, `host:port` or `host:port/udp`; default port 443, TCP. */
  readonly direct?: string;
  /** A tool to be run. */
  readonly tool?: string;
  /** Of `tool`. */
  readonly args?: readonly string[];
  /** Of `tool`. */
  readonly cwd?: string;
  /** Who asks; default: an agent that Docker does not know. */
  readonly agent?: string;
  /** What the name resolves to; without it conditions on `network.ip` stay open. */
  readonly address?: string;
}

/** One layer's view of a request. */
export interface Step {
  readonly layer: Layer;
  readonly facts: Facts;
}

/** The steps of a request in order, or what is wrong with it. */
export type Steps =
  | { readonly ok: true; readonly steps: readonly Step[] }
  | { readonly ok: false; readonly message: string };

class BadRequest extends Error {}

const DEFAULT_PORTS: Readonly<Record<string, number>> = { "http:": 80, "https:": 443 };

function canonicalHost(text: string): string {
  const host = parseHost(text);
  if (host === null) throw new BadRequest(`'${text}' is not a host name or an address`);
  return String(host);
}

function hostAndPort(text: string): { host: string; port: number } {
  const match = /^(.*):([0-9]{1,5})$/.exec(text);
  // A bare IPv6 address is all colons: only brackets can be followed by a port.
  const hasPort = match !== null && Ip.parse(text) === null;
  const port = hasPort ? Number(match[2]) : 443;
  if (port < 1 || port > 65_535) throw new BadRequest(`'${text}' has no port from 1 to 65535`);
  return { host: canonicalHost(hasPort ? match[1] ?? "" : text), port };
}

function addressOf(host: string, spec: RequestSpec): string | undefined {
  if (Ip.parse(host) !== null) return host;
  if (spec.address === undefined) return undefined;
  const address = Ip.parse(spec.address);
  if (address === null) throw new BadRequest(`'${spec.address}' is not an IP address`);
  return address.text;
}

/** The step that resolves the name; an address needs none. */
export function dnsSteps(
  host: string,
  recordType: string,
  agent: NonNullable<Facts["agent"]>,
): Step[] {
  if (Ip.parse(host) !== null) return [];
  const facts = {
    dns: { query: host, record_type: recordType },
    network: { hostname: host },
    http: { host },
    agent,
  };
  return [{ layer: "dns", facts }];
}

/** A connection that an agent would make past the proxy. */
export interface DirectConnection {
  /** Normalised, as in `Hostname.name`. */
  readonly host: string;
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  readonly agentName: string;
  /** Canonical text; undefined: open. */
  readonly ip: string | undefined;
}

/** What is known when an address that a name resolved to is about to be opened in the kernel. */
export function grantFacts({ host, protocol, port, agentName, ip }: DirectConnection): Facts {
  return {
    network: { hostname: host, port, protocol, ...(ip === undefined ? {} : { ip }) },
    http: { host },
    dns: { query: host, record_type: "A" },
    agent: { name: agentName },
  };
}

/** The last step of a connection, where the address is known. */
function dialSteps(facts: Facts, address: string | undefined): Step[] {
  if (address === undefined) return [];
  return [{ layer: "dial", facts: { ...facts, network: { ...facts.network, ip: address } } }];
}

function tunnelSteps(host: string, port: number, spec: RequestSpec): Step[] {
  const agent = { name: spec.agent ?? "" };
  const facts: Facts = {
    network: { hostname: host, port, protocol: "tcp" },
    http: { host, method: "CONNECT" },
    agent,
  };
  return [
    ...dnsSteps(host, "A", agent),
    { layer: "connect", facts },
    { layer: "sni", facts },
    ...dialSteps(facts, addressOf(host, spec)),
  ];
}

function urlSteps(text: string, spec: RequestSpec): Step[] {
  const url = URL.parse(text);
  const defaultPort = url === null ? undefined : DEFAULT_PORTS[url.protocol];
  if (url === null || defaultPort === undefined) {
    throw new BadRequest(`'${text}' is not an http or https URL`);
  }
  const host = canonicalHost(url.hostname);
  const port = url.port === "" ? defaultPort : Number(url.port);
  if (url.protocol === "https:") return tunnelSteps(host, port, spec);
  const agent = { name: spec.agent ?? "" };
  const headers = Object.entries(spec.headers ?? {}).map(([name, value]) =>
    [name.toLowerCase(), value] as const
  );
  const facts: Facts = {
    network: { hostname: host, port, protocol: "tcp" },
    http: {
      host,
      method: (spec.method ?? "GET").toUpperCase(),
      path: url.pathname,
      headers: Object.fromEntries(headers),
      body_size: spec.body_size ?? 0,
    },
    agent,
  };
  return [
    ...dnsSteps(host, "A", agent),
    { layer: "http", facts },
    ...dialSteps(facts, addressOf(host, spec)),
  ];
}

function directSteps(text: string, spec: RequestSpec): Step[] {
  const protocol = text.endsWith("/udp") ? "udp" : "tcp";
  const { host, port } = hostAndPort(text.replace(/\/(tcp|udp)$/, ""));
  // What opens the kernel is the answer to a look-up.
  if (Ip.parse(host) !== null) throw new BadRequest(`'${text}' must begin with a host name`);
  const agent = { name: spec.agent ?? "" };
  const ip = addressOf(host, spec);
  return [
    ...dnsSteps(host, "A", agent),
    { layer: "grant", facts: grantFacts({ host, protocol, port, agentName: agent.name, ip }) },
  ];
}

function toolSteps(tool: string, spec: RequestSpec): Step[] {
  const args = spec.args ?? [];
  const facts: Facts = {
    run: {
      tool,
      args,
      // A lone "-" stands for standard input.
      flags: args.filter((arg) => arg.startsWith("-") && arg !== "-"),
      cwd: spec.cwd ?? "",
      context: {},
    },
    agent: { name: spec.agent ?? "" },
  };
  return [{ layer: "agent", facts }];
}

function lookupSteps(text: string, spec: RequestSpec): Step[] {
  const name = Hostname.parse(text);
  if (name === null) throw new BadRequest(`'${text}' is not a host name`);
  const recordType = (spec.record_type ?? "A").toUpperCase();
  return dnsSteps(name.name, recordType, { name: spec.agent ?? "" });
}

/** The layers that a request passes, in order. */
export function stepsOf(spec: RequestSpec): Steps {
  const { url, dns, connect, direct, tool } = spec;
  const kinds = [url, dns, connect, direct, tool].filter((each) => each !== undefined);
  if (kinds.length !== 1) {
    return {
      ok: false,
      message: "a request needs exactly one of url, dns, connect, direct and tool",
    };
  }
  try {
    if (url !== undefined) return { ok: true, steps: urlSteps(url, spec) };
    if (dns !== undefined) return { ok: true, steps: lookupSteps(dns, spec) };
    if (connect !== undefined) {
      const { host, port } = hostAndPort(connect);
      return { ok: true, steps: tunnelSteps(host, port, spec) };
    }
    if (direct !== undefined) return { ok: true, steps: directSteps(direct, spec) };
    return { ok: true, steps: toolSteps(tool ?? "", spec) };
  } catch (thrown) {
    if (thrown instanceof BadRequest) return { ok: false, message: thrown.message };
    throw thrown;
  }
}
