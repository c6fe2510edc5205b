/**
 * What the kernel shall enforce, as data.
 *
 * Nothing here talks to the kernel. A drop in any base chain is final whatever other tables say, an
 * accept is not: this table can only take away, and it needs no order relative to Docker's chains.
 */
import { z } from "zod";
import { DIRECT_SETS } from "./direct.ts";
import { interfaceName, ipv4, ipv4Cidr, ipv4Subnet } from "./elements.ts";
import { type DropPrefix, reportAndDrop, reportedSet } from "./report.ts";
import type { Listening, Segment } from "./segment.ts";
import type { NftRule, NftTable, Part } from "./table.ts";

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

/**
 * Whom a service is open to: bridge, first and last address of the agents' network, and gateway.
 * By one of these two addresses alone a network could pass for one of another size.
 */
const CLIENTS = ["ifname", "ipv4_addr", "ipv4_addr", "ipv4_addr"] as const;

/** The clients of a service that listens at the gateways `listening`. */
function clientsOf(listening: readonly string[], segments: readonly Segment[]): Part[][] {
  return segments.filter(({ gateway }) => listening.includes(gateway))
    .map(({ bridge, subnet, gateway }) => {
      const { network, last } = ipv4Cidr(subnet);
      return [interfaceName(bridge), network.text, last.text, ipv4(gateway)];
    });
}

/** One of our services. */
interface Service {
  readonly name: string;
  /** Its protocol and port in the language of nft, with `dport` or `sport`. */
  readonly at: (end: "dport" | "sport") => string;
  /** The set of its clients. */
  readonly clients: string;
}

function servicesOf(state: FirewallState): Service[] {
  const dns = port(state.dnsPort);
  const services: Service[] = [
    // The first, because it is nearly every packet on a busy host.
    { name: "DNS over UDP", at: (end) => `udp ${end} ${dns}`, clients: "dns_clients" },
    { name: "DNS over TCP", at: (end) => `tcp ${end} ${dns}`, clients: "dns_clients" },
  ];
  if (state.proxyPort === null) return services;
  const proxy = port(state.proxyPort);
  return [
    ...services,
    { name: "proxy", at: (end) => `tcp ${end} ${proxy}`, clients: "proxy_clients" },
  ];
}

/**
 * Admits agents to our services. One look-up by hash for each packet, however many networks there
 * are: the kernel's look-up of an address in intervals costs twice as much. Hence a rule for each
 * size of network, and nearly always one size.
 */
function admissions(state: FirewallState): NftRule[] {
  const sizes = new Map(state.segments.map(({ subnet }) => {
    const cidr = ipv4Cidr(subnet);
    return [cidr.prefix, cidr];
  }));
  return [...sizes.values()].flatMap(({ prefix, mask, hostMask }) => {
    const sender = `iifname . (ip saddr & ${mask}) . (ip saddr | ${hostMask}) . ip daddr`;
    return servicesOf(state).map(({ name, at, clients }): NftRule => ({
      match: `${at("dport")} ${sender} @${clients}`,
      verdict: "accept",
      comment: `${name}, of agents in a /${prefix}`,
    }));
  });
}

/**
 * What is said to our services, and what they say, is not tracked: nothing here depends on it, each
 * query and connection would cost an entry made and deleted, and one agent that speaks from ever new
 * ports could fill the host's table with entries. Nor can a port that Docker publishes take over
 * one of ours, since without tracking there is no address translation.
 */
function untracked(state: FirewallState, end: "dport" | "sport"): NftRule[] {
  const gateway = end === "dport" ? "ip daddr @gateways" : "ip saddr @gateways";
  return servicesOf(state).map(({ name, at }): NftRule => ({
    match: `${at(end)} ${gateway}`,
    statements: "notrack",
    verdict: "accept",
    comment: name,
  }));
}

/** A grant's element, of a packet towards its destination and of one that comes from there. */
const TO_DESTINATION = "ip saddr . ip daddr . meta l4proto . th dport";
const FROM_DESTINATION = "ip daddr . ip saddr . meta l4proto . th sport";

// A packet that fits several rules that drop is counted by the first, so their order is the order of
// how much each one explains. Packets of connections under way come before new ones.
const FORWARD: readonly NftRule[] = [
  { match: "iifname @bridges", verdict: "goto forward_from_agents", comment: "from an agent" },
  { match: "oifname @bridges", verdict: "goto forward_to_agents", comment: "to an agent" },
  { match: "", verdict: "accept", comment: "neither side is managed" },
];

const FORWARD_FROM_AGENTS: readonly NftRule[] = [
  report("ipv6", "meta nfproto ipv6", "IPv6 from an agent to outside"),
  report("agent_to_agent", "oifname @bridges", "agent to agent"),
  {
    match: `ct state established ct direction original ${TO_DESTINATION} @${DIRECT_SETS.goOn}`,
    verdict: "accept",
    comment: "connection to what DNS answered",
  },
  {
    match: `ct state established ct direction original ${TO_DESTINATION} @granted`,
    verdict: "accept",
    comment: "connection of a grant",
  },
  report(
    "forward_denied",
    "meta l4proto tcp ct state new tcp flags & (fin | syn | rst | ack) != syn",
    "agent to outside in mid-connection",
  ),
  {
    match: `ct state new ${TO_DESTINATION} @${DIRECT_SETS.begin}`,
    statements: "counter",
    verdict: "accept",
    comment: "new connection to what DNS answered",
  },
  {
    match: `ct state new ${TO_DESTINATION} @grants`,
    statements: "counter",
    verdict: "accept",
    comment: "new connection by a grant",
  },
  report("forward_denied", "", "agent to outside"),
];

const FORWARD_TO_AGENTS: readonly NftRule[] = [
  report("ipv6", "meta nfproto ipv6", "IPv6 from outside to an agent"),
  {
    match: `ct state established ct direction reply ${FROM_DESTINATION} @${DIRECT_SETS.goOn}`,
    verdict: "accept",
    comment: "answer to a connection to what DNS answered",
  },
  {
    match: `ct state established ct direction reply ${FROM_DESTINATION} @granted`,
    verdict: "accept",
    comment: "answer to a connection of a grant",
  },
  {
    // Without it a connection hangs where a link on the way carries only smaller packets.
    match: "ct state related icmp type destination-unreachable",
    verdict: "accept",
    comment: "error about a connection of a grant",
  },
  report("outside_denied", "", "outside to agent"),
];

/** Behind the {@linkcode admissions}. */
const INPUT: readonly NftRule[] = [
  {
    match: "iifname @bridges",
    verdict: "goto input_from_agents",
    comment: "anything else from an agent",
  },
  report("outside_denied", 'ip daddr @gateways iifname != "lo"', "outside to gateway"),
];

const INPUT_FROM_AGENTS: readonly NftRule[] = [
  report("ipv6", "meta nfproto ipv6", "IPv6 from an agent"),
  report("spoofed", "iifname . ip saddr != @subnets", "agent with a foreign source address"),
  {
    match: "ct state established ct direction reply",
    verdict: "accept",
    comment: "agent answers the host",
  },
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

/** Before connection tracking, as nft's documentation calls this priority: `raw`. */
const BEFORE_TRACKING = -300;

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
 * address on the internet, so nothing is accepted without a look at the source. Gateways are matched
 * together with the bridge they belong to: a packet to another network's gateway, to another address
 * of the host, to a port that Docker publishes (its DNAT happens earlier, and what it sends elsewhere
 * ends in the forward chain), to 127.0.0.0/8 under `route_localnet`, or to a broadcast or multicast
 * address is no client's. A service is open only while our own listener holds its port: before and
 * after, another program of the host may hold it. Each packet of a connection that an agent opened
 * is admitted for itself, so closing a service cuts it at its next packet.
 *
 * @throws RangeError when a name, address or port is none.
 */
export function firewallTable(state: FirewallState): NftTable {
  const { listening, segments, proxyPort } = state;
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
        name: "dns_clients",
        type: CLIENTS,
        flags: [],
        comment: "networks that the DNS filter serves now, and its gateways",
        elements: clientsOf(listening.dns, segments),
      },
      {
        name: "proxy_clients",
        type: CLIENTS,
        flags: [],
        comment: "networks that the proxy serves now, and its gateways",
        elements: proxyPort === null ? [] : clientsOf(listening.proxy, segments),
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
    targets: [
      ...REPORTS,
      { name: "forward_from_agents", rules: FORWARD_FROM_AGENTS },
      { name: "forward_to_agents", rules: FORWARD_TO_AGENTS },
      { name: "input_from_agents", rules: INPUT_FROM_AGENTS },
    ],
    chains: [
      {
        name: "prerouting",
        type: "filter",
        hook: "prerouting",
        priority: BEFORE_TRACKING,
        policy: "accept",
        rules: untracked(state, "dport"),
      },
      {
        name: "forward",
        type: "filter",
        hook: "forward",
        priority: 0,
        policy: "drop",
        rules: FORWARD,
      },
      {
        name: "input",
        type: "filter",
        hook: "input",
        priority: 0,
        policy: "accept",
        rules: [...admissions(state), ...INPUT],
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
        name: "output",
        type: "filter",
        hook: "output",
        priority: BEFORE_TRACKING,
        policy: "accept",
        rules: [
          drop("meta nfproto ipv6 oifname @bridges", "IPv6 to an agent"),
          ...untracked(state, "sport"),
        ],
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
