/**
 * What the kernel shall enforce, as data.
 *
 * Nothing here talks to the kernel. A drop in any base chain is final whatever other tables say, an
 * accept is not: this table can only take away, and it needs no order relative to Docker's chains.
 */
import { z } from "zod";
import { DIRECT_SETS } from "./direct.ts";
import { interfaceName, ipv4, ipv4Subnet } from "./elements.ts";
import { type DropPrefix, reportAndDrop, reportedSet } from "./report.ts";
import type { Listening, Segment } from "./segment.ts";
import type { NftChain, NftRule, NftTable, Part } from "./table.ts";

/** The table's family and name, as in `nft list table inet outcall`. */
export const FIREWALL_TABLE = { family: "inet", name: "outcall" } as const;

/** Agent, destination, protocol and port of a grant (decision D12). */
const GRANT = ["ipv4_addr", "ipv4_addr", "inet_proto", "inet_service"] as const;

/** Everything the firewall depends on. */
export interface FirewallState {
  /** Where our own services listen: all that agents reach. */
  readonly listening: Listening;
  /** Managed networks. */
  readonly segments: readonly Segment[];
  /** Managed bridges without a known network: their agents reach nothing. */
  readonly extraBridges: readonly string[];
  /** Elements of the set `granted`: see lib/bridge/grants.ts. */
  readonly granted: readonly (readonly Part[])[];
  /** The DNS filter's port on every gateway, UDP and TCP. */
  readonly dnsPort: number;
  /** The proxy's TCP port on every gateway; null: there is no proxy. */
  readonly proxyPort: number | null;
}

function port(value: number): number {
  if (!Number.isInteger(value) || value < 1 || value > 65535) {
    throw new RangeError(`${value} is not a port`);
  }
  return value;
}

/** Every covered bridge, each once. */
function bridgesOf(state: FirewallState): string[] {
  return [...new Set([...state.segments.map((s) => s.bridge), ...state.extraBridges])].sort();
}

/** What an agent may talk to on its own gateway. */
function servicesOf(state: FirewallState): Part[][] {
  const { listening, segments } = state;
  const dns = port(state.dnsPort);
  const proxy = state.proxyPort === null ? null : port(state.proxyPort);
  return segments.flatMap(({ bridge, gateway }) => {
    const services: Part[][] = [];
    const at = [interfaceName(bridge), ipv4(gateway)];
    if (listening.dns.includes(gateway)) services.push([...at, "udp", dns], [...at, "tcp", dns]);
    if (proxy !== null && listening.proxy.includes(gateway)) services.push([...at, "tcp", proxy]);
    return services;
  });
}

/** A grant's element, of a packet towards its destination and of one that comes from there. */
const TO_DESTINATION = "ip saddr . ip daddr . meta l4proto . th dport";
const FROM_DESTINATION = "ip daddr . ip saddr . meta l4proto . th sport";

// A packet that fits several rules is counted by the first, so the order of the drops is the order
// of how much each one explains.
const FORWARD: readonly NftRule[] = [
  {
    match: "iifname != @bridges oifname != @bridges",
    verdict: "accept",
    comment: "neither side is managed",
  },
  report("ipv6", "meta nfproto ipv6", "IPv6 from or to an agent"),
  report("agent_to_agent", "iifname @bridges oifname @bridges", "agent to agent"),
  report(
    "forward_denied",
    "iifname @bridges meta l4proto tcp ct state new tcp flags & (fin | syn | rst | ack) != syn",
    "agent to outside in mid-connection",
  ),
  {
    match: `iifname @bridges ct state new ${TO_DESTINATION} @grants`,
    statements: "counter",
    verdict: "accept",
    comment: "new connection by a grant",
  },
  {
    match: `iifname @bridges ct state established ct direction original ${TO_DESTINATION} @granted`,
    verdict: "accept",
    comment: "connection of a grant",
  },
  {
    match: `oifname @bridges ct state established ct direction reply ${FROM_DESTINATION} @granted`,
    verdict: "accept",
    comment: "answer to a connection of a grant",
  },
  {
    match: `iifname @bridges ct state new ${TO_DESTINATION} @${DIRECT_SETS.begin}`,
    statements: "counter",
    verdict: "accept",
    comment: "new connection to what DNS answered",
  },
  {
    match: `iifname @bridges ct state established ct direction original ${TO_DESTINATION} ` +
      `@${DIRECT_SETS.goOn}`,
    verdict: "accept",
    comment: "connection to what DNS answered",
  },
  {
    match: `oifname @bridges ct state established ct direction reply ${FROM_DESTINATION} ` +
      `@${DIRECT_SETS.goOn}`,
    verdict: "accept",
    comment: "answer to a connection to what DNS answered",
  },
  {
    // Without it a connection hangs where a link on the way carries only smaller packets.
    match: "oifname @bridges ct state related icmp type destination-unreachable",
    verdict: "accept",
    comment: "error about a connection of a grant",
  },
  report("forward_denied", "iifname @bridges", "agent to outside"),
  report("outside_denied", "oifname @bridges", "outside to agent"),
];

const TO_SERVICE = "iifname . ip daddr . meta l4proto . th dport @services";

const INPUT_FROM_AGENTS: readonly NftRule[] = [
  // First, because it is nearly every packet on a busy host; it asks for no less than those below.
  {
    match: `ct state untracked iifname . ip saddr @subnets ${TO_SERVICE}`,
    verdict: "accept",
    comment: "DNS query of an agent",
  },
  report(
    "outside_denied",
    'iifname != @bridges iifname != "lo" ip daddr @gateways',
    "outside to gateway",
  ),
  { match: "iifname != @bridges", verdict: "accept", comment: "not from an agent" },
  report("ipv6", "meta nfproto ipv6", "IPv6 from an agent"),
  report("spoofed", "iifname . ip saddr != @subnets", "agent with a foreign source address"),
  // Not reported: the last packets of connections that were cut are nobody's attempt.
  drop(`ct state invalid ${TO_SERVICE}`, "agent to its gateway outside any connection"),
  {
    match: "ct state established ct direction reply",
    verdict: "accept",
    comment: "agent answers the host",
  },
  { match: TO_SERVICE, verdict: "accept", comment: "agent to its gateway" },
  report("input_denied", "", "agent to host"),
];

const MASQUERADE: readonly NftRule[] = [
  {
    match: `oifname != @bridges ${TO_DESTINATION} @granted`,
    verdict: "masquerade",
    comment: "agents with a grant appear as the host",
  },
  {
    match: `oifname != @bridges ${TO_DESTINATION} @${DIRECT_SETS.goOn}`,
    verdict: "masquerade",
    comment: "agents that connect to what DNS answered appear as the host",
  },
];

const OUTPUT: readonly NftRule[] = [
  drop("meta nfproto ipv6 oifname @bridges", "IPv6 to an agent"),
];

/** Before connection tracking, as nft's documentation calls this priority: `raw`. */
const BEFORE_TRACKING = -300;

/**
 * DNS by UDP is not tracked: nothing here depends on it, every query would cost an entry made and
 * deleted, and one agent that asks from ever new ports could fill the host's table with entries.
 * What leaves a gateway otherwise, or comes to it, is tracked as ever.
 */
function untracked(name: string, hook: "prerouting" | "output", match: string): NftChain {
  const rules = [{ match, verdict: "notrack", comment: "DNS by UDP" } as const];
  return { name, type: "filter", hook, priority: BEFORE_TRACKING, policy: "accept", rules };
}

/** By the bridge and the address, which is as pinned: the `bridge` table has seen to that. */
const AGENT = "iifname . ip saddr";

const REPORTS = [
  reportAndDrop("forward_denied", AGENT),
  reportAndDrop("agent_to_agent", AGENT),
  reportAndDrop("input_denied", AGENT),
  reportAndDrop("spoofed", null),
  reportAndDrop("ipv6", null),
  reportAndDrop("outside_denied", null),
];

function drop(match: string, comment: string): NftRule {
  return { match, statements: "counter", verdict: "drop", comment };
}

function report(prefix: DropPrefix, match: string, comment: string): NftRule {
  return { match, statements: "counter", verdict: `goto ${prefix}`, comment };
}

/**
 * The whole table.
 *
 * Why the input chain is as it is: an agent that writes a foreign source address could inject into
 * the host's connections elsewhere, or make the DNS filter send an answer of its choosing to any
 * address on the internet, so sources are checked before anything is accepted. Gateways are
 * matched together with the bridge they belong to: a packet to another network's gateway, to
 * another address of the host, to a port that Docker publishes (its DNAT happens earlier, and what
 * it sends elsewhere ends in the forward chain), to 127.0.0.0/8 under `route_localnet`, or to a
 * broadcast or multicast address matches no service. A service is open only while our own listener
 * holds its port: before and after, another program of the host may hold it. A connection that an
 * agent opened is never accepted for being established, so closing a service cuts it at its next
 * packet.
 *
 * @throws RangeError when a name, address or port is none.
 */
export function firewallTable(state: FirewallState): NftTable {
  const { segments, dnsPort } = state;
  return {
    ...FIREWALL_TABLE,
    sets: [
      {
        name: "bridges",
        type: ["ifname"],
        flags: [],
        comment: "managed bridges",
        elements: bridgesOf(state).map((bridge) => [interfaceName(bridge)]),
      },
      {
        name: "subnets",
        type: ["ifname", "ipv4_addr"],
        flags: ["interval"],
        comment: "source addresses of each bridge's agents",
        elements: segments.map(({ bridge, subnet }) => [interfaceName(bridge), ipv4Subnet(subnet)]),
      },
      {
        name: "gateways",
        type: ["ipv4_addr"],
        flags: [],
        comment: "gateway of each managed network",
        elements: [...new Set(segments.map(({ gateway }) => ipv4(gateway)))].map((ip) => [ip]),
      },
      {
        name: "services",
        type: ["ifname", "ipv4_addr", "inet_proto", "inet_service"],
        flags: [],
        comment: "DNS filter and proxy, where they listen now",
        elements: servicesOf(state),
      },
      {
        name: "grants",
        type: [...GRANT],
        flags: ["interval", "timeout"],
        comment: "who may open a connection to where now",
        elements: null,
      },
      {
        name: "granted",
        type: [...GRANT],
        flags: ["interval"],
        comment: "whose connections to where may go on",
        elements: state.granted,
      },
      {
        name: DIRECT_SETS.begin,
        type: [...GRANT],
        flags: ["timeout"],
        comment: "who may open a connection to what DNS answered",
        elements: null,
      },
      {
        name: DIRECT_SETS.goOn,
        type: [...GRANT],
        // Its elements have none; the flag says that they come and go between two looks at the table.
        flags: ["timeout"],
        comment: "whose connections to what DNS answered may go on",
        elements: null,
      },
      reportedSet(["ifname", "ipv4_addr"]),
    ],
    targets: REPORTS,
    chains: [
      untracked("untracked_queries", "prerouting", `ip daddr @gateways udp dport ${port(dnsPort)}`),
      untracked("untracked_answers", "output", `ip saddr @gateways udp sport ${port(dnsPort)}`),
      {
        name: "forward",
        type: "filter",
        hook: "forward",
        priority: 0,
        policy: "drop",
        rules: FORWARD,
      },
      {
        name: "input_from_agents",
        type: "filter",
        hook: "input",
        priority: 0,
        policy: "accept",
        rules: INPUT_FROM_AGENTS,
      },
      {
        name: "masquerade_grants",
        type: "nat",
        hook: "postrouting",
        priority: 100,
        policy: "accept",
        rules: MASQUERADE,
      },
      {
        name: "output_ipv6_block",
        type: "filter",
        hook: "output",
        priority: 0,
        policy: "accept",
        rules: OUTPUT,
      },
    ],
  };
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
