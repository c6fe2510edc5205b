/**
 * Links, addresses and routes over rtnetlink (rtnetlink(7)), so that no `ip` binary is needed.
 *
 * Every call asks the kernel afresh. Links are changed by index, not by name: a name can move to
 * another device between two calls, an index cannot.
 */
import { OutcallError } from "../errors.ts";
import { SystemError } from "./libc.ts";
import type { NetlinkMessage } from "./netlink.ts";
import { NETLINK_ROUTE, NetlinkSocket } from "./netlink_socket.ts";
import { NET_ADMIN_HINT } from "./privileges.ts";
import {
  addressCreation,
  ADDRESSES,
  aliasChange,
  bridgeCreation,
  defaultRouteCreation,
  isolation,
  type Link,
  type LinkAddress,
  linkDeletion,
  LINKS,
  macChange,
  masterChange,
  namespaceLookup,
  parseAddress,
  parseLink,
  parseNamespace,
  parseRoute,
  peerAddresses,
  type PeerLink,
  peerLookup,
  type Route,
  type RouteDump,
  type RouteRequest,
  ROUTES,
  RT_TABLE_LOCAL,
  stateChange,
  vethCreation,
} from "./rtnetlink_messages.ts";

export type { Link, LinkAddress, PeerLink, Route } from "./rtnetlink_messages.ts";

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
    return this.#dump("list links", LINKS).map(parseLink);
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
    this.#request(`create bridge ${name}`, bridgeCreation(name));
  }

  /**
   * Creates a veth pair, both ends down, the other one in the network namespace of a process.
   * @throws OutcallError `bridge.permission`, or `bridge.operation` when a name is taken or there is
   * no such process.
   */
  createVeth(name: string, peer: { readonly name: string; readonly pid: number }): void {
    this.#request(`create veth ${name}`, vethCreation(name, peer));
  }

  /** Gives a link its alias. @throws OutcallError `bridge.permission`, `bridge.operation` */
  setAlias(link: Link, alias: string): void {
    this.#request(`set the alias of ${link.name}`, aliasChange(link, alias));
  }

  /**
   * Gives a link a MAC. A bridge keeps it from then on, whatever ports come and go.
   * @param mac Such as `02:42:0a:c8:00:02`.
   * @throws OutcallError `bridge.permission`, `bridge.operation`
   */
  setMac(link: Link, mac: string): void {
    this.#request(`set the MAC of ${link.name}`, macChange(link, mac));
  }

  /** Sets a link up. @throws OutcallError `bridge.permission`, `bridge.operation` */
  setUp(link: Link): void {
    this.#request(`set ${link.name} up`, stateChange(link, true));
  }

  /** Sets a link down. @throws OutcallError `bridge.permission`, `bridge.operation` */
  setDown(link: Link): void {
    this.#request(`set ${link.name} down`, stateChange(link, false));
  }

  /** Makes a link a port of a bridge. @throws OutcallError `bridge.permission`, `bridge.operation` */
  setMaster(link: Link, bridge: Link): void {
    this.#request(`plug ${link.name} into ${bridge.name}`, masterChange(link, bridge));
  }

  /**
   * Keeps a bridge port from exchanging frames with other such ports.
   * @throws OutcallError `bridge.permission`, `bridge.operation`
   */
  isolate(port: Link): void {
    this.#request(`isolate ${port.name}`, isolation(port));
  }

  /**
   * The link at the other end of a veth pair, and its IPv4 addresses; null when it or its namespace
   * is gone, or is not ours to look into.
   */
  peer(peer: PeerLink): { link: Link; addresses: readonly string[] } | null {
    try {
      const lookup = peerLookup(peer);
      const message = this.#socket.get("look at a port's other end", lookup.type, lookup.body);
      if (message?.type !== lookup.answerType) return null;
      const list = peerAddresses(peer);
      const addresses = this.#socket.dump("list an agent's addresses", list.type, list.body)
        .filter(({ type }) => type === list.answerType)
        .map(parseAddress)
        .filter((address) => address !== null)
        .filter(({ linkIndex }) => linkIndex === peer.index)
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
    const lookup = namespaceLookup(pid);
    const message = this.#socket.get("look up a network namespace", lookup.type, lookup.body);
    return message?.type === lookup.answerType ? parseNamespace(message) : null;
  }

  /** Deletes a link. @throws OutcallError `bridge.permission`, `bridge.operation` */
  deleteLink(link: Link): void {
    this.#request(`delete ${link.name}`, linkDeletion(link));
  }

  /** All IPv4 addresses. @throws OutcallError `bridge.operation` */
  addresses(): LinkAddress[] {
    return this.#dump("list addresses", ADDRESSES)
      .map(parseAddress)
      .filter((address) => address !== null);
  }

  /**
   * Adds an IPv4 address to a link.
   * @param address Dotted decimal.
   * @throws OutcallError `bridge.permission`, or `bridge.operation` when the link has it already.
   */
  addAddress(link: Link, address: string, prefixLength: number): void {
    const operation = `add ${address}/${prefixLength} to ${link.name}`;
    this.#request(operation, addressCreation(link, address, prefixLength));
  }

  /**
   * Adds an IPv4 default route.
   * @param gateway Dotted decimal, on a subnet that is reachable already.
   * @throws OutcallError `bridge.permission`, `bridge.operation`
   */
  addDefaultRoute(gateway: string): void {
    this.#request(`route by ${gateway}`, defaultRouteCreation(gateway));
  }

  /** All IPv4 routes but those of table `local`. @throws OutcallError `bridge.operation` */
  routes(): Route[] {
    const names = new Map(this.links().map((link) => [link.index, link.name]));
    return this.#dump("list routes", ROUTES)
      .map(parseRoute)
      .filter((route) => route.table !== RT_TABLE_LOCAL)
      .map(({ destination, linkIndex }) => ({
        destination,
        link: linkIndex === null ? null : names.get(linkIndex) ?? null,
      }));
  }

  #request(operation: string, { type, flags, body }: RouteRequest): void {
    this.#translate(() => this.#socket.request(operation, type, flags, body));
  }

  #dump(operation: string, { type, body, answerType }: RouteDump): NetlinkMessage[] {
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

/** The host's IPv4 routes now. */
export function hostRoutes(): ReturnType<RouteNetlink["routes"]> {
  using netlink = new RouteNetlink();
  return netlink.routes();
}
