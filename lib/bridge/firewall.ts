/**
 * The firewall as text: what the kernel shall enforce, rendered from data.
 *
 * Nothing here talks to the kernel. The text is one nft transaction: the old table disappears and
 * the new one appears in the same instant, so no packet ever meets the host without it (decision
 * D2). A drop in any base chain is final whatever other tables say, an accept is not: this table
 * can only take away, and it needs no order relative to Docker's chains.
 */
import { z } from "zod";
import { Cidr } from "../net/cidr.ts";
import { Ip } from "../net/ip.ts";
import { isInterfaceName } from "./names.ts";
import type { Segment } from "./segment.ts";

/** The table's family and name, as in `nft list table inet outcall`. */
export const FIREWALL_TABLE = { family: "inet", name: "outcall" } as const;

/** Everything the firewall depends on. */
export interface FirewallState {
  /** `live`: agents reach their gateway's services. `closed`: they reach nothing (daemon away). */
  readonly mode: "live" | "closed";
  /** Managed networks. */
  readonly segments: readonly Segment[];
  /** Managed bridges without a known network: their agents reach nothing. */
  readonly extraBridges: readonly string[];
  /** The DNS filter's port on every gateway, UDP and TCP. */
  readonly dnsPort: number;
  /** The proxy's TCP port on every gateway; null: there is no proxy. */
  readonly proxyPort: number | null;
}

/** A quoted interface name. Nothing unchecked may become part of the text. */
function quoted(bridge: string): string {
  if (!isInterfaceName(bridge)) throw new RangeError(`'${bridge}' is not an interface name`);
  return `"${bridge}"`;
}

function ipv4(address: string): string {
  const ip = Ip.parse(address);
  if (ip?.version !== 4) throw new RangeError(`'${address}' is not an IPv4 address`);
  return ip.text;
}

function ipv4Subnet(subnet: string): string {
  const cidr = Cidr.parse(subnet);
  if (cidr?.network.version !== 4) throw new RangeError(`'${subnet}' is not an IPv4 subnet`);
  return cidr.toString();
}

function port(value: number): string {
  if (!Number.isInteger(value) || value < 1 || value > 65535) {
    throw new RangeError(`${value} is not a port`);
  }
  return String(value);
}

/** Every covered bridge, each once. */
function bridgesOf(state: FirewallState): string[] {
  return [...new Set([...state.segments.map((s) => s.bridge), ...state.extraBridges])].sort();
}

/** What an agent may talk to on its own gateway. */
function servicesOf(state: FirewallState): string[] {
  if (state.mode === "closed") return [];
  return state.segments.flatMap((segment) => {
    const gateway = `${quoted(segment.bridge)} . ${ipv4(segment.gateway)}`;
    const dns = port(state.dnsPort);
    const services = [`${gateway} . udp . ${dns}`, `${gateway} . tcp . ${dns}`];
    if (state.proxyPort !== null) services.push(`${gateway} . tcp . ${port(state.proxyPort)}`);
    return services;
  });
}

/** One set; nft refuses an empty list of elements. */
function renderSet(
  name: string,
  type: string,
  comment: string,
  elements: readonly string[],
  flags?: string,
): string {
  const lines = [`  set ${name} {`, `    type ${type}`];
  if (flags !== undefined) lines.push(`    flags ${flags}`);
  lines.push(`    comment "${comment}"`);
  if (elements.length > 0) lines.push(`    elements = {`, indent(elements), `    }`);
  return [...lines, "  }"].join("\n");
}

function indent(elements: readonly string[]): string {
  return elements.map((element) => `      ${element}`).join(",\n");
}

// A packet that fits several rules is counted by the first, so the order of the drops is the order
// of how much each one explains.
const CHAINS = `\
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname != @bridges oifname != @bridges accept comment "neither side is managed"
    meta nfproto ipv6 counter drop comment "IPv6 from or to an agent"
    iifname @bridges oifname @bridges counter drop comment "agent to agent"
    iifname @bridges counter drop comment "agent to outside"
    oifname @bridges counter drop comment "outside to agent"
  }

  chain input_from_agents {
    type filter hook input priority filter; policy accept;
    iifname != @bridges iifname != "lo" ip daddr @gateways counter drop comment "outside to gateway"
    iifname != @bridges accept comment "not from an agent"
    meta nfproto ipv6 counter drop comment "IPv6 from an agent"
    iifname . ip saddr != @subnets counter drop comment "agent with a foreign source address"
    ct state invalid counter drop comment "agent outside any connection"
    ct state established ct direction reply accept comment "agent answers the host"
    iifname . ip daddr . meta l4proto . th dport @services accept comment "agent to its gateway"
    counter drop comment "agent to host"
  }

  chain output_ipv6_block {
    type filter hook output priority filter; policy accept;
    oifname @bridges meta nfproto ipv6 counter drop comment "IPv6 to an agent"
  }`;

/**
 * One nft transaction that replaces the whole table.
 *
 * Why the input chain is as it is: an agent that writes a foreign source address could inject into
 * the host's connections elsewhere, or make the DNS filter send an answer of its choosing to any
 * address on the internet, so sources are checked before anything is accepted. Gateways are
 * matched together with the bridge they belong to: a packet to another network's gateway, to
 * another address of the host, to a port that Docker publishes (its DNAT happens earlier, and what
 * it sends elsewhere ends in the forward chain), to 127.0.0.0/8 under `route_localnet`, or to a
 * broadcast or multicast address matches no service. A connection that an agent opened is never
 * accepted for being established, so closing the services cuts it at its next packet.
 *
 * @throws RangeError when a name, address or port is none.
 */
export function renderFirewall(state: FirewallState): string {
  const { family, name } = FIREWALL_TABLE;
  const { segments } = state;
  const sets = [
    renderSet("bridges", "ifname", "managed bridges", bridgesOf(state).map(quoted)),
    renderSet(
      "subnets",
      "ifname . ipv4_addr",
      "source addresses of each bridge's agents",
      segments.map((segment) => `${quoted(segment.bridge)} . ${ipv4Subnet(segment.subnet)}`),
      "interval",
    ),
    renderSet(
      "gateways",
      "ipv4_addr",
      "gateway of each managed network",
      [...new Set(segments.map((segment) => ipv4(segment.gateway)))],
    ),
    renderSet(
      "services",
      "ifname . ipv4_addr . inet_proto . inet_service",
      state.mode === "live" ? "DNS filter and proxy" : "none: the daemon is away",
      servicesOf(state),
    ),
  ];
  return `\
table ${family} ${name}
delete table ${family} ${name}
table ${family} ${name} {
${sets.join("\n\n")}

${CHAINS}
}
`;
}

const bridgesSet = z.object({
  set: z.object({ name: z.literal("bridges"), elem: z.array(z.string()).default([]) }),
});

/**
 * The bridges that a listing of the table covers.
 * @param listing Objects as `listTable` of lib/linux/nft.ts returns them.
 */
export function coveredBridges(listing: readonly unknown[]): string[] {
  return listing.flatMap((object) => bridgesSet.safeParse(object).data?.set.elem ?? []);
}
