/** Binds the proxy's port, or says who has it and what to do. */
import { messageOf, OutcallError } from "../errors.ts";
import { closeDescriptor, listenOn, localPort } from "../linux/tcp.ts";
import { SystemError } from "../linux/libc.ts";
import { Ip } from "../net/ip.ts";
import { portOwner } from "../linux/port_owner.ts";

/** A listening socket. */
export class ListeningSocket {
  readonly port: number;
  readonly fd: number;

  /**
   * @param address Canonical text.
   * @throws OutcallError `proxy.bind` with the operator's remedy.
   */
  constructor(readonly address: string, port: number) {
    this.fd = listen(address, port);
    this.port = localPort(this.fd);
  }

  /** To be called when nobody uses the descriptor any more. */
  close(): void {
    closeDescriptor(this.fd);
  }
}

function listen(address: string, port: number): number {
  try {
    const ip = Ip.parse(address);
    if (ip === null) throw new TypeError("not an address");
    return listenOn(ip, port);
  } catch (thrown) {
    throw new OutcallError(
      503,
      "proxy.bind",
      `the HTTP proxy cannot listen on ${address}:${port}: ${reason(thrown, address, port)}`,
      { hint: remedy(thrown), cause: thrown },
    );
  }
}

function isCode(thrown: unknown, code: string): boolean {
  return thrown instanceof SystemError && thrown.code === code;
}

function reason(thrown: unknown, address: string, port: number): string {
  if (!isCode(thrown, "EADDRINUSE")) return messageOf(thrown);
  const owner = portOwner("tcp", address, port);
  const by = owner === null ? "" : ` by ${owner.command} (pid ${owner.pid})`;
  return `address already in use${by}`;
}

function remedy(thrown: unknown): string {
  if (isCode(thrown, "EADDRINUSE")) {
    return "move the proxy (--proxy-addr 0.0.0.0:18080) or disable it (--no-proxy, only safe if " +
      "you have other policy at layer 7)";
  }
  if (isCode(thrown, "EADDRNOTAVAIL")) {
    return "--proxy-addr must name an address of this host, or 0.0.0.0 for every managed gateway";
  }
  return "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another one with --proxy-addr";
}
