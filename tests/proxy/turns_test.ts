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
    const ours = new TcpSocket(loop, fd, "127.0.0.1");
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

Deno.test("a turn that lasts long is known as such, and who leaves work to the next one goes before what comes then", async () => {
  await withConnection(async (loop, ours, peer) => {
    loop.wait(0);
    assert.equal(ours.read(new Uint8Array(100)), AGAIN);
    assert.equal(loop.isTurnLong, false);
    for (const beganMs = performance.now(); performance.now() < beganMs + 100;);
    assert.equal(loop.isTurnLong, true);
    const order: string[] = [];
    void ours.readable().then(() => order.push("came"));
    void loop.nextTurn().then(() => order.push("waited"));
    await peer.write(new Uint8Array(1));
    loop.wait(1_000);
    assert.equal(loop.isTurnLong, false);
    await loop.goOn();
    assert.deepEqual(order, ["waited", "came"]);
  });
});

/** Accepts a connection of `owner`'s, to which something was written already. */
async function talking(loop: EventLoop, listener: number, owner: string): Promise<Talking> {
  const peer = await Deno.connect({ hostname: "127.0.0.1", port: localPort(listener) });
  const fd = acceptOn(listener);
  assert.notEqual(fd, AGAIN);
  const talking: Talking = { fd, peer, told: 0 };
  loop.adopt(fd, owner, { ready: () => talking.told++ });
  await peer.write(Uint8Array.of(1));
  return talking;
}

interface Talking {
  readonly fd: number;
  readonly peer: Deno.TcpConn;
  told: number;
}

Deno.test("an agent with many connections has a share of each turn, and none of them is forgotten", async () => {
  const loop = new EventLoop({ add: () => {}, delete: () => {} });
  const listener = listenOn(LOOPBACK, 0);
  const connections: Talking[] = [];
  const told = (some: readonly Talking[]): number => some.reduce((sum, { told }) => sum + told, 0);
  try {
    for (let i = 0; i < 100; i++) connections.push(await talking(loop, listener, "greedy"));
    const calm = await talking(loop, listener, "calm");
    const greedy = [...connections];
    connections.push(calm);
    loop.wait(1_000);
    assert.equal(calm.told, 1);
    assert.equal(told(greedy), 32);

    // What happens to a connection that waits: more to read, which it is told once; its end; a callback.
    const late = greedy.filter(({ told }) => told === 0);
    for (const { peer } of late) await peer.write(Uint8Array.of(2));
    const [closed] = late.splice(0, 1);
    assert.ok(closed !== undefined);
    loop.close(closed.fd);
    connections.splice(connections.indexOf(closed), 1);
    closed.peer.close();
    let calls = 0;
    for (const { fd } of greedy) loop.inTurnOf(fd, () => calls++);
    loop.inTurnOf(closed.fd, () => calls++);
    const before = told(greedy);
    loop.wait(0);
    assert.ok(told(greedy) - before <= 32);
    assert.ok(told(late) > 0, "who waits comes first");
    for (let turn = 0; turn < 20; turn++) loop.wait(0);
    assert.equal(closed.told, 0);
    for (const { told } of late) assert.ok(told >= 1 && told <= 2, `${told}`);
    assert.equal(calls, greedy.length + 1);
  } finally {
    for (const { fd, peer } of connections) {
      loop.close(fd);
      peer.close();
    }
    loop.wait(0);
    loop.end();
    closeDescriptor(listener);
  }
});
