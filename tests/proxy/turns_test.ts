/** Whoever is quick lets the others have their turn: no agent starves another one. */
import assert from "node:assert/strict";
import { AGAIN } from "../../lib/linux/sockets.ts";
import { acceptOn, closeDescriptor, listenOn, localPort } from "../../lib/linux/tcp.ts";
import { Ip } from "../../lib/net/ip.ts";
import { EventLoop } from "../../lib/proxy/loop.ts";
import { TcpSocket } from "../../lib/proxy/socket.ts";

const LOOPBACK = Ip.fromBytes(Uint8Array.of(127, 0, 0, 1));

/** Runs `test` with a loop that waits only when it is told to, and a connection to a peer. */
async function withConnection(
  test: (loop: EventLoop, ours: TcpSocket, peer: Deno.TcpConn) => Promise<void>,
): Promise<void> {
  const loop = new EventLoop({ add: () => {}, delete: () => {} });
  const listener = listenOn(LOOPBACK, 0);
  try {
    using peer = await Deno.connect({ hostname: "127.0.0.1", port: localPort(listener) });
    const fd = acceptOn(listener);
    assert.notEqual(fd, AGAIN);
    const ours = new TcpSocket(loop, fd);
    await test(loop, ours, peer);
    ours.close();
  } finally {
    loop.wait(0);
    loop.end();
    closeDescriptor(listener);
  }
}

/** Repeats `step` for as long as it can; how often it did in each of ten turns of the loop. */
async function stepsPerTurn(loop: EventLoop, step: () => Promise<unknown>): Promise<number[]> {
  let steps = 0;
  void (async (): Promise<void> => {
    for (;; steps++) await step();
  })().catch(() => {}); // its connection is closed in the end
  const perTurn: number[] = [];
  for (let turn = 0; turn < 10; turn++) {
    const before = steps;
    loop.wait(0);
    await loop.goOn();
    perTurn.push(steps - before);
  }
  return perTurn;
}

Deno.test("a connection that always has something to read, or room to write, is served a little in each turn", async () => {
  const assertALittle = (perTurn: number[]): void => {
    // The first one goes on with what began before it.
    for (const steps of perTurn.slice(1)) assert.ok(steps > 0 && steps <= 10, `${perTurn}`);
  };
  await withConnection(async (loop, ours, peer) => {
    await peer.write(new Uint8Array(60_000)); // far below what the kernel keeps
    const buffer = new Uint8Array(100);
    const read = async (): Promise<void> => {
      if (ours.read(buffer) === AGAIN) await ours.readable();
    };
    assertALittle(await stepsPerTurn(loop, read));
  });
  await withConnection(async (loop, ours) => {
    const piece = new Uint8Array(100);
    assertALittle(await stepsPerTurn(loop, async () => await ours.write(piece)));
  });
});
