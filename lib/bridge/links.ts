/**
 * Links of managed bridges: making them work, finding out what somebody has done to them, and removing
 * them. Whoever calls has covered them by the tables before.
 */
import { messageOf, OutcallError } from "../errors.ts";
import type { Link, RouteNetlink } from "../linux/rtnetlink.ts";
import { logger } from "../log.ts";
import { Cidr } from "../net/cidr.ts";
import { Ip } from "../net/ip.ts";
import type { Pin } from "./ports.ts";
import type { Segment } from "./segment.ts";

const log = logger("bridge");

/** Another kind of interface has the bridge's name. */
export function notABridge(link: Link): OutcallError {
  return new OutcallError(
    409,
    "bridge.not_a_bridge",
    `'${link.name}' exists, but it is a ${link.kind ?? "network interface"}, not a bridge`,
    { hint: "give --bridge another name, or remove that interface" },
  );
}

/** The bridge cannot go: these containers or ports are on it. */
export function inUse(names: readonly string[]): OutcallError {
  return new OutcallError(
    409,
    "bridge.in_use",
    `the bridge is in use by: ${names.join(", ")}`,
    { hint: "stop these containers or disconnect them from their managed network first" },
  );
}

/** Isolates a port (decision D13); whether it is isolated now. */
export function isolate(netlink: RouteNetlink, port: Link): boolean {
  if (port.isolated) return true;
  try {
    netlink.isolate(port);
    return true;
  } catch (error) {
    log.warn("port {port} stays cut off: {reason}", { port: port.name, reason: messageOf(error) });
    return false;
  }
}

/** What is wrong with bridges and ports that were in order before. */
export function linkProblems(
  netlink: RouteNetlink,
  bridges: readonly string[],
  segments: ReadonlyMap<string, Segment>,
  pins: readonly Pin[],
): string[] {
  const links = netlink.links();
  const addresses = netlink.addresses();
  const wrong: string[] = [];
  for (const name of bridges) {
    const link = links.find((candidate) => candidate.name === name);
    const gateway = segments.get(name)?.gateway;
    if (link === undefined) wrong.push(`bridge ${name} is gone`);
    else if (link.kind !== "bridge") wrong.push(`${name} is not a bridge`);
    else if (link.master !== null) wrong.push(`bridge ${name} is part of another device`);
    else if (!link.up) wrong.push(`bridge ${name} is down`);
    else if (
      gateway !== undefined &&
      !addresses.some(({ linkIndex, address }) => linkIndex === link.index && address === gateway)
    ) wrong.push(`bridge ${name} has lost its address`);
  }
  for (const pin of pins) {
    const link = links.find(({ index }) => index === pin.index);
    if (link === undefined) continue;
    if (link.master === null) wrong.push(`port ${pin.port} is unplugged`);
    else if (!link.isolated) wrong.push(`port ${pin.port} is not isolated`);
  }
  return wrong;
}

/** Puts agents' ports back that lost their bridge while it was made anew. */
export function plugIn(netlink: RouteNetlink, pins: readonly Pin[]): void {
  const links = netlink.links();
  for (const pin of pins) {
    const port = links.find(({ index }) => index === pin.index);
    const bridge = links.find(({ name }) => name === pin.bridge);
    if (port?.master !== null || bridge === undefined) continue;
    netlink.setMaster(port, bridge);
    netlink.isolate(port);
  }
}

/** Makes or adopts a covered bridge, and sets its address, if it has one, and its state. */
export function bringUp(netlink: RouteNetlink, name: string, segment: Segment | null): void {
  const link = createOrAdopt(netlink, name);
  disableIpv6(name);
  if (segment !== null) {
    keepMac(netlink, link, segment);
    addGateway(netlink, link, segment);
  }
  if (link.up) return;
  netlink.setUp(link);
  log.info("{name} is up", { name });
}

function createOrAdopt(netlink: RouteNetlink, name: string): Link {
  const existing = netlink.link(name);
  if (existing === null) {
    netlink.createBridge(name);
    log.info("created {name}", { name });
  } else {
    log.debug("adopted {name}, index {index}", { name, index: existing.index });
  }
  const link = existing ?? netlink.link(name);
  if (link === null) {
    throw new OutcallError(
      500,
      "bridge.operation",
      `bridge operation failed: create bridge ${name}: it vanished`,
      { hint: "look for another program that removes bridges" },
    );
  }
  if (link.kind !== "bridge") throw notABridge(link);
  if (link.master !== null) {
    // Packets would enter the firewall under the master's name (a VRF), or not at all.
    throw new OutcallError(
      409,
      "bridge.enslaved",
      `bridge '${name}' is itself part of another device, so its traffic cannot be filtered`,
      { hint: `ip link set ${name} nomaster` },
    );
  }
  return link;
}

/** Removes bridges that have no ports. @throws OutcallError `bridge.in_use` */
export function removeBridges(netlink: RouteNetlink, links: readonly Link[]): void {
  setDownUnused(netlink, links);
  for (const link of links) netlink.deleteLink(link);
}

/**
 * Sets bridges down that have no ports. Looks once more after that: a port that came in between
 * gets its bridge back.
 * @throws OutcallError `bridge.in_use` with the names of ports.
 */
export function setDownUnused(netlink: RouteNetlink, links: readonly Link[]): void {
  const refuseIfUsed = (): void => {
    const indexes = new Set(links.map((link) => link.index));
    const ports = netlink.links().filter((link) =>
      link.master !== null && indexes.has(link.master)
    );
    if (ports.length > 0) throw inUse(ports.map((port) => port.name));
  };
  refuseIfUsed();
  for (const link of links) netlink.setDown(link);
  try {
    refuseIfUsed();
  } catch (error) {
    for (const link of links) netlink.setUp(link);
    throw error;
  }
}

/**
 * A bridge takes the lowest MAC of its ports unless it has one of its own: with every container that
 * comes or goes, agents could lose their gateway for as long as they remember its MAC.
 */
function keepMac(netlink: RouteNetlink, link: Link, { gateway }: Segment): void {
  const isUsed = netlink.links().some(({ master }) => master === link.index);
  const mac = isUsed ? link.mac : gatewayMac(gateway);
  if (mac !== null) netlink.setMac(link, mac);
}

/** The same after every start and repair: locally administered, with the address in it. */
function gatewayMac(gateway: string): string {
  const bytes = [0x02, 0x4f, ...Ip.parse(gateway)?.bytes ?? []];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

function addGateway(netlink: RouteNetlink, link: Link, segment: Segment): void {
  const prefixLength = Cidr.parse(segment.subnet)?.prefix;
  if (prefixLength === undefined) throw new RangeError(`'${segment.subnet}' is not a subnet`);
  const present = netlink.addresses().some((address) =>
    address.linkIndex === link.index && address.address === segment.gateway &&
    address.prefixLength === prefixLength
  );
  if (!present) netlink.addAddress(link, segment.gateway, prefixLength);
}

/** Best effort: the firewall drops all IPv6 of agents whether or not this works (decision D27). */
function disableIpv6(bridge: string): void {
  const path = `/proc/sys/net/ipv6/conf/${bridge}/disable_ipv6`;
  try {
    if (Deno.readTextFileSync(path).trim() !== "1") Deno.writeTextFileSync(path, "1");
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return; // a kernel without IPv6
    log.warn("IPv6 stays enabled on {bridge} and is only dropped: {reason}", {
      bridge,
      reason: messageOf(error),
    });
  }
}
