/**
 * Finds the ClientHello at the beginning of a TLS connection and reads what policy needs of it
 * (RFC 8446 §4.1.2, §5.1). A total function from bytes to a hello, "more needed" or a refusal; it
 * copies and never consumes, because the bytes themselves go upstream unchanged.
 *
 * Every length must add up exactly: a server must not be able to read another name than we do.
 */
import { textOf } from "./bytes.ts";
import { Ip } from "../net/ip.ts";
import { Hostname } from "../net/host.ts";

/** A longer ClientHello is refused. With hybrid post-quantum key shares real ones are under 2 KiB. */
const MAX_HELLO_BYTES = 16 * 1024;

/** RFC 8446 §5.1: largest plaintext fragment of a record. */
const MAX_FRAGMENT_BYTES = 16 * 1024;
/** Real clients use one record, a few split it; thousands of tiny ones only cost us time. */
const MAX_RECORDS = 64;
const RECORD_HEADER_BYTES = 5;
const HANDSHAKE_HEADER_BYTES = 4;

const CONTENT_HANDSHAKE = 22;
const HANDSHAKE_CLIENT_HELLO = 1;
const EXTENSION_SERVER_NAME = 0;
const EXTENSION_ALPN = 16;
/** draft-ietf-tls-esni (RFC 9849): encrypted_client_hello. */
const EXTENSION_ECH = 0xfe0d;
const NAME_TYPE_HOST = 0;

/** What the hello says. */
export interface ClientHello {
  readonly kind: "hello";
  /** Null: it names no server. */
  readonly serverName: Hostname | null;
  /** It carries an encrypted hello, whose inner name nobody on the way can see (or GREASE). */
  readonly ech: boolean;
  /** Application protocols offered, as byte strings, in order of preference. */
  readonly alpn: readonly string[];
}

/** Why the bytes are no acceptable ClientHello. */
export interface HelloRefusal {
  readonly kind: "refused";
  readonly reason: "not_tls" | "malformed";
  readonly problem: string;
}

/** What the first bytes of a tunnel are. */
export type HelloResult = ClientHello | HelloRefusal | { readonly kind: "more" };

/** Thrown inside the parser, turned into a refusal at its edge. */
class Malformed extends Error {}

/**
 * Reads bounds-checked big-endian values from a part of `bytes`. A view of each part would cost more
 * than all the reading.
 */
class Cursor {
  #at: number;

  /** Reads from index `start` up to `end`. */
  constructor(readonly bytes: Uint8Array, start: number, readonly end: number) {
    this.#at = start;
  }

  get atEnd(): boolean {
    return this.#at === this.end;
  }

  /** How many bytes are left. */
  get leftBytes(): number {
    return this.end - this.#at;
  }

  number(size: 1 | 2): number {
    const at = this.skip(size);
    const first = this.bytes[at] ?? 0;
    return size === 1 ? first : first * 256 + (this.bytes[at + 1] ?? 0);
  }

  /** Goes on behind the next `count` bytes; returns where they are. */
  skip(count: number): number {
    if (count > this.leftBytes) throw new Malformed("a length runs past the end");
    const at = this.#at;
    this.#at += count;
    return at;
  }

  /** What is left, as a byte string. */
  text(): string {
    return textOf(this.bytes.subarray(this.#at, this.end));
  }

  /** A vector with a length prefix of `size` bytes, at least `least` bytes long. */
  vector(size: 1 | 2, least = 0): Cursor {
    const count = this.number(size);
    if (count < least) throw new Malformed("a vector is too short");
    const at = this.skip(count);
    return new Cursor(this.bytes, at, at + count);
  }

  assertEnd(what: string): void {
    if (!this.atEnd) throw new Malformed(`bytes are left over behind ${what}`);
  }
}

/** Looks at everything the client has sent so far. */
export function parseClientHello(bytes: Uint8Array): HelloResult {
  const message = assembleHandshake(bytes);
  if (!(message instanceof Uint8Array)) return message;
  try {
    return parseBody(message);
  } catch (thrown) {
    if (!(thrown instanceof Malformed)) throw thrown;
    return malformed(thrown.message);
  }
}

function malformed(problem: string): HelloRefusal {
  return { kind: "refused", reason: "malformed", problem };
}

function notTls(problem: string): HelloRefusal {
  return { kind: "refused", reason: "not_tls", problem };
}

/** Joins the record fragments that carry the first handshake message; its body, without header. */
function assembleHandshake(bytes: Uint8Array): Uint8Array | HelloRefusal | { kind: "more" } {
  const fragments: Uint8Array[] = [];
  let messageBytes: number | null = null;
  let announcedBytes = 0;
  let at = 0;
  while (messageBytes === null || announcedBytes < messageBytes) {
    if (fragments.length === MAX_RECORDS) return malformed("a ClientHello in too many records");
    const header = bytes.subarray(at, at + RECORD_HEADER_BYTES);
    // Judge what is there already: an SSH client waits for an answer and never sends five bytes.
    if (header.length > 0 && header[0] !== CONTENT_HANDSHAKE) {
      return notTls("the first record is no handshake");
    }
    if (header.length > 1 && header[1] !== 3) return notTls("the record version is not TLS");
    if (header.length < RECORD_HEADER_BYTES) return { kind: "more" };
    const [, , , high = 0, low = 0] = header;
    const fragmentBytes = high * 256 + low;
    if (fragmentBytes === 0) return malformed("an empty handshake record");
    if (fragmentBytes > MAX_FRAGMENT_BYTES) return malformed("a record of more than 16 KiB");
    at += RECORD_HEADER_BYTES;
    fragments.push(bytes.subarray(at, at + fragmentBytes));
    at += fragmentBytes;
    announcedBytes += fragmentBytes;

    if (messageBytes === null) {
      const start = joined(fragments, HANDSHAKE_HEADER_BYTES);
      if (start.length > 0 && start[0] !== HANDSHAKE_CLIENT_HELLO) {
        return notTls("the first handshake message is no ClientHello");
      }
      if (start.length === HANDSHAKE_HEADER_BYTES) {
        const [, top = 0, middle = 0, bottom = 0] = start;
        messageBytes = HANDSHAKE_HEADER_BYTES + top * 65_536 + middle * 256 + bottom;
        if (messageBytes > MAX_HELLO_BYTES) return malformed("a ClientHello of more than 16 KiB");
      }
    }
    // Nothing may follow the hello inside its last record: the server has not answered yet.
    if (messageBytes !== null && announcedBytes > messageBytes) {
      return malformed("bytes follow the ClientHello in its record");
    }
    if (at > bytes.length) return { kind: "more" };
  }
  return joined(fragments, messageBytes).subarray(HANDSHAKE_HEADER_BYTES);
}

/** The first `limitBytes` of the fragments, joined. */
function joined(fragments: readonly Uint8Array[], limitBytes: number): Uint8Array {
  const [only] = fragments;
  if (only !== undefined && fragments.length === 1) return only.subarray(0, limitBytes);
  const total = fragments.reduce((sum, fragment) => sum + fragment.length, 0);
  const result = new Uint8Array(Math.min(total, limitBytes));
  let at = 0;
  for (const fragment of fragments) {
    const part = fragment.subarray(0, result.length - at);
    result.set(part, at);
    at += part.length;
  }
  return result;
}

function parseBody(message: Uint8Array): HelloResult {
  const body = new Cursor(message, 0, message.length);
  if (body.number(2) < 0x0301) throw new Malformed("a version before TLS 1.0");
  body.skip(32); // random
  if (body.vector(1).leftBytes > 32) throw new Malformed("a session id of more than 32 bytes");
  if (body.vector(2, 2).leftBytes % 2 !== 0) throw new Malformed("half a cipher suite");
  body.vector(1, 1); // compression methods
  let serverName: Hostname | null = null;
  let ech = false;
  let alpn: readonly string[] = [];
  if (!body.atEnd) {
    const extensions = body.vector(2);
    body.assertEnd("the extensions");
    const seen = new Set<number>();
    while (!extensions.atEnd) {
      const type = extensions.number(2);
      const content = extensions.vector(2);
      // RFC 8446 §4.2: no extension twice. A second server name is the attack.
      if (seen.has(type)) throw new Malformed("an extension appears twice");
      seen.add(type);
      if (type === EXTENSION_SERVER_NAME) serverName = parseServerName(content);
      if (type === EXTENSION_ALPN) alpn = parseAlpn(content);
      if (type === EXTENSION_ECH) ech = true;
    }
  }
  return { kind: "hello", serverName, ech, alpn };
}

/** RFC 6066 §3: a list that may hold one name of each type, and only one type is defined. */
function parseServerName(content: Cursor): Hostname {
  const list = content.vector(2, 1);
  content.assertEnd("the server name list");
  if (list.number(1) !== NAME_TYPE_HOST) throw new Malformed("a server name of unknown type");
  const text = list.vector(2, 1).text();
  list.assertEnd("the server name");
  const name = /^[\x21-\x7e]+$/.test(text) && Ip.parse(text) === null ? Hostname.parse(text) : null;
  if (name === null) throw new Malformed("a server name that is no hostname");
  return name;
}

/** RFC 7301 §3.1. */
function parseAlpn(content: Cursor): string[] {
  const list = content.vector(2, 2);
  content.assertEnd("the protocol list");
  const protocols: string[] = [];
  while (!list.atEnd) protocols.push(list.vector(1, 1).text());
  return protocols;
}
