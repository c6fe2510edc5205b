/** A DNS client of the lab that sends any bytes. Takes orders from standard input, prints replies. */
import readline from "node:readline";
import process from "node:process";
import { readTcpMessage } from "../../../lib/dns/framing.ts";
import { pause } from "../../../lib/pause.ts";
import { READY, type Received, type Send, sendSchema } from "./lines.ts";

/** A socket of either kind. */
interface Peer extends Disposable {
  send(packet: Uint8Array): Promise<unknown>;
  /** The next message; null when the other side has ended. */
  receive(): Promise<Uint8Array | null>;
}

function udpPeer({ to: hostname, port }: Send): Peer {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
  return {
    send: (packet) => socket.send(packet, { transport: "udp", hostname, port }),
    receive: async () => (await socket.receive(new Uint8Array(65_535)))[0],
    [Symbol.dispose]: () => socket.close(),
  };
}

async function tcpPeer({ to: hostname, port, halfClose, packets }: Send): Promise<Peer> {
  const conn = await Deno.connect({ hostname, port });
  let unsent = packets.length;
  return {
    send: async (packet) => {
      await conn.write(packet);
      if (--unsent === 0 && halfClose) await conn.closeWrite();
    },
    receive: () => readTcpMessage(conn),
    [Symbol.dispose]: () => conn.close(),
  };
}

/** Sends all, and reads until there are enough replies or the server has ended it. */
async function exchange(send: Send, peer: Peer, replies: string[]): Promise<boolean> {
  for (const hex of send.packets) await peer.send(Uint8Array.fromHex(hex));
  while (replies.length < send.replies) {
    const reply = await peer.receive();
    if (reply === null) return true;
    replies.push(reply.toHex());
  }
  return false;
}

async function serve(send: Send): Promise<Received> {
  const { call, by, timeoutMs } = send;
  const replies: string[] = [];
  using peer = by === "udp" ? udpPeer(send) : await tcpPeer(send).catch(() => null);
  if (peer === null) return { call, replies, ended: true };
  const limit = new AbortController();
  const ended = await Promise.race([
    // A reset is an end like any other.
    exchange(send, peer, replies).catch(() => true),
    pause(timeoutMs, limit.signal).then(() => false),
  ]);
  limit.abort();
  return { call, replies, ended };
}

console.log(READY);
for await (const line of readline.createInterface({ input: process.stdin })) {
  void serve(sendSchema.parse(JSON.parse(line))).then((received) =>
    console.log(JSON.stringify(received))
  );
}
