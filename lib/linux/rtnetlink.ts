/**
 * Links, addresses and routes over rtnetlink (rtnetlink(7)), so that no `ip` binary is needed.
 *
 * Every call asks the kernel afresh. Links are changed by index, not by name: a name can move to
 * another device between two calls, an index cannot.
 */
import { OutcallError } from "../errors.ts";
import { Ip } from "../net/ip.ts";
import { SystemError } from "./libc.ts";
import {
  attribute,
  concat,
  cString,
  nested,
  NetlinkFormatError,
  type NetlinkMessage,
  NetlinkSocket,
  NLM_F_CREATE,
  NLM_F_EXCL,
  parseAttributes,
  readCString,
  readU32,
  u32,
} from "./netlink.ts";

const NETLINK_ROUTE = 0;
const AF_INET = 2;

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
const RT_TABLE_LOCAL = 255;

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
interface RawRoute {
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

/** The remedy from the troubleshooting page. */
const NET_ADMIN_HINT =
  "the daemon needs NET_ADMIN: in Docker add --cap-add NET_ADMIN; on bare metal run it as root, " +
  "or: sudo setcap cap_net_admin,cap_sys_admin+ep /usr/local/sbin/outcalld";

/** A failed link operation in the form operators see it. */
function linkError(error: SystemError): OutcallError {
  const message = `bridge operation failed: ${error.message}`;
  return error.code === "EPERM" || error.code === "EACCES"
    ? new OutcallError(500, "bridge.permission", message, { cause: error, hint: NET_ADMIN_HINT })
    : new OutcallError(500, "bridge.operation", message, { cause: error });
}

/** The kernel's links, addresses and routes in the network namespace of this process. */
export class RouteNetlink implements Disposable {
  readonly #socket: NetlinkSocket;

  /** @throws OutcallError `bridge.connection` when the kernel cannot be reached. */
  constructor() {
    try {
      this.#socket = new NetlinkSocket(NETLINK_ROUTE);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      throw new OutcallError(
        500,
        "bridge.connection",
        `cannot reach the kernel over netlink: ${error.message}`,
        { cause: error },
      );
    }
  }

  /** Closes the socket. */
  close(): void {
    this.#socket.close();
  }

  /** Closes the socket at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** All links. @throws OutcallError `bridge.operation` */
  links(): Link[] {
    return this.#dump("list links", RTM_GETLINK, RTM_NEWLINK, linkHeader(0, 0, 0)).map(parseLink);
  }

  /** The link of this name, or null. @throws OutcallError `bridge.operation` */
  link(name: string): Link | null {
    return this.links().find((link) => link.name === name) ?? null;
  }

  /**
   * Creates a bridge, down and without addresses.
   * @throws OutcallError `bridge.permission`, or `bridge.operation` when the name is taken or the
   * kernel has no bridge support.
   */
  createBridge(name: string): void {
    const body = concat(
      linkHeader(0, 0, 0),
      attribute(IFLA_IFNAME, cString(name)),
      nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, cString("bridge"))),
    );
    this.#request(`create bridge ${name}`, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body);
  }

  /**
   * Creates a veth pair, both ends down, the other one in the network namespace of a process.
   * @throws OutcallError `bridge.permission`, or `bridge.operation` when a name is taken or there is
   * no such process.
   */
  createVeth(name: string, peer: { readonly name: string; readonly pid: number }): void {
    const other = concat(
      linkHeader(0, 0, 0),
      attribute(IFLA_IFNAME, cString(peer.name)),
      attribute(IFLA_NET_NS_PID, u32(peer.pid)),
    );
    const body = concat(
      linkHeader(0, 0, 0),
      attribute(IFLA_IFNAME, cString(name)),
      nested(
        IFLA_LINKINFO,
        attribute(IFLA_INFO_KIND, cString("veth")),
        nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, other)),
      ),
    );
    this.#request(`create veth ${name}`, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body);
  }

  /** Gives a link its alias. @throws OutcallError `bridge.permission`, `bridge.operation` */
  setAlias(link: Link, alias: string): void {
    const body = concat(linkHeader(link.index, 0, 0), attribute(IFLA_IFALIAS, cString(alias)));
    this.#request(`set the alias of ${link.name}`, RTM_SETLINK, 0, body);
  }

  /**
   * Gives a link a MAC. A bridge keeps it from then on, whatever ports come and go.
   * @param mac Such as `02:42:0a:c8:00:02`.
   * @throws OutcallError `bridge.permission`, `bridge.operation`
   */
  setMac(link: Link, mac: string): void {
    const bytes = Uint8Array.from(mac.split(":"), (part) => Number.parseInt(part, 16));
    const body = concat(linkHeader(link.index, 0, 0), attribute(IFLA_ADDRESS, bytes));
    this.#request(`set the MAC of ${link.name}`, RTM_SETLINK, 0, body);
  }

  /** Sets a link up. @throws OutcallError `bridge.permission`, `bridge.operation` */
  setUp(link: Link): void {
    const body = linkHeader(link.index, IFF_UP, IFF_UP);
    this.#request(`set ${link.name} up`, RTM_SETLINK, 0, body);
  }

  /** Sets a link down. @throws OutcallError `bridge.permission`, `bridge.operation` */
  setDown(link: Link): void {
    this.#request(`set ${link.name} down`, RTM_SETLINK, 0, linkHeader(link.index, 0, IFF_UP));
  }

  /** Makes a link a port of a bridge. @throws OutcallError `bridge.permission`, `bridge.operation` */
  setMaster(link: Link, bridge: Link): void {
    const body = concat(linkHeader(link.index, 0, 0), attribute(IFLA_MASTER, u32(bridge.index)));
    this.#request(`plug ${link.name} into ${bridge.name}`, RTM_SETLINK, 0, body);
  }

  /**
   * Keeps a bridge port from exchanging frames with other such ports.
   * @throws OutcallError `bridge.permission`, `bridge.operation`
   */
  isolate(port: Link): void {
    const body = concat(
      linkHeader(port.index, 0, 0),
      nested(
        IFLA_LINKINFO,
        attribute(IFLA_INFO_SLAVE_KIND, cString("bridge")),
        nested(IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_ISOLATED, Uint8Array.of(1))),
      ),
    );
    // RTM_SETLINK does not look at what is nested here (rtnl_setlink of the kernel).
    this.#request(`isolate ${port.name}`, RTM_NEWLINK, 0, body);
  }

  /**
   * The link at the other end of a veth pair, and its IPv4 addresses; null when it or its namespace
   * is gone, or is not ours to look into.
   */
  peer({ index, namespaceId }: PeerLink): { link: Link; addresses: readonly string[] } | null {
    const linkRequest = concat(
      linkHeader(index, 0, 0),
      attribute(IFLA_TARGET_NETNSID, u32(namespaceId)),
    );
    const addressRequest = concat(
      Uint8Array.of(AF_INET, 0, 0, 0),
      u32(index),
      attribute(IFA_TARGET_NETNSID, u32(namespaceId)),
    );
    try {
      const message = this.#socket.get("look at a port's other end", RTM_GETLINK, linkRequest);
      if (message?.type !== RTM_NEWLINK) return null;
      const addresses = this.#socket.dump("list an agent's addresses", RTM_GETADDR, addressRequest)
        .filter(({ type }) => type === RTM_NEWADDR)
        .map(parseAddress)
        .filter((address) => address !== null)
        .filter(({ linkIndex }) => linkIndex === index)
        .map(({ address }) => address);
      return { link: parseLink(message), addresses };
    } catch (error) {
      if (error instanceof SystemError) return null;
      throw error;
    }
  }

  /**
   * The network namespace that a process is in, by the number it has in ours (see
   * {@linkcode PeerLink}); null when it has none: no link of ours leads there.
   * @throws SystemError when there is no such process.
   */
  namespaceOf(pid: number): number | null {
    const request = concat(new Uint8Array(RTGENMSG_BYTES), attribute(NETNSA_PID, u32(pid)));
    const message = this.#socket.get("look up a network namespace", RTM_GETNSID, request);
    if (message?.type !== RTM_NEWNSID) return null;
    const body = requireBytes(message, RTGENMSG_BYTES);
    const number = parseAttributes(body.subarray(RTGENMSG_BYTES)).get(NETNSA_NSID);
    const id = number === undefined ? NETNSA_NSID_NOT_ASSIGNED : readU32(number);
    return id === NETNSA_NSID_NOT_ASSIGNED ? null : id;
  }

  /** Deletes a link. @throws OutcallError `bridge.permission`, `bridge.operation` */
  deleteLink(link: Link): void {
    this.#request(`delete ${link.name}`, RTM_DELLINK, 0, linkHeader(link.index, 0, 0));
  }

  /** All IPv4 addresses. @throws OutcallError `bridge.operation` */
  addresses(): LinkAddress[] {
    const header = new Uint8Array(IFADDRMSG_BYTES);
    header[0] = AF_INET;
    return this.#dump("list addresses", RTM_GETADDR, RTM_NEWADDR, header)
      .map(parseAddress)
      .filter((address) => address !== null);
  }

  /**
   * Adds an IPv4 address to a link.
   * @param address Dotted decimal.
   * @throws OutcallError `bridge.permission`, or `bridge.operation` when the link has it already.
   */
  addAddress(link: Link, address: string, prefixLength: number): void {
    const ip = Ip.parse(address);
    if (ip?.version !== 4) throw new RangeError(`'${address}' is not an IPv4 address`);
    const header = Uint8Array.of(AF_INET, prefixLength, 0, 0);
    const body = concat(
      header,
      u32(link.index),
      attribute(IFA_LOCAL, ip.bytes),
      attribute(IFA_ADDRESS, ip.bytes),
    );
    const operation = `add ${address}/${prefixLength} to ${link.name}`;
    this.#request(operation, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body);
  }

  /**
   * Adds an IPv4 default route.
   * @param gateway Dotted decimal, on a subnet that is reachable already.
   * @throws OutcallError `bridge.permission`, `bridge.operation`
   */
  addDefaultRoute(gateway: string): void {
    const ip = Ip.parse(gateway);
    if (ip?.version !== 4) throw new RangeError(`'${gateway}' is not an IPv4 address`);
    const header = new Uint8Array(RTMSG_BYTES);
    header.set([AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST]);
    const body = concat(header, attribute(RTA_GATEWAY, ip.bytes));
    this.#request(`route by ${gateway}`, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body);
  }

  /** All IPv4 routes but those of table `local`. @throws OutcallError `bridge.operation` */
  routes(): Route[] {
    const header = new Uint8Array(RTMSG_BYTES);
    header[0] = AF_INET;
    const names = new Map(this.links().map((link) => [link.index, link.name]));
    return this.#dump("list routes", RTM_GETROUTE, RTM_NEWROUTE, header)
      .map(parseRoute)
      .filter((route) => route.table !== RT_TABLE_LOCAL)
      .map(({ destination, linkIndex }) => ({
        destination,
        link: linkIndex === null ? null : names.get(linkIndex) ?? null,
      }));
  }

  #request(operation: string, type: number, flags: number, body: Uint8Array): void {
    this.#translate(() => this.#socket.request(operation, type, flags, body));
  }

  #dump(
    operation: string,
    type: number,
    answerType: number,
    body: Uint8Array,
  ): NetlinkMessage[] {
    return this.#translate(() => this.#socket.dump(operation, type, body))
      .filter((message) => message.type === answerType);
  }

  #translate<T>(run: () => T): T {
    try {
      return run();
    } catch (error) {
      throw error instanceof SystemError ? linkError(error) : error;
    }
  }
}
