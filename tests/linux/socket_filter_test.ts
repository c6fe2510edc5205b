/** Sources that the kernel does not let through to a socket, on loopback. */
import assert from "node:assert/strict";
import { droppedPackets, MAX_MUTED_SOURCES, muteSources } from "../../lib/linux/socket_filter.ts";
import { UdpBatch, UdpSocket } from "../../lib/linux/udp.ts";
import { PollSet } from "../../lib/linux/wake.ts";

function number(address: string): number {
  return address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** A bound socket and two clients on addresses of their own. */
class World implements Disposable {
  readonly net = `127.${1 + Math.floor(Math.random() * 250)}.${Math.floor(Math.random() * 250)}`;
  readonly port = 10_000 + Math.floor(Math.random() * 20_000);
  readonly socket = UdpSocket.bind(`${this.net}.1`, this.port);
  readonly clients = ["2", "3"].map((last) =>
    Deno.listenDatagram({ transport: "udp", hostname: `${this.net}.${last}`, port: 0 })
  );
  readonly #batch = new UdpBatch(16, 100, 100);

  address(client: number): number {
    return number(`${this.net}.${client + 2}`);
  }

  /** The senders that are heard when both clients send, one after the other. */
  async heard(): Promise<number[]> {
    const to = { transport: "udp", hostname: `${this.net}.1`, port: this.port } as const;
    for (const client of this.clients) await client.send(new Uint8Array(4), to);
    new PollSet([this.socket.fd]).wait(200);
    return Array.from({ length: this.#batch.receive(this.socket.fd) }, (_, slot) => {
      this.#batch.take(slot);
      return this.#batch.sourceAddress(slot);
    });
  }

  [Symbol.dispose](): void {
    for (const client of this.clients) client.close();
    this.socket.close();
  }
}

Deno.test("muted sources are not heard, others are, and what is dropped is counted", async () => {
  using world = new World();
  const { fd } = world.socket;
  const both = [world.address(0), world.address(1)];
  assert.deepEqual(await world.heard(), both);
  assert.equal(droppedPackets(fd), 0);
  muteSources(fd, [world.address(0)]);
  assert.deepEqual(await world.heard(), [world.address(1)]);
  assert.equal(droppedPackets(fd), 1);
  // Among as many as there can be, at both ends.
  const many = Array.from({ length: MAX_MUTED_SOURCES - 1 }, (_, i) => number(`10.0.0.${i}`));
  muteSources(fd, [...many, world.address(1)]);
  assert.deepEqual(await world.heard(), [world.address(0)]);
  muteSources(fd, [world.address(0), ...many, world.address(1)]);
  assert.deepEqual(await world.heard(), [world.address(1)], "one too many: it is heard");
  assert.equal(droppedPackets(fd), 3);
  muteSources(fd, []);
  assert.deepEqual(await world.heard(), both);
  muteSources(fd, []);
  assert.deepEqual(await world.heard(), both);
});
