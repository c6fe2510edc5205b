/** Connections of the event loop's in a test, whose own connections Deno's serves. */
import { AGAIN } from "../../lib/linux/sockets.ts";
import { acceptOn, closeDescriptor, listenOn, localPort } from "../../lib/linux/tcp.ts";
import { Ip } from "../../lib/net/ip.ts";
import { EventLoop } from "../../lib/proxy/loop.ts";
import { TcpSocket } from "../../lib/proxy/socket.ts";

const LOOPBACK = Ip.fromBytes(Uint8Array.of(127, 0, 0, 1));

/** A running event loop, and what to connect it with. */
export interface Sockets {
  readonly loop: EventLoop;
  /** Both ends of a new connection. */
  connected(): Promise<[ours: TcpSocket, peer: Deno.TcpConn]>;
}

/** Runs an event loop beside Deno's while `test` runs; every connection is closed behind it. */
export async function withSockets(test: (sockets: Sockets) => Promise<void>): Promise<void> {
  const open = new Set<number>();
  const loop = new EventLoop({ add: (fd) => open.add(fd), delete: (fd) => open.delete(fd) });
  let isOver = false;
  const running = (async (): Promise<void> => {
    while (!isOver) {
      loop.wait(0);
      await new Promise((resolve) => setTimeout(resolve));
    }
  })();
  const listener = listenOn(LOOPBACK, 0);
  const connected = async (): Promise<[TcpSocket, Deno.TcpConn]> => {
    const peer = await Deno.connect({ hostname: "127.0.0.1", port: localPort(listener) });
    const fd = acceptOn(listener);
    if (fd === AGAIN) throw new Error("the connection is not there");
    return [new TcpSocket(loop, fd, "127.0.0.1"), peer];
  };
  try {
    await test({ loop, connected });
  } finally {
    isOver = true;
    await running;
    loop.end();
    closeDescriptor(listener);
    for (const fd of open) closeDescriptor(fd);
  }
}
