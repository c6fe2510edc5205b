/** Tunnels on real sockets: bytes, ends, silence and errors. */
import assert from "node:assert/strict";
import type { TunnelUse } from "../../lib/decision.ts";
import { Tunnels } from "../../lib/proxy/tunnels.ts";
import { Random } from "../random.ts";
import { type Sockets, withSockets } from "./sockets.ts";

const LONG_MS = 60_000;

/** One tunnel with the peers at both of its ends. */
interface Ends {
  readonly client: Deno.TcpConn;
  readonly upstream: Deno.TcpConn;
  readonly ended: Promise<TunnelUse>;
  cut(): void;
}

async function tunnelOf(tunnels: Tunnels, { connected }: Sockets): Promise<Ends> {
  const [ours, client] = await connected();
  const [theirs, upstream] = await connected();
  const tunnel = tunnels.start(ours, theirs);
  return { client, upstream, ended: tunnel.ended, cut: () => tunnel.cut("policy") };
}

function withTunnels(
  idleMs: number,
  test: (open: () => Promise<Ends>) => Promise<void>,
): Promise<void> {
  return withSockets(async (sockets) => {
    const tunnels = new Tunnels(sockets.loop, idleMs, () => {});
    try {
      await test(() => tunnelOf(tunnels, sockets));
    } finally {
      tunnels.close();
    }
  });
}

function noise(bytes: number): Uint8Array<ArrayBuffer> {
  const random = new Random();
  return random.bytes(bytes);
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
  withTunnels(LONG_MS, async (open) => {
    const { client, upstream, ended } = await open();
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
  withTunnels(LONG_MS, async (open) => {
    const slow = await open();
    const bytes = noise(20_000_000);
    const sending = send(slow.upstream, bytes);
    const other = await open();
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
  withTunnels(LONG_MS, async (open) => {
    const { client, upstream, ended } = await open();
    await send(client, noise(10));
    assert.equal(await upstream.read(new Uint8Array(100)), 10);
    assert.equal(await upstream.read(new Uint8Array(100)), null);
    await send(upstream, noise(20));
    assert.equal((await receive(client))?.length, 20);
    upstream.close();
    assert.deepEqual(await ended, { end: "closed", upBytes: 10, downBytes: 20 });
  }));

Deno.test("a side that breaks takes the other one with it", () =>
  withTunnels(LONG_MS, async (open) => {
    const { client, upstream, ended } = await open();
    await client.write(noise(1_000));
    await upstream.read(new Uint8Array(1)); // the rest stays unread: closing is a reset then
    upstream.close();
    assert.notEqual((await receive(client))?.length, 1);
    assert.equal((await ended).upBytes, 1_000);
  }));

Deno.test("silence ends a tunnel, and one that moves stays", () =>
  withTunnels(400, async (open) => {
    const silent = await open();
    const lively = await open();
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
  withTunnels(LONG_MS, async (open) => {
    const { client, upstream, ended, cut } = await open();
    const sending = send(upstream, noise(20_000_000)).catch(() => {});
    await client.read(new Uint8Array(1));
    cut();
    cut();
    assert.equal((await ended).end, "policy");
    await receive(client);
    await sending;
    upstream.close();
  }));
