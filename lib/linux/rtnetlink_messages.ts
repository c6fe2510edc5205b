/**
 * Messages of rtnetlink (rtnetlink(7)) about links, addresses and routes: what is asked of the kernel,
 * and what it tells.
 */
import { Ip } from "../net/ip.ts";
import {
  attribute,
  concat,
  cString,
  nested,
  NetlinkFormatError,
  type NetlinkMessage,
  NLM_F_CREATE,
  NLM_F_EXCL,
  parseAttributes,
  readCString,
  readU32,
  u32,
} from "./netlink.ts";
import { AF_INET } from "./sockets.ts";

// include/uapi/linux/rtnetlink.h
const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const RTM_SETLINK = 19;
const RTM_NEWADDR = 20;
const RTM_GETADDR = 22;
const RTM_NEWROUTE = 24;
const RTM_GETROUTE = 26;
const RTM_NEWNSID = 88;
const RTM_GETNSID = 90;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RT_TABLE_MAIN = 254;
const RTPROT_BOOT = 3;
const RTN_UNICAST = 1;
/** Addresses of this host and their broadcasts: what the kernel adds by itself. */
export const RT_TABLE_LOCAL = 255;

// include/uapi/linux/if_link.h, if_addr.h, if.h
const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_LINK_NETNSID = 37;
const IFLA_TARGET_NETNSID = 46;
const IFLA_NET_NS_PID = 19;
const IFLA_IFALIAS = 20;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_INFO_SLAVE_DATA = 5;
const IFLA_BRPORT_ISOLATED = 33;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_TARGET_NETNSID = 10;
const IFF_UP = 1;

// include/uapi/linux/net_namespace.h
const NETNSA_NSID = 1;
const NETNSA_PID = 2;
const NETNSA_NSID_NOT_ASSIGNED = 0xffff_ffff;
/** struct rtgenmsg: family u8, and padding up to the attributes. */
const RTGENMSG_BYTES = 4;

/** struct ifinfomsg: family u8, pad u8, type u16, index i32, flags u32, change mask u32. */
const IFINFOMSG_BYTES = 16;
/** struct ifaddrmsg: family u8, prefix length u8, flags u8, scope u8, index u32. */
const IFADDRMSG_BYTES = 8;
/** struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type: u8 each; flags u32. */
const RTMSG_BYTES = 12;

const ETHERNET_ADDRESS_BYTES = 6;

/** A network interface. */
export interface Link {
  /** Unique while the link exists. */
  readonly index: number;
  readonly name: string;
  /** What made it, such as `bridge` or `veth`; null for hardware and loopback. */
  readonly kind: string | null;
  /** Administratively up (IFF_UP). */
  readonly up: boolean;
  /** Bytes. */
  readonly mtu: number;
  /** Index of the bridge (or other device) it is a port of. */
  readonly master: number | null;
  /** Text that root gave it (IFLA_IFALIAS); empty without one. */
  readonly alias: string;
  /** Hardware address, such as `02:42:0a:c8:00:02`; null when it is not an Ethernet one. */
  readonly mac: string | null;
  /** The other end of a veth pair in another network namespace. */
  readonly peer: PeerLink | null;
  /** As a port of a bridge: it exchanges no frames with other isolated ports. */
  readonly isolated: boolean;
}

/** A link in another network namespace. */
export interface PeerLink {
  /** The namespace, by the number it has in ours. */
  readonly namespaceId: number;
  /** Unique in that namespace. */
  readonly index: number;
}

/** An IPv4 address on a link. */
export interface LinkAddress {
  readonly linkIndex: number;
  /** Dotted decimal. */
  readonly address: string;
  readonly prefixLength: number;
}

/** An IPv4 route of any table but `local`. */
export interface Route {
  /** CIDR form; `0.0.0.0/0` is the default route. */
  readonly destination: string;
  /** Name of the link packets leave by; null for unreachable, blackhole and multipath routes. */
  readonly link: string | null;
}

function linkHeader(index: number, flags: number, change: number): Uint8Array {
  return concat(u32(0), u32(index), u32(flags), u32(change));
}

function requireBytes(message: NetlinkMessage, bytes: number): Uint8Array {
  if (message.body.length < bytes) {
    throw new NetlinkFormatError(`a message of type ${message.type} needs ${bytes} bytes`);
  }
  return message.body;
}

/**
 * Reads an RTM_NEWLINK message.
 * @throws NetlinkFormatError when it is cut short, has impossible lengths or no name.
 */
export function parseLink(message: NetlinkMessage): Link {
  const body = requireBytes(message, IFINFOMSG_BYTES);
  const attributes = parseAttributes(body.subarray(IFINFOMSG_BYTES));
  const name = attributes.get(IFLA_IFNAME);
  if (name === undefined) throw new NetlinkFormatError("a link without a name");
  const info = attributes.get(IFLA_LINKINFO);
  const kind = info === undefined ? undefined : parseAttributes(info).get(IFLA_INFO_KIND);
  const slaveData = info === undefined
    ? undefined
    : parseAttributes(info).get(IFLA_INFO_SLAVE_DATA);
  const isolated = slaveData === undefined
    ? undefined
    : parseAttributes(slaveData).get(IFLA_BRPORT_ISOLATED);
  const mac = attributes.get(IFLA_ADDRESS);
  const peerIndex = attributes.get(IFLA_LINK);
  const peerNamespace = attributes.get(IFLA_LINK_NETNSID);
  const mtu = attributes.get(IFLA_MTU);
  const master = attributes.get(IFLA_MASTER);
  const alias = attributes.get(IFLA_IFALIAS);
  return {
    index: readU32(body, 4),
    name: readCString(name),
    kind: kind === undefined ? null : readCString(kind),
    up: (readU32(body, 8) & IFF_UP) !== 0,
    mtu: mtu === undefined ? 0 : readU32(mtu),
    master: master === undefined ? null : readU32(master),
    alias: alias === undefined ? "" : readCString(alias),
    mac: mac?.length === ETHERNET_ADDRESS_BYTES ? macText(mac) : null,
    peer: peerIndex === undefined || peerNamespace === undefined
      ? null
      : { index: readU32(peerIndex), namespaceId: readU32(peerNamespace) },
    isolated: isolated?.[0] === 1,
  };
}

function macText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

function ipv4Text(bytes: Uint8Array): string {
  if (bytes.length !== 4) throw new NetlinkFormatError(`${bytes.length} bytes are no IPv4 address`);
  return Ip.fromBytes(bytes).text;
}

/**
 * Reads an RTM_NEWADDR message of family AF_INET; null when it carries no local address.
 * @throws NetlinkFormatError when it is cut short or has impossible lengths.
 */
export function parseAddress(message: NetlinkMessage): LinkAddress | null {
  const body = requireBytes(message, IFADDRMSG_BYTES);
  const local = parseAttributes(body.subarray(IFADDRMSG_BYTES)).get(IFA_LOCAL);
  if (body[0] !== AF_INET || local === undefined) return null;
  return { linkIndex: readU32(body, 4), address: ipv4Text(local), prefixLength: body[1] ?? 0 };
}

/** An RTM_NEWROUTE message, with the outgoing link still a number. */
export interface RawRoute {
  readonly destination: string;
  readonly linkIndex: number | null;
  readonly table: number;
}

/**
 * Reads an RTM_NEWROUTE message of family AF_INET.
 * @throws NetlinkFormatError when it is cut short or has impossible lengths.
 */
export function parseRoute(message: NetlinkMessage): RawRoute {
  const body = requireBytes(message, RTMSG_BYTES);
  const attributes = parseAttributes(body.subarray(RTMSG_BYTES));
  const destination = attributes.get(RTA_DST);
  const linkIndex = attributes.get(RTA_OIF);
  return {
    destination: `${destination === undefined ? "0.0.0.0" : ipv4Text(destination)}/${body[1] ?? 0}`,
    linkIndex: linkIndex === undefined ? null : readU32(linkIndex),
    table: body[4] ?? 0,
  };
}

/** A request to the kernel. */
export interface RouteRequest {
  /** Such as RTM_NEWLINK. */
  readonly type: number;
  /** Beside what every request has. */
  readonly flags: number;
  readonly body: Uint8Array;
}

/** A list to ask for. */
export interface RouteDump {
  readonly type: number;
  readonly body: Uint8Array;
  /** Type of the messages that it consists of. */
  readonly answerType: number;
}

/** What changes a link that exists. */
function change(link: Link, ...attributes: readonly Uint8Array[]): RouteRequest {
  const body = concat(linkHeader(link.index, 0, 0), ...attributes);
  return { type: RTM_SETLINK, flags: 0, body };
}

/** What makes a link that does not exist yet. */
function create(...attributes: readonly Uint8Array[]): RouteRequest {
  const body = concat(linkHeader(0, 0, 0), ...attributes);
  return { type: RTM_NEWLINK, flags: NLM_F_CREATE | NLM_F_EXCL, body };
}

/** Creates a bridge, down and without addresses. */
export function bridgeCreation(name: string): RouteRequest {
  return create(
    attribute(IFLA_IFNAME, cString(name)),
    nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, cString("bridge"))),
  );
}

/** Creates a veth pair, both ends down, the other one in the network namespace of a process. */
export function vethCreation(
  name: string,
  peer: { readonly name: string; readonly pid: number },
): RouteRequest {
  const other = concat(
    linkHeader(0, 0, 0),
    attribute(IFLA_IFNAME, cString(peer.name)),
    attribute(IFLA_NET_NS_PID, u32(peer.pid)),
  );
  return create(
    attribute(IFLA_IFNAME, cString(name)),
    nested(
      IFLA_LINKINFO,
      attribute(IFLA_INFO_KIND, cString("veth")),
      nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, other)),
    ),
  );
}

/** Gives a link its alias. */
export function aliasChange(link: Link, alias: string): RouteRequest {
  return change(link, attribute(IFLA_IFALIAS, cString(alias)));
}

/** Gives a link a MAC, such as `02:42:0a:c8:00:02`. */
export function macChange(link: Link, mac: string): RouteRequest {
  const bytes = Uint8Array.from(mac.split(":"), (part) => Number.parseInt(part, 16));
  return change(link, attribute(IFLA_ADDRESS, bytes));
}

/** Sets a link up, or down. */
export function stateChange({ index }: Link, up: boolean): RouteRequest {
  return { type: RTM_SETLINK, flags: 0, body: linkHeader(index, up ? IFF_UP : 0, IFF_UP) };
}

/** Makes a link a port of a bridge. */
export function masterChange(link: Link, bridge: Link): RouteRequest {
  return change(link, attribute(IFLA_MASTER, u32(bridge.index)));
}

/** Keeps a bridge port from exchanging frames with other such ports. */
export function isolation(port: Link): RouteRequest {
  const nest = nested(
    IFLA_LINKINFO,
    attribute(IFLA_INFO_SLAVE_KIND, cString("bridge")),
    nested(IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_ISOLATED, Uint8Array.of(1))),
  );
  // RTM_SETLINK does not look at what is nested here (rtnl_setlink of the kernel).
  return { ...change(port, nest), type: RTM_NEWLINK };
}

/** Deletes a link. */
export function linkDeletion({ index }: Link): RouteRequest {
  return { type: RTM_DELLINK, flags: 0, body: linkHeader(index, 0, 0) };
}

/** All links. */
export const LINKS: RouteDump = {
  type: RTM_GETLINK,
  body: linkHeader(0, 0, 0),
  answerType: RTM_NEWLINK,
};

/** The link at the other end of a veth pair, in its namespace. */
export function peerLookup({ index, namespaceId }: PeerLink): RouteDump {
  const body = concat(linkHeader(index, 0, 0), attribute(IFLA_TARGET_NETNSID, u32(namespaceId)));
  return { type: RTM_GETLINK, body, answerType: RTM_NEWLINK };
}

/** All IPv4 addresses. */
export const ADDRESSES: RouteDump = {
  type: RTM_GETADDR,
  body: concat(Uint8Array.of(AF_INET, 0, 0, 0), u32(0)),
  answerType: RTM_NEWADDR,
};

/** The IPv4 addresses of the other end of a veth pair, and perhaps further ones. */
export function peerAddresses({ index, namespaceId }: PeerLink): RouteDump {
  const body = concat(
    Uint8Array.of(AF_INET, 0, 0, 0),
    u32(index),
    attribute(IFA_TARGET_NETNSID, u32(namespaceId)),
  );
  return { ...ADDRESSES, body };
}

/** Bytes of an IPv4 address in dotted decimal. @throws RangeError when it is none. */
function ipv4Bytes(address: string): Uint8Array {
  const ip = Ip.parse(address);
  if (ip?.version !== 4) throw new RangeError(`'${address}' is not an IPv4 address`);
  return ip.bytes;
}

/** Adds an IPv4 address to a link. @throws RangeError when it is none. */
export function addressCreation(link: Link, address: string, prefixLength: number): RouteRequest {
  const bytes = ipv4Bytes(address);
  const body = concat(
    Uint8Array.of(AF_INET, prefixLength, 0, 0),
    u32(link.index),
    attribute(IFA_LOCAL, bytes),
    attribute(IFA_ADDRESS, bytes),
  );
  return { type: RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_EXCL, body };
}

/** Adds an IPv4 default route. @throws RangeError when the gateway is no IPv4 address. */
export function defaultRouteCreation(gateway: string): RouteRequest {
  const header = new Uint8Array(RTMSG_BYTES);
  header.set([AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST]);
  const body = concat(header, attribute(RTA_GATEWAY, ipv4Bytes(gateway)));
  return { type: RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_EXCL, body };
}

/** All IPv4 routes. */
export const ROUTES: RouteDump = {
  type: RTM_GETROUTE,
  body: concat(Uint8Array.of(AF_INET), new Uint8Array(RTMSG_BYTES - 1)),
  answerType: RTM_NEWROUTE,
};

/** The number that the network namespace of a process has in ours. */
export function namespaceLookup(pid: number): RouteDump {
  const body = concat(new Uint8Array(RTGENMSG_BYTES), attribute(NETNSA_PID, u32(pid)));
  return { type: RTM_GETNSID, body, answerType: RTM_NEWNSID };
}

/**
 * Reads an RTM_NEWNSID message; null when the namespace has no number.
 * @throws NetlinkFormatError when it is cut short or has impossible lengths.
 */
export function parseNamespace(message: NetlinkMessage): number | null {
  const body = requireBytes(message, RTGENMSG_BYTES);
  const number = parseAttributes(body.subarray(RTGENMSG_BYTES)).get(NETNSA_NSID);
  const id = number === undefined ? NETNSA_NSID_NOT_ASSIGNED : readU32(number);
  return id === NETNSA_NSID_NOT_ASSIGNED ? null : id;
}
