/**
 * What the client says to the origin through a tunnel: a real ClientHello, as a proxy that checks
 * the server name wants it, then a TLS record that holds the number of bytes it wants back.
 */
import { Duplex } from "node:stream";
import tls from "node:tls";

const HEADER_BYTES = 5;
const APPLICATION_DATA = 23;
/** Type, protocol version 1.2, length (RFC 8446 section 5.1), and a 64-bit number. */
const WANTED_RECORD_BYTES = HEADER_BYTES + 8;

/** The first flight of a TLS client, as Node makes it: one record with the ClientHello. */
export function clientHello(serverName: string): Promise<Uint8Array> {
  return new Promise((resolve) => {
    const socket = new Duplex({
      read: () => {},
      write: (chunk: Uint8Array, _encoding, done) => {
        resolve(chunk);
        done();
      },
    });
    tls.connect({ socket, servername: serverName, ALPNProtocols: ["http/1.1"] });
  });
}

/** All that the client sends: the ClientHello for `serverName`, and the number of bytes it wants. */
export async function wantedMessage(serverName: string, bytes: number): Promise<Uint8Array> {
  const hello = await clientHello(serverName);
  const message = new Uint8Array(hello.length + WANTED_RECORD_BYTES);
  message.set(hello);
  const record = new DataView(message.buffer, hello.length);
  record.setUint8(0, APPLICATION_DATA);
  record.setUint16(1, 0x0303);
  record.setUint16(3, WANTED_RECORD_BYTES - HEADER_BYTES);
  record.setBigUint64(HEADER_BYTES, BigInt(bytes));
  return message;
}

/** Reads what {@linkcode wantedMessage} made; returns the number of bytes wanted. */
export async function readWanted(connection: Deno.TcpConn): Promise<number> {
  const buffer = new Uint8Array(16 * 1024);
  const view = new DataView(buffer.buffer);
  for (let filled = 0;;) {
    const count = await connection.read(buffer.subarray(filled));
    if (count === null) throw new Error("the client left before it said what it wants");
    filled += count;
    if (filled < HEADER_BYTES) continue;
    const helloEnd = HEADER_BYTES + view.getUint16(3);
    if (filled < helloEnd + WANTED_RECORD_BYTES) continue;
    return Number(view.getBigUint64(helloEnd + HEADER_BYTES));
  }
}
