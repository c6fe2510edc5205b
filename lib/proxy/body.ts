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
 * The next piece of a body, valid until the one behind it is asked for; null: that was all. Not an
 * async generator: most bodies are one piece that is there already, and each of those costs a dozen
 * promises.
 */
export type NextPiece = () =>
  | Uint8Array<ArrayBuffer>
  | null
  | Promise<Uint8Array<ArrayBuffer> | null>;

/**
 * The body at the front of `source`. Takes exactly the body's bytes. Its pieces throw, or reject with,
 * {@linkcode UnexpectedEnd}, also when the connection broke, or {@linkcode MalformedBody}: nothing
 * that a receiver's connection could throw.
 */
export function readBody(source: BufferedConn, framing: Framing): NextPiece {
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

function fixed(source: BufferedConn, bytes: number): NextPiece {
  let leftBytes = bytes;
  const take = (): Uint8Array<ArrayBuffer> => {
    const piece = source.take(leftBytes);
    leftBytes -= piece.length;
    return piece;
  };
  return () => {
    if (leftBytes === 0) return null;
    return source.buffered.length > 0 ? take() : more(source).then(take);
  };
}

function chunked(source: BufferedConn): NextPiece {
  const decoder = new ChunkedDecoder();
  return async () => {
    while (!decoder.done) {
      const { data, usedBytes } = decoder.decode(source.buffered);
      if (decoder.malformed) throw new MalformedBody("malformed chunked body");
      source.take(usedBytes);
      if (data.length > 0) return data;
      if (usedBytes === 0) await more(source);
    }
    return null;
  };
}

function untilClose(source: BufferedConn): NextPiece {
  return async () => {
    if (source.buffered.length === 0 && !await hasMore(source)) return null;
    return source.take(source.buffered.length);
  };
}

async function more(source: BufferedConn): Promise<void> {
  if (!await hasMore(source)) throw new UnexpectedEnd("the body is cut off");
}

async function hasMore(source: BufferedConn): Promise<boolean> {
  try {
    return await source.fill();
  } catch (cause) {
    throw new UnexpectedEnd("the connection broke within a body", { cause });
  }
}

/**
 * Writes a head, which is a byte string, and the pieces of a body in `framing`.
 * @param first The body's first piece, if it was there already: it goes out with the head, since most
 * answers are small and each write is a packet. Null: there is no body. Undefined: nobody knows yet.
 */
export async function writeMessage(
  target: BufferedConn,
  head: string,
  framing: Framing,
  next: NextPiece,
  first: Uint8Array<ArrayBuffer> | null | undefined,
): Promise<void> {
  const frame = (piece: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> =>
    framing.kind === "chunked" ? chunk(piece) : piece;
  await (first ? target.writeHead(head, frame(first)) : target.writeHead(head));
  if (first !== null) {
    for (let piece = await next(); piece !== null; piece = await next()) {
      await target.write(frame(piece));
    }
  }
  if (framing.kind === "chunked") await target.write(LAST_CHUNK);
}

const LAST_CHUNK = bytesOf("0\r\n\r\n");

/** One chunk, in one buffer: three small writes would be three packets. */
function chunk(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const head = bytesOf(`${data.length.toString(16)}\r\n`);
  const whole = new Uint8Array(head.length + data.length + 2);
  whole.set(head);
  whole.set(data, head.length);
  whole.set([0x0d, 0x0a], head.length + data.length);
  return whole;
}
