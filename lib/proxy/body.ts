/**
 * Message bodies: read by the framing they came in, written in a framing of ours. One piece is
 * written before the next is read, so a slow receiver holds one buffer and no more.
 */
import { bytesOf } from "./bytes.ts";
import { ChunkedDecoder } from "./chunked.ts";
import type { ResponseBody } from "./response.ts";
import { type BufferedConn, UnexpectedEnd } from "./stream.ts";

/** Every way a body can be framed; a request's is never `until_close`. */
export type Framing = ResponseBody;

/** Thrown when a chunked body is not one. */
export class MalformedBody extends Error {
  override readonly name = "MalformedBody";
}

/**
 * The body at the front of `source`, in pieces that are valid until the next one is asked for.
 * Takes exactly the body's bytes. Throws {@linkcode UnexpectedEnd} or {@linkcode MalformedBody}.
 */
export function readBody(
  source: BufferedConn,
  framing: Framing,
): AsyncIterable<Uint8Array<ArrayBuffer>> {
  switch (framing.kind) {
    case "none":
      return fixed(source, 0);
    case "length":
      return fixed(source, framing.bytes);
    case "chunked":
      return chunked(source);
    case "until_close":
      return untilClose(source);
  }
}

async function* fixed(
  source: BufferedConn,
  bytes: number,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for (let leftBytes = bytes; leftBytes > 0;) {
    await need(source);
    const piece = source.take(leftBytes);
    leftBytes -= piece.length;
    yield piece;
  }
}

async function* chunked(source: BufferedConn): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const decoder = new ChunkedDecoder();
  while (!decoder.done) {
    const { data, usedBytes } = decoder.decode(source.buffered);
    if (decoder.malformed) throw new MalformedBody("malformed chunked body");
    source.take(usedBytes);
    if (data.length > 0) yield data;
    if (usedBytes === 0 && !await source.fill()) throw new UnexpectedEnd("the body is cut off");
  }
}

async function* untilClose(source: BufferedConn): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  do {
    const piece = source.take(source.buffered.length);
    if (piece.length > 0) yield piece;
  } while (await source.fill());
}

async function need(source: BufferedConn): Promise<void> {
  if (source.buffered.length === 0 && !await source.fill()) {
    throw new UnexpectedEnd("the body is cut off");
  }
}

/**
 * Writes a head, and the pieces of a body in `framing`.
 * @param isWaiting Whether the first piece is there already: it goes out with the head then, since
 * most answers are small and each write is a packet.
 */
export async function writeMessage(
  target: BufferedConn,
  head: Uint8Array<ArrayBuffer>,
  framing: Framing,
  pieces: AsyncIterable<Uint8Array<ArrayBuffer>>,
  isWaiting: boolean,
): Promise<void> {
  let front: Uint8Array<ArrayBuffer> | null = head;
  if (!isWaiting) {
    await target.write(head);
    front = null;
  }
  for await (const piece of pieces) {
    const framed = framing.kind === "chunked" ? chunk(piece) : piece;
    await target.write(front === null ? framed : concat(front, framed));
    front = null;
  }
  if (front !== null) await target.write(front);
  if (framing.kind === "chunked") await target.write(LAST_CHUNK);
}

const LAST_CHUNK = bytesOf("0\r\n\r\n");

function concat(
  one: Uint8Array<ArrayBuffer>,
  other: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(one.length + other.length);
  whole.set(one);
  whole.set(other, one.length);
  return whole;
}

/** One chunk, in one buffer: three small writes would be three packets. */
function chunk(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const head = bytesOf(`${data.length.toString(16)}\r\n`);
  const whole = new Uint8Array(head.length + data.length + 2);
  whole.set(head);
  whole.set(data, head.length);
  whole.set([0x0d, 0x0a], head.length + data.length);
  return whole;
}
