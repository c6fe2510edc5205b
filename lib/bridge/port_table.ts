/**
 * Port pinning in the `bridge` family, as data (decision D13); no `br_netfilter` is needed, and the
 * cost is one set look-up however many agents there are.
 *
 * A port that is not known yet must not speak either, but this family cannot match the bridge that
 * a port belongs to on every kernel (NFT_BRIDGE_META). So an address of a managed network is refused
 * at every port of the host that it is not pinned to; a source outside these networks is refused by
 * the input and forward chains of the `inet` table, which do know the bridge.
 */
import { z } from "zod";
import { interfaceName, ipv4, ipv4Subnet } from "./elements.ts";
import type { Pin } from "./ports.ts";
import { type DropPrefix, reportAndDrop, reportedSet, reportRule } from "./report.ts";
import type { NftTable } from "./table.ts";

/** The table's family and name, as in `nft list table bridge outcall`. */
export const PORT_TABLE = { family: "bridge", name: "outcall" } as const;

/** Before ebtables' and everybody else's chains: nothing may learn from a forged frame. */
const PRIORITY = -300;

/** A pin as the table holds it. */
export type ListedPin = Pick<Pin, "port" | "mac" | "address">;

/** Everything port pinning depends on. */
export interface PortState {
  /** Every port of a managed bridge. */
  readonly ports: readonly string[];
  readonly pins: readonly ListedPin[];
  /** The managed networks' subnets, in CIDR form. */
  readonly subnets: readonly string[];
  /** Their gateways. */
  readonly gateways: readonly string[];
}

function mac(text: string): string {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(text)) throw new RangeError(`'${text}' is no MAC`);
  return text;
}

const ARP_AS_PINNED = "iifname . ether saddr . arp saddr ip @pinned " +
  "iifname . arp saddr ether . arp saddr ip @pinned";

type Rule = NftTable["chains"][number]["rules"][number];

function report(prefix: DropPrefix, match: string, comment: string): Rule {
  return { match, statements: "counter", verdict: `goto ${prefix}`, comment };
}

const REPORTS = [
  reportAndDrop("not_as_pinned", "iifname"),
  reportAndDrop("foreign_port", "iifname"),
  reportAndDrop("agent_to_agent", "iifname"),
];

/**
 * The whole table. Frames that are neither IPv4 nor ARP as pinned (IPv6, VLAN tags, foreign
 * ethertypes) match no accepting rule (decision D27).
 * @throws RangeError when a name, MAC or address is none.
 */
export function portTable({ ports, pins, subnets, gateways }: PortState): NftTable {
  return {
    ...PORT_TABLE,
    sets: [
      {
        name: "ports",
        type: ["ifname"],
        flags: [],
        comment: "ports of managed bridges",
        elements: ports.map((port) => [interfaceName(port)]),
      },
      {
        name: "pinned",
        type: ["ifname", "ether_addr", "ipv4_addr"],
        flags: [],
        comment: "the one MAC and address of each agent's port",
        elements: pins.map((pin) => [interfaceName(pin.port), mac(pin.mac), ipv4(pin.address)]),
      },
      {
        name: "macs",
        type: ["ether_addr"],
        flags: [],
        comment: "MACs that are pinned",
        elements: pins.map((pin) => [mac(pin.mac)]),
      },
      {
        name: "subnets",
        type: ["ipv4_addr"],
        flags: ["interval"],
        comment: "managed networks",
        elements: subnets.map((subnet) => [ipv4Subnet(subnet)]),
      },
      {
        name: "gateways",
        type: ["ipv4_addr"],
        flags: [],
        comment: "all that agents look for",
        elements: gateways.map((gateway) => [ipv4(gateway)]),
      },
      reportedSet(["ifname"]),
    ],
    targets: REPORTS,
    chains: [
      {
        name: "prerouting",
        type: "filter",
        hook: "prerouting",
        priority: PRIORITY,
        policy: "accept",
        rules: [
          {
            // The frame's own type, unlike the protocol, is not IPv4 behind a VLAN tag (D13).
            match: "ether type ip iifname . ether saddr . ip saddr @pinned",
            verdict: "accept",
            comment: "IPv4 as pinned",
          },
          // No packet follows, because isolated ports do not hear the question: this is all that is
          // ever seen of an attempt to reach another agent of the same network.
          reportRule(
            "neighbour",
            "iifname",
            `arp operation request ${ARP_AS_PINNED} arp daddr ip @subnets arp daddr ip != @gateways`,
            "agent looks for a neighbour",
          ),
          { match: ARP_AS_PINNED, verdict: "accept", comment: "ARP as pinned" },
          report("not_as_pinned", "iifname @ports", "not as pinned"),
          report(
            "foreign_port",
            "meta protocol ip ip saddr @subnets",
            "agent address at another port",
          ),
          report(
            "foreign_port",
            "meta protocol arp arp saddr ip @subnets",
            "ARP for an agent address at another port",
          ),
          // The host takes off any number of priority tags (VLAN 0), one before this chain and the
          // others behind it, so an address may come in behind them. No honest frame has two.
          report(
            "foreign_port",
            "meta protocol { 8021q, 8021ad } @nh,4,12 0",
            "priority tag behind another tag",
          ),
          report("foreign_port", "ether saddr @macs", "agent MAC at another port"),
        ],
      },
      {
        name: "forward",
        type: "filter",
        hook: "forward",
        priority: PRIORITY,
        policy: "accept",
        rules: [
          report("agent_to_agent", "iifname @ports", "agent to another port"),
          report("foreign_port", "oifname @ports", "another port to agent"),
        ],
      },
      {
        // A bridge sends what the host has for a MAC that it does not know, or has forgotten, to every
        // port, isolated or not: the answers to an agent that has just ended, to its neighbours. And a
        // port that has just been plugged in may have taught it a MAC.
        name: "output",
        type: "filter",
        hook: "output",
        priority: PRIORITY,
        policy: "accept",
        rules: [
          {
            match: "oifname . ether daddr . ip daddr @pinned",
            verdict: "accept",
            comment: "IPv4 to whom the port is pinned",
          },
          {
            // Not counted: no agent sent it, and there is one for each port that it would flood.
            match: "ip daddr @subnets",
            verdict: "drop",
            comment: "to an agent by another port",
          },
        ],
      },
    ],
  };
}

const pinnedSet = z.object({
  set: z.object({
    name: z.literal("pinned"),
    elem: z.array(z.object({ concat: z.tuple([z.string(), z.string(), z.string()]) })).default([]),
  }),
});

/**
 * The pins that a listing of the table holds.
 * @param listing Objects as `listTable` of lib/linux/nft.ts returns them.
 */
export function listedPins(listing: readonly unknown[]): ListedPin[] {
  return listing.flatMap((object) =>
    pinnedSet.safeParse(object).data?.set.elem.map(({ concat: [port, mac, address] }) => ({
      port,
      mac,
      address,
    })) ?? []
  );
}
