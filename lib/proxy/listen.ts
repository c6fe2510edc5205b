/** Binds the proxy's port, or says who has it and what to do. */
import { messageOf, OutcallError } from "../errors.ts";
import { portOwner } from "../linux/port_owner.ts";

/** Listens on one address; throws `proxy.bind` with the operator's remedy. */
export function listen(address: string, port: number): Deno.TcpListener {
  try {
    return Deno.listen({ hostname: address, port });
  } catch (thrown) {
    throw new OutcallError(
      503,
      "proxy.bind",
      `the HTTP proxy cannot listen on ${address}:${port}: ${reason(thrown, address, port)}`,
      { hint: remedy(thrown), cause: thrown },
    );
  }
}

function reason(thrown: unknown, address: string, port: number): string {
  if (!(thrown instanceof Deno.errors.AddrInUse)) return messageOf(thrown);
  const owner = portOwner("tcp", address, port);
  const by = owner === null ? "" : ` by ${owner.command} (pid ${owner.pid})`;
  return `address already in use${by}`;
}

function remedy(thrown: unknown): string {
  if (thrown instanceof Deno.errors.AddrInUse) {
    return "move the proxy (--proxy-addr 0.0.0.0:18080) or disable it (--no-proxy, only safe if " +
      "you have other policy at layer 7)";
  }
  if (thrown instanceof Deno.errors.AddrNotAvailable) {
    return "--proxy-addr must name an address of this host, or 0.0.0.0 for every managed gateway";
  }
  return "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another one with --proxy-addr";
}
