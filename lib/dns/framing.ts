/** DNS messages on a TCP stream: two bytes of length before each (RFC 1035 §4.2.2). */

const LENGTH_BYTES = 2;

/** Fills `buffer`; false when the stream ends first. */
async function readFull(conn: Deno.Conn, buffer: Uint8Array): Promise<boolean> {
  for (let at = 0; at < buffer.length;) {
    const count = await conn.read(buffer.subarray(at));
    if (count === null) return false;
    at += count;
  }
  return true;
}

/** The next message; null when the stream ends before it is complete. Has no time limit itself. */
export async function readTcpMessage(conn: Deno.Conn): Promise<Uint8Array | null> {
  const length = new Uint8Array(LENGTH_BYTES);
  if (!await readFull(conn, length)) return null;
  const message = new Uint8Array((length[0] ?? 0) << 8 | (length[1] ?? 0));
  return await readFull(conn, message) ? message : null;
}

/** Sends one message, length and content in one write (RFC 7766 §8). Has no time limit itself. */
export async function writeTcpMessage(conn: Deno.Conn, message: Uint8Array): Promise<void> {
  const framed = new Uint8Array(LENGTH_BYTES + message.length);
  framed[0] = message.length >> 8;
  framed[1] = message.length & 0xff;
  framed.set(message, LENGTH_BYTES);
  for (let at = 0; at < framed.length;) at += await conn.write(framed.subarray(at));
}
