/** Servers that send everything back: for ports that have no protocol of their own in the lab. */
import type { ReceiptBook } from "./receipts.ts";
import { serveTcp, serveUdp } from "./transport.ts";

/** Starts them at every address. */
export function serveEcho(
  ports: { readonly tcp: readonly number[]; readonly udp: readonly number[] },
  book: ReceiptBook,
): void {
  for (const port of ports.tcp) {
    serveTcp(port, async (connection, route) => {
      book.add({ kind: "tcp", ...route });
      await connection.readable.pipeTo(connection.writable);
    });
  }
  for (const port of ports.udp) {
    serveUdp(port, (datagram, route) => {
      book.add({ kind: "udp", ...route });
      return datagram;
    });
  }
}
