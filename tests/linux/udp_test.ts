/** UDP by system call on loopback, beside sockets of the runtime. */
import assert from "node:assert/strict";
import { addressOf, UdpBatch, UdpSocket } from "../../lib/linux/udp.ts";
import { SystemError } from "../../lib/linux/libc.ts";
import { PollSet } from "../../lib/linux/wake.ts";

function ownAddress(): string {
  const random = (below: number): number => Math.floor(Math.random() * below);
  return `127.${1 + random(250)}.${random(250)}.${2 + random(250)}`;
}

const port = (): number => 10_000 + Math.floor(Math.random() * 20_000);

/** A bound socket with a client of the runtime's, closed together. */
class Pair implements Disposable {
  readonly address = ownAddress();
  readonly port = port();
  readonly socket = UdpSocket.bind(this.address, this.port);
  readonly client = Deno.listenDatagram({ transport: "udp", hostname: ownAddress(), port: 0 });

  async send(packet: Uint8Array): Promise<void> {
    const to = { transport: "udp", hostname: this.address, port: this.port } as const;
    await this.client.send(packet, to);
  }

  async receive(): Promise<Uint8Array> {
    const [packet, from] = await this.client.receive();
    assert(from.transport === "udp");
    assert.deepEqual([from.hostname, from.port], [this.address, this.port]);
    return packet;
  }

  [Symbol.dispose](): void {
    this.client.close();
    this.socket.close();
  }
}

Deno.test("UdpBatch receives what was sent, and its replies reach the senders", async () => {
  using pair = new Pair();
  const batch = new UdpBatch(8, 100, 100);
  const polled = new PollSet([pair.socket.fd]);
  assert.equal(batch.receive(pair.socket.fd), 0);
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 5; i++) await pair.send(Uint8Array.of(9, i, round, i));
    polled.wait(1000);
    assert(polled.isReady(0));
    assert.equal(batch.receive(pair.socket.fd), 5);
    for (let slot = 0; slot < 5; slot++) {
      assert.equal(batch.take(slot), 4);
      const packet = batch.received.subarray(batch.start(slot), batch.start(slot) + 4);
      assert.deepEqual([...packet], [9, slot, round, slot]);
      const { addr } = pair.client;
      assert(addr.transport === "udp");
      assert.equal(addressOf(batch.source(slot)), addr.hostname);
      // Every second one, so that replies and packets stand in different slots.
      if (slot % 2 === 0) batch.reply(slot, Uint8Array.of(0, 0, 7, slot));
    }
    batch.flush(pair.socket.fd);
    for (const slot of [0, 2, 4]) {
      assert.deepEqual([...await pair.receive()], [9, slot, 7, slot]);
    }
  }
});

Deno.test("UdpBatch says of a packet that is too long that it has no bytes, and goes on", async () => {
  using pair = new Pair();
  const batch = new UdpBatch(4, 100, 100);
  await pair.send(new Uint8Array(101));
  await pair.send(new Uint8Array(100));
  new PollSet([pair.socket.fd]).wait(1000);
  assert.equal(batch.receive(pair.socket.fd), 2);
  assert.deepEqual([batch.take(0), batch.take(1)], [0, 100]);
});

Deno.test("UdpBatch refuses a reply that does not fit", () => {
  const batch = new UdpBatch(4, 100, 100);
  assert.throws(() => batch.reply(0, new Uint8Array(101)), RangeError);
});

Deno.test("UdpSocket.bind() names what is wrong", () => {
  using pair = new Pair();
  const isCode = (code: string) => (thrown: unknown): boolean =>
    thrown instanceof SystemError && thrown.code === code;
  assert.throws(() => UdpSocket.bind(pair.address, pair.port), isCode("EADDRINUSE"));
  assert.throws(() => UdpSocket.bind("192.0.2.1", port()), isCode("EADDRNOTAVAIL"));
});

Deno.test("UdpSocket.send() answers a single packet", async () => {
  using pair = new Pair();
  const batch = new UdpBatch(1, 100, 100);
  await pair.send(Uint8Array.of(1));
  new PollSet([pair.socket.fd]).wait(1000);
  assert.equal(batch.receive(pair.socket.fd), 1);
  pair.socket.send(batch.source(0), Uint8Array.of(2, 3));
  assert.deepEqual([...await pair.receive()], [2, 3]);
});
