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
const RTA_DST = 1;
const RTA_OIF = 4;
/** Addresses of this host and their broadcasts: what the kernel adds by itself. */
const RT_TABLE_LOCAL = 255;

// include/uapi/linux/if_link.h, if_addr.h, if.h
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFF_UP = 1;

/** struct ifinfomsg: family u8, pad u8, type u16, index i32, flags u32, change mask u32. */
const IFINFOMSG_BYTES = 16;
/** struct ifaddrmsg: family u8, prefix length u8, flags u8, scope u8, index u32. */
const IFADDRMSG_BYTES = 8;
/** struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type: u8 each; flags u32. */
const RTMSG_BYTES = 12;

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
  const mtu = attributes.get(IFLA_MTU);
  const master = attributes.get(IFLA_MASTER);
  return {
    index: readU32(body, 4),
    name: readCString(name),
    kind: kind === undefined ? null : readCString(kind),
    up: (readU32(body, 8) & IFF_UP) !== 0,
    mtu: mtu === undefined ? 0 : readU32(mtu),
    master: master === undefined ? null : readU32(master),
  };
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

  /** Sets a link up. @throws OutcallError `bridge.permission`, `bridge.operation` */
  setUp(link: Link): void {
    const body = linkHeader(link.index, IFF_UP, IFF_UP);
    this.#request(`set ${link.name} up`, RTM_SETLINK, 0, body);
  }

  /** Sets a link down. @throws OutcallError `bridge.permission`, `bridge.operation` */
  setDown(link: Link): void {
    this.#request(`set ${link.name} down`, RTM_SETLINK, 0, linkHeader(link.index, 0, IFF_UP));
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
