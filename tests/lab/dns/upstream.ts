/**
 * An upstream resolver of the lab that says exactly what a test tells it. Arguments: the port, and
 * the addresses it has. Takes orders from standard input, and prints what it was asked.
 */
import readline from "node:readline";
import process from "node:process";
import { readTcpMessage, writeTcpMessage } from "../../../lib/dns/framing.ts";
import { pause } from "../../../lib/pause.ts";
import { type Heard, orderSchema, questionKey, READY, type Said } from "./lines.ts";

const [port = "", ...addresses] = Deno.args;
const sockets = new Map<string, Deno.DatagramConn>();
const script = new Map<string, readonly Said[]>();

function print(line: Heard): void {
  console.log(JSON.stringify(line));
}

/** What is said where no test has told otherwise: 93.184.216.34, or that there is no such record. */
function usual(key: string): Said {
  const isAddress = key.endsWith("00010001");
  const record = isAddress ? "c00c000100010000003c00045db8d822" : "";
  return { hex: `000081800001000${isAddress ? 1 : 0}00000000${key}${record}` };
}

/** Sends what is to be said to `query`. */
async function answer(
  query: Uint8Array,
  at: string,
  by: "udp" | "tcp",
  send: (packet: Uint8Array, from: string) => Promise<unknown>,
): Promise<void> {
  const key = questionKey(query);
  print({ at, by, hex: query.toHex() });
  if (key === null) return;
  const said = script.get(`${by} ${at} ${key}`) ?? script.get(`${by} ${key}`) ?? [usual(key)];
  for (const { hex, idXor = 0, from = at, afterMs = 0 } of said) {
    await pause(afterMs);
    const packet = Uint8Array.fromHex(hex);
    packet[0] = query[0] ?? 0;
    packet[1] = (query[1] ?? 0) ^ idXor;
    await send(packet, from);
  }
}

async function serveUdp(at: string, socket: Deno.DatagramConn): Promise<void> {
  for await (const [query, client] of socket) {
    // Whoever asked may be gone by the time of a late answer.
    void answer(query, at, "udp", async (packet, from) => {
      await (sockets.get(from) ?? socket).send(packet, client);
    }).catch(() => {});
  }
}

async function serveTcp(at: string, listener: Deno.TcpListener): Promise<void> {
  for await (const conn of listener) {
    void (async (): Promise<void> => {
      for (;;) {
        const query = await readTcpMessage(conn);
        if (query === null) return conn.close();
        await answer(query, at, "tcp", (packet) => writeTcpMessage(conn, packet));
      }
    })().catch(() => {});
  }
}

for (const hostname of addresses) {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port: Number(port) });
  sockets.set(hostname, socket);
  void serveUdp(hostname, socket);
  void serveTcp(hostname, Deno.listen({ hostname, port: Number(port) }));
}
console.log(READY);
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { call, say } = orderSchema.parse(JSON.parse(line));
  if (say !== undefined) {
    const { by, at, key, replies } = say;
    script.set(at === undefined ? `${by} ${key}` : `${by} ${at} ${key}`, replies);
  }
  // A turn of the event loop, so that sockets that were readable already come first.
  await pause(0);
  print({ call });
}
