/**
 * Which port of a managed bridge may speak as whom (decision D13).
 *
 * A port is pinned to the MAC and the IPv4 address that its other end had when it was first seen,
 * and keeps them until it is gone: whatever the agent does to its interface afterwards changes
 * nothing. Docker sets both before a container's process starts. A port without a pin is cut off,
 * so a look that comes late costs connectivity, never isolation.
 */
import { Cidr } from "../net/cidr.ts";
import { Ip } from "../net/ip.ts";
import type { Segment } from "./segment.ts";

/** What a port may send as. */
export interface Pin {
  /** Name of the port on the host, such as `veth1a2b3c4`. */
  readonly port: string;
  /** Kernel index of the port: a later port of the same name is another one. */
  readonly index: number;
  /** The managed bridge it was plugged into. */
  readonly bridge: string;
  /** Such as `02:42:0a:c8:00:02`. */
  readonly mac: string;
  /** IPv4, dotted decimal. */
  readonly address: string;
}

/** A port of a managed bridge, and what its other end looks like now. */
export interface PortView {
  readonly port: string;
  readonly index: number;
  /** Null on a bridge whose network is not known. */
  readonly segment: Segment | null;
  /** MAC of the bridge, which no agent may have. */
  readonly bridgeMac: string | null;
  /** Null while the other end cannot be seen: it is not in a namespace yet, or no veth. */
  readonly agent: { readonly mac: string | null; readonly addresses: readonly string[] } | null;
}

/** What became of a look at all ports. */
export interface Pins {
  readonly pins: readonly Pin[];
  /** Ports that claim what they may not have, with the reason. */
  readonly refused: readonly { readonly port: string; readonly reason: string }[];
}

/** A group address is nobody's own (IEEE 802.3, the lowest bit of the first byte). */
function isGroupMac(mac: string): boolean {
  return (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1;
}

/** The addresses among `addresses` that an agent on `segment` can have. */
function agentAddresses(segment: Segment, addresses: readonly string[]): string[] {
  const subnet = Cidr.parse(segment.subnet);
  return addresses.filter((text) => {
    const ip = Ip.parse(text);
    return ip !== null && subnet?.contains(ip) === true && ip.text !== segment.gateway;
  });
}

/** What an unpinned port asks to be pinned to; null while there is nothing to see yet. */
function claimOf(view: PortView): Pin | { reason: string } | null {
  const { port, index, segment, bridgeMac, agent } = view;
  if (segment === null || agent?.mac === null || agent === null) return null;
  const { mac } = agent;
  const [address, second] = agentAddresses(segment, agent.addresses);
  if (address === undefined) return null;
  if (second !== undefined) return { reason: `it has two addresses, ${address} and ${second}` };
  if (isGroupMac(mac) || mac === bridgeMac) return { reason: `its MAC ${mac} is not its own` };
  return { port, index, bridge: segment.bridge, mac, address };
}

/**
 * The pins after a look at all ports of managed bridges. Those of ports that are still there hold
 * whatever is seen now; among new claims to one address or MAC nobody wins (decision D5: two
 * claimants, both refused).
 * @param pins The pins so far whose ports are still there.
 */
export function pinPorts(pins: readonly Pin[], views: readonly PortView[]): Pins {
  const pinned = new Set(pins.map(({ port }) => port));
  const refused: { port: string; reason: string }[] = [];
  const claims: Pin[] = [];
  for (const view of views) {
    if (pinned.has(view.port)) continue;
    const claim = claimOf(view);
    if (claim === null) continue;
    if ("reason" in claim) refused.push({ port: view.port, reason: claim.reason });
    else claims.push(claim);
  }
  for (const claim of claims) {
    const rival = [...pins, ...claims].find((other) =>
      other !== claim && (other.mac === claim.mac || other.address === claim.address)
    );
    if (rival === undefined) continue;
    const what = rival.address === claim.address ? claim.address : claim.mac;
    refused.push({ port: claim.port, reason: `${what} is claimed by ${rival.port}, too` });
  }
  const refusedPorts = new Set(refused.map(({ port }) => port));
  return { pins: [...pins, ...claims.filter(({ port }) => !refusedPorts.has(port))], refused };
}
