/** Sockets of the lab's servers: every UDP port at each address, TCP at all of them at once. */
import { ADDRESSES } from "./world.ts";

/** Who sent something, and which of our addresses and ports it was sent to. */
export interface Route {
  /** Sender's address. */
  readonly from: string;
  /** Our address. */
  readonly to: string;
  /** Our port. */
  readonly port: number;
}

/**
 * Answers each datagram to `port` with what `reply` makes of it; null sends nothing.
 * A socket for each address, because the reply must come from the address that was asked.
 */
export function serveUdp(
  port: number,
  reply: (datagram: Uint8Array, route: Route) => Uint8Array | null,
): void {
  for (const to of ADDRESSES) {
    const socket = Deno.listenDatagram({ transport: "udp", hostname: to, port });
    void (async (): Promise<void> => {
      for await (const [datagram, sender] of socket) {
        if (sender.transport !== "udp") continue;
        const answer = reply(datagram, { from: sender.hostname, to, port });
        // A sender that is gone already is none of the server's business.
        if (answer !== null) await socket.send(answer, sender).catch(() => {});
      }
    })();
  }
}

/** Serves each connection to `port`; what goes wrong on one connection ends that one only. */
export function serveTcp(
  port: number,
  serve: (connection: Deno.TcpConn, route: Route) => Promise<void>,
): void {
  const listener = Deno.listen({ transport: "tcp", hostname: "0.0.0.0", port });
  void (async (): Promise<void> => {
    for await (const connection of listener) {
      const route = {
        from: connection.remoteAddr.hostname,
        to: connection.localAddr.hostname,
        port,
      };
      void serve(connection, route).catch(() => {}).finally(() => {
        try {
          connection.close();
        } catch {
          // Closed already, by the peer's doing or ours.
        }
      });
    }
  })();
}

/** Reads exactly `size` bytes; null when the connection ends before. */
export async function readExactly(
  connection: Deno.TcpConn,
  size: number,
): Promise<Uint8Array | null> {
  const bytes = new Uint8Array(size);
  for (let filled = 0; filled < size;) {
    const count = await connection.read(bytes.subarray(filled));
    if (count === null) return null;
    filled += count;
  }
  return bytes;
}
