/**
 * The servers behind every proxy and resolver that is measured. Argument: the address to listen on.
 * Written to cost little, because they share the processors with what is measured.
 *
 * - DNS on UDP port 53: every name has this address.
 * - Port 443: reads one TLS record of any kind (the ClientHello), then one that holds a number of
 *   bytes, sends that many and closes.
 * - HTTP on port 80: a small answer to each request.
 */
import { Buffer } from "node:buffer";
// @ts-types="@types/dns-packet"
import packet from "dns-packet";
import { readWanted } from "./wanted.ts";

const [hostname = "127.0.0.1"] = Deno.args;

/** Longer than any run: a name that is warm stays so. */
const TTL_SECS = 86_400;

async function serveDns(): Promise<void> {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port: 53 });
  for await (const [query, sender] of socket) {
    const { id = 0, questions = [] } = packet.decode(Buffer.from(query));
    const answers = questions.filter(({ type }) => type === "A")
      .map(({ name }) => ({ name, type: "A" as const, ttl: TTL_SECS, data: hostname }));
    const flags = packet.RECURSION_DESIRED | packet.RECURSION_AVAILABLE;
    await socket.send(
      packet.encode({ type: "response", id, flags, questions, answers }),
      sender,
    );
  }
}

function serveTcp(port: number, serve: (connection: Deno.TcpConn) => Promise<void>): void {
  const listener = Deno.listen({ hostname, port });
  void (async (): Promise<void> => {
    for await (const connection of listener) {
      void serve(connection).catch(() => {}).finally(() => connection.close());
    }
  })();
}

/** As much as fills a socket's buffer in one call. */
const STREAM = new Uint8Array(1024 * 1024);

async function stream(connection: Deno.TcpConn): Promise<void> {
  for (let rest = await readWanted(connection); rest > 0;) {
    rest -= await connection.write(STREAM.subarray(0, Math.min(rest, STREAM.length)));
  }
}

const PAGE = new TextEncoder().encode(
  `HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n${"x".repeat(128)}`,
);

/** Requests without bodies, one after the other. */
async function page(connection: Deno.TcpConn): Promise<void> {
  const decoder = new TextDecoder("latin1");
  const buffer = new Uint8Array(16 * 1024);
  for (let head = "";;) {
    const count = await connection.read(buffer);
    if (count === null) return;
    head += decoder.decode(buffer.subarray(0, count));
    for (let end: number; (end = head.indexOf("\r\n\r\n")) >= 0; head = head.slice(end + 4)) {
      await connection.write(PAGE);
      if (/^connection: *close/im.test(head.slice(0, end))) return;
    }
  }
}

serveTcp(443, stream);
serveTcp(80, page);
console.log("ready");
await serveDns();
