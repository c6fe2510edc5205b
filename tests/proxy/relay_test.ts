/** The relay on real sockets: bytes, ends, silence, errors, and a thread that fails. */
import assert from "node:assert/strict";
import { Relay, type TunnelReport } from "../../lib/proxy/relay/relay.ts";
import { random, SEED } from "./fuzz.ts";

const LONG_MS = 60_000;

async function connected(): Promise<[ours: Deno.TcpConn, peer: Deno.TcpConn]> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const [ours, peer] = await Promise.all([
    listener.accept(),
    Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port }),
  ]);
  return [ours, peer];
}

/** One tunnel with the peers at both of its ends. */
async function tunnelOf(relay: Relay): Promise<{
  client: Deno.TcpConn;
  upstream: Deno.TcpConn;
  ended: Promise<TunnelReport>;
  cut(): void;
}> {
  const [ours, client] = await connected();
  const [theirs, upstream] = await connected();
  return { client, upstream, ...relay.start(ours, theirs) };
}

async function withRelay(idleMs: number, test: (relay: Relay) => Promise<void>): Promise<void> {
  const relay = new Relay(idleMs);
  try {
    await test(relay);
  } finally {
    await relay.stop();
  }
}

function noise(bytes: number): Uint8Array<ArrayBuffer> {
  const next = random(SEED);
  return Uint8Array.from({ length: bytes }, () => Math.floor(next() * 256));
}

async function send(conn: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let rest = bytes; rest.length > 0;) rest = rest.subarray(await conn.write(rest));
  await conn.closeWrite();
}

/** Everything up to the end; null where the connection broke. */
async function receive(conn: Deno.TcpConn): Promise<Uint8Array | null> {
  const pieces: Uint8Array[] = [];
  const buffer = new Uint8Array(65_536);
  try {
    for (;;) {
      const count = await conn.read(buffer);
      if (count === null) {
        return new Uint8Array(await new Blob(pieces.map((p) => p.slice())).arrayBuffer());
      }
      pieces.push(buffer.slice(0, count));
    }
  } catch {
    return null;
  } finally {
    conn.close();
  }
}

Deno.test("bytes arrive as they were sent, both ways at once, and are counted", () =>
  withRelay(LONG_MS, async (relay) => {
    const { client, upstream, ended } = await tunnelOf(relay);
    const [up, down] = [noise(3_000_001), noise(2_000_003)];
    const [, , atUpstream, atClient] = await Promise.all([
      send(client, up),
      send(upstream, down),
      receive(upstream),
      receive(client),
    ]);
    assert.deepEqual(atUpstream, up);
    assert.deepEqual(atClient, down);
    assert.deepEqual(await ended, { end: "closed", upBytes: up.length, downBytes: down.length });
  }));

Deno.test("a receiver that stalls loses nothing, and keeps nobody else waiting", () =>
  withRelay(LONG_MS, async (relay) => {
    const slow = await tunnelOf(relay);
    const bytes = noise(20_000_000);
    const sending = send(slow.upstream, bytes);
    const other = await tunnelOf(relay);
    await send(other.client, noise(1_000));
    assert.equal((await receive(other.upstream))?.length, 1_000);
    other.client.close();
    await other.ended;
    const [received] = await Promise.all([receive(slow.client), sending]);
    assert.deepEqual(received, bytes);
    slow.upstream.close();
    assert.equal((await slow.ended).downBytes, bytes.length);
  }));

Deno.test("half-close: one side's end is passed on, and the other goes on", () =>
  withRelay(LONG_MS, async (relay) => {
    const { client, upstream, ended } = await tunnelOf(relay);
    await send(client, noise(10));
    assert.equal(await upstream.read(new Uint8Array(100)), 10);
    assert.equal(await upstream.read(new Uint8Array(100)), null);
    await send(upstream, noise(20));
    assert.equal((await receive(client))?.length, 20);
    upstream.close();
    assert.deepEqual(await ended, { end: "closed", upBytes: 10, downBytes: 20 });
  }));

Deno.test("a side that breaks takes the other one with it", () =>
  withRelay(LONG_MS, async (relay) => {
    const { client, upstream, ended } = await tunnelOf(relay);
    await client.write(noise(1_000));
    await upstream.read(new Uint8Array(1)); // the rest stays unread: closing is a reset then
    upstream.close();
    assert.notEqual((await receive(client))?.length, 1);
    assert.equal((await ended).upBytes, 1_000);
  }));

Deno.test("silence ends a tunnel, and one that moves stays", () =>
  withRelay(400, async (relay) => {
    const silent = await tunnelOf(relay);
    const lively = await tunnelOf(relay);
    let ended = false;
    const done = silent.ended.then((report) => {
      ended = true;
      return report;
    });
    while (!ended) {
      await lively.client.write(noise(1));
      await lively.upstream.read(new Uint8Array(1));
    }
    assert.deepEqual(await done, { end: "idle", upBytes: 0, downBytes: 0 });
    await lively.client.write(noise(1));
    assert.equal(await lively.upstream.read(new Uint8Array(1)), 1);
    lively.cut();
    await lively.ended;
    for (const { client, upstream } of [silent, lively]) {
      client.close();
      upstream.close();
    }
  }));

Deno.test("a cut ends both sides at once, also while bytes are moving", () =>
  withRelay(LONG_MS, async (relay) => {
    const { client, upstream, ended, cut } = await tunnelOf(relay);
    const sending = send(upstream, noise(20_000_000)).catch(() => {});
    await client.read(new Uint8Array(1));
    cut();
    cut();
    await ended;
    await receive(client);
    await sending;
    upstream.close();
  }));

Deno.test("a thread that fails ends its tunnels, and the next tunnel gets a new one", async () => {
  const threads: Worker[] = [];
  const RealWorker = Worker;
  globalThis.Worker = class extends RealWorker {
    constructor(...args: ConstructorParameters<typeof Worker>) {
      super(...args);
      threads.push(this);
    }
  };
  try {
    await withRelay(LONG_MS, async (relay) => {
      const first = await tunnelOf(relay);
      await first.client.write(noise(1));
      await first.upstream.read(new Uint8Array(1));
      threads[0]?.postMessage(null); // nothing that it understands; the next message wakes it
      const second = await tunnelOf(relay);
      for (const { client, upstream, ended } of [first, second]) {
        assert.equal((await ended).end, "broken");
        await receive(client);
        await receive(upstream);
      }
      const third = await tunnelOf(relay);
      await third.client.write(noise(1));
      assert.equal(await third.upstream.read(new Uint8Array(1)), 1);
      third.client.close();
      third.upstream.close();
    });
  } finally {
    globalThis.Worker = RealWorker;
  }
  assert.equal(threads.length, 2);
});
