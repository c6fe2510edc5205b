/** Which resolvers allowed questions go to: from `--dns-upstream` or from resolv.conf(5). */
import { OutcallError } from "../errors.ts";
import { Ip } from "../net/ip.ts";

const DNS_PORT = 53;

/** One upstream resolver. */
export interface Upstream {
  readonly ip: Ip;
  readonly port: number;
}

/** `IP:port`, with brackets around an IPv6 address. */
export function upstreamText({ ip, port }: Upstream): string {
  return ip.version === 4 ? `${ip.text}:${port}` : `[${ip.text}]:${port}`;
}

const BRACKETED = /^\[([^\]]*)\](?::(.*))?$/;

/** Reads `IP`, `IPv4:port`, `[IPv6]` or `[IPv6]:port`. */
function parseUpstream(text: string): Upstream | null {
  const bare = Ip.parse(text);
  if (bare !== null) return { ip: bare, port: DNS_PORT };
  const [, bracketed, bracketedPort] = BRACKETED.exec(text) ?? [];
  const colon = text.indexOf(":");
  const address = bracketed ?? text.slice(0, Math.max(colon, 0));
  const portText = bracketed === undefined ? text.slice(colon + 1) : bracketedPort;
  const ip = Ip.parse(address);
  if (ip === null || ip.version !== (bracketed === undefined ? 4 : 6)) return null;
  if (portText === undefined) return { ip, port: DNS_PORT };
  const port = Number(portText);
  return /^[0-9]{1,5}$/.test(portText) && port >= 1 && port <= 65_535 ? { ip, port } : null;
}

/**
 * Reads the value of `--dns-upstream`: a comma-separated list, asked in this order.
 * @throws OutcallError `dns.upstream_invalid` that names the entry which is wrong.
 */
export function parseUpstreams(text: string): readonly Upstream[] {
  return text.split(",").map((entry) => {
    const upstream = parseUpstream(entry.trim());
    if (upstream !== null) return upstream;
    throw new OutcallError(
      422,
      "dns.upstream_invalid",
      `--dns-upstream: ${JSON.stringify(entry.trim())} is not an upstream resolver`,
      { hint: "Give addresses as IP, IP:port or [IPv6]:port, separated by commas." },
    );
  });
}

/**
 * The `nameserver` lines of a resolv.conf file. Addresses with a zone (`fe80::1%eth0`) are passed
 * over. There is no built-in fallback: questions must not go to somebody the operator never named.
 * @throws OutcallError `dns.no_upstream` when there is none.
 */
export function upstreamsFromResolvConf(text: string): readonly Upstream[] {
  const upstreams: Upstream[] = [];
  for (const line of text.split("\n")) {
    const [keyword, address] = line.trim().split(/\s+/);
    const ip = keyword === "nameserver" && address !== undefined ? Ip.parse(address) : null;
    if (ip !== null) upstreams.push({ ip, port: DNS_PORT });
  }
  if (upstreams.length > 0) return upstreams;
  throw new OutcallError(
    422,
    "dns.no_upstream",
    "/etc/resolv.conf names no upstream resolver",
    { hint: "Name one with --dns-upstream, such as --dns-upstream 192.168.1.1." },
  );
}
