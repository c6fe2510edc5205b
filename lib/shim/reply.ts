/**
 * An HTTP/1.1 reply out of bytes, strictly: what is not exactly such a reply is no verdict.
 *
 * The shim runs once for each tool call, and loading an HTTP client would cost more than asking.
 */

/** Whole reply, head included (S005-EC-005). */
export const MAX_REPLY_BYTES = 65_536 + 8_192;

/** What a server answered. */
export interface Reply {
  readonly status: number;
  readonly body: unknown;
}

/** What came is no reply that can be trusted. */
export class BadReply extends Error {
  override readonly name = "BadReply";
}

/**
 * The reply that `bytes` begin with and end with, or null while some of it is missing.
 * @throws BadReply
 */
export function parseReply(bytes: Uint8Array): Reply | null {
  if (bytes.length > MAX_REPLY_BYTES) throw new BadReply("the reply is too large");
  const text = new TextDecoder("latin1").decode(bytes);
  const headEnd = text.indexOf("\r\n\r\n");
  if (headEnd < 0) return null;
  const [statusLine = "", ...lines] = text.slice(0, headEnd).split("\r\n");
  const status = Number(/^HTTP\/1\.1 ([1-5][0-9]{2})(?: |$)/.exec(statusLine)?.[1]);
  if (Number.isNaN(status)) throw new BadReply("it is not HTTP");
  const bodyStart = headEnd + 4;
  const lengths = valuesOf(lines, "content-length");
  const [length = ""] = lengths;
  if (lengths.length !== 1 || !/^[0-9]{1,6}$/.test(length)) {
    throw new BadReply("the reply has no length");
  }
  const end = bodyStart + Number(length);
  if (end > MAX_REPLY_BYTES) throw new BadReply("the reply is too large");
  if (bytes.length < end) return null;
  if (bytes.length > end) throw new BadReply("more than one reply");
  return { status, body: parseJson(bytes.subarray(bodyStart)) };
}

function valuesOf(lines: readonly string[], name: string): string[] {
  return lines.flatMap((line) => {
    const colon = line.indexOf(":");
    return line.slice(0, colon).toLowerCase() === name ? [line.slice(colon + 1).trim()] : [];
  });
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new BadReply("the reply is not JSON");
  }
}
