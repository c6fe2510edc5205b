/** From messages to bytes. */
import {
  CLASS_IN,
  HEADER_BYTES,
  MAX_MESSAGE_BYTES,
  PLAIN_UDP_PAYLOAD_BYTES,
  Rcode,
  RecordType,
  UDP_PAYLOAD_BYTES,
} from "./codes.ts";
import type { Query, Question, ResourceRecord } from "./message.ts";
import { readName, ROOT, type WireName } from "./name.ts";
import { DNSSEC_OK, Flag, OPCODE_SHIFT } from "./parse.ts";

/** An Extended DNS Error (RFC 8914): why a query was refused, for people and programs. */
export interface Ede {
  /** One of `ExtendedError`. */
  readonly code: number;
  /** ASCII. */
  readonly text: string;
}

/** What a reply to a well-formed query says. */
export interface Reply {
  readonly rcode: Rcode;
  /** AA: the filter itself is the authority for names it blocks (S007-IF-006). */
  readonly authoritative: boolean;
  readonly answers: readonly ResourceRecord[];
  readonly authority: readonly ResourceRecord[];
  /** Sent only to clients that speak EDNS. */
  readonly ede: Ede | null;
}

const EDNS_OPTION_EDE = 15;

/** A pointer has 14 bits for its offset (RFC 1035 §4.1.4). */
const MAX_POINTER_TARGET = 0x3fff;

/** Types whose data is exactly one name that may be compressed (RFC 3597 §4). */
const COMPRESSIBLE: ReadonlySet<number> = new Set([
  RecordType.NS,
  RecordType.CNAME,
  RecordType.PTR,
]);

/** The message did not fit. */
class Overflow extends Error {}

/** Appends to one fixed buffer; throws {@linkcode Overflow} rather than write past `limit`. */
class Writer {
  length = 0;
  readonly #view: DataView;
  readonly #names = new Map<WireName, number>();

  constructor(readonly buffer: Uint8Array<ArrayBuffer>, readonly limit: number) {
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  }

  #grow(count: number): number {
    const at = this.length;
    if (at + count > this.limit) throw new Overflow();
    this.length += count;
    return at;
  }

  u16(value: number): void {
    this.#view.setUint16(this.#grow(2), value);
  }

  u32(value: number): void {
    this.#view.setUint32(this.#grow(4), value);
  }

  /** Text whose characters are all ASCII. */
  ascii(text: string): void {
    const at = this.#grow(text.length);
    for (let i = 0; i < text.length; i++) this.buffer[at + i] = text.charCodeAt(i) & 0x7f;
  }

  bytes(bytes: Uint8Array): void {
    this.buffer.set(bytes, this.#grow(bytes.length));
  }

  /** Remembers that `name` stands uncompressed at `at`, for later pointers to it and its parents. */
  remember(name: WireName, at: number): void {
    for (let i = 0; name.charCodeAt(i) > 0; i += 1 + name.charCodeAt(i)) {
      const suffix = name.slice(i);
      if (at + i > MAX_POINTER_TARGET || this.#names.has(suffix)) return;
      this.#names.set(suffix, at + i);
    }
  }

  /** Writes a name, as far as needed, and a pointer to the rest where that was written before. */
  name(name: WireName): void {
    const start = this.length;
    for (let i = 0;; i += 1 + name.charCodeAt(i)) {
      const known = this.#names.get(name.slice(i));
      if (known !== undefined) {
        this.u16(0xc000 | known);
        break;
      }
      const label = 1 + name.charCodeAt(i);
      const at = this.#grow(label);
      for (let k = 0; k < label; k++) this.buffer[at + k] = name.charCodeAt(i + k);
      if (label === 1) break;
    }
    this.remember(name, start);
  }

  record(record: ResourceRecord): void {
    this.name(record.name);
    this.u16(record.type);
    this.u16(CLASS_IN);
    this.u32(record.ttlSecs);
    const lengthAt = this.length;
    this.u16(0);
    const target = COMPRESSIBLE.has(record.type) ? readName(record.data, 0) : null;
    if (target === null) this.bytes(record.data);
    else this.name(target.name);
    this.#view.setUint16(lengthAt, this.length - lengthAt - 2);
  }

  opt(rcode: number, dnssecOk: boolean, ede: Ede | null): void {
    this.name(ROOT);
    this.u16(RecordType.OPT);
    this.u16(UDP_PAYLOAD_BYTES);
    this.u32(rcode >> 4 << 24 | (dnssecOk ? DNSSEC_OK : 0));
    if (ede === null) {
      this.u16(0);
      return;
    }
    this.u16(4 + 2 + ede.text.length);
    this.u16(EDNS_OPTION_EDE);
    this.u16(2 + ede.text.length);
    this.u16(ede.code);
    this.ascii(ede.text);
  }

  header(id: number, flags: number, counts: readonly [number, number, number, number]): void {
    this.u16(id);
    this.u16(flags);
    for (const count of counts) this.u16(count);
  }

  message(): Uint8Array<ArrayBuffer> {
    return this.buffer.slice(0, this.length);
  }
}

// One buffer for all messages: building is synchronous and ends with a copy of the exact size.
const scratch = new Uint8Array(MAX_MESSAGE_BYTES);

/**
 * The largest reply that may be sent to a client by UDP: what it announced, never more than ours.
 * A reply is thus at most some 40 times the smallest query, and goes only to addresses that are
 * pinned to an agent's port: nobody can be flooded through the filter (ADV-DNS-18).
 */
export function udpReplyLimitBytes(query: Query): number {
  return Math.min(query.edns?.udpPayloadBytes ?? PLAIN_UDP_PAYLOAD_BYTES, UDP_PAYLOAD_BYTES);
}

function writeReply(
  query: Query,
  reply: Reply,
  truncated: boolean,
  maxBytes: number,
): Uint8Array<ArrayBuffer> {
  const writer = new Writer(scratch, maxBytes);
  const flags = Flag.QR | Flag.RA | (truncated ? Flag.TC : 0) |
    (reply.authoritative ? Flag.AA : 0) | (query.recursionDesired ? Flag.RD : 0) |
    (query.checkingDisabled ? Flag.CD : 0) | reply.rcode & 0x0f;
  const answers = truncated ? [] : reply.answers;
  const authority = truncated ? [] : reply.authority;
  writer.header(query.id, flags, [1, answers.length, authority.length, query.edns ? 1 : 0]);
  writer.bytes(query.questionBytes);
  writer.remember(query.question.name, HEADER_BYTES);
  for (const record of answers) writer.record(record);
  for (const record of authority) writer.record(record);
  if (query.edns !== null) {
    writer.opt(reply.rcode, query.edns.dnssecOk, truncated ? null : reply.ede);
  }
  return writer.message();
}

/**
 * The reply to `query` in at most `maxBytes`. One that does not fit becomes a truncated one without
 * records (TC), which makes the client ask again by TCP (RFC 2181 §9); where even TCP's 65,535 bytes
 * are too few, that is the best that can be said as well.
 */
export function buildReply(query: Query, reply: Reply, maxBytes: number): Uint8Array<ArrayBuffer> {
  try {
    return writeReply(query, reply, false, maxBytes);
  } catch (thrown) {
    if (!(thrown instanceof Overflow)) throw thrown;
    // Header, question and an empty OPT are at most 282 bytes: they always fit.
    return writeReply(query, reply, true, maxBytes);
  }
}

/** What is echoed of a message whose question could not be, or must not be, read. */
export interface RefusedHeader {
  readonly id: number;
  readonly opcode: number;
  readonly recursionDesired: boolean;
  readonly rcode: Rcode;
}

/** A reply of a bare header, for what is not a proper query; with OPT where the code needs one. */
export function buildRefusal(header: RefusedHeader): Uint8Array<ArrayBuffer> {
  const writer = new Writer(scratch, PLAIN_UDP_PAYLOAD_BYTES);
  const extended = header.rcode > 0x0f;
  const flags = Flag.QR | Flag.RA | header.opcode << OPCODE_SHIFT |
    (header.recursionDesired ? Flag.RD : 0) | header.rcode & 0x0f;
  writer.header(header.id, flags, [0, 0, 0, extended ? 1 : 0]);
  if (extended) writer.opt(header.rcode, false, null);
  return writer.message();
}

/**
 * Our own query to an upstream: nothing of the client's packet but name, type and the DO bit.
 * @param edns Null for a server that does not speak EDNS.
 */
export function buildQuery(
  id: number,
  question: Question,
  edns: { readonly dnssecOk: boolean } | null,
): Uint8Array<ArrayBuffer> {
  const writer = new Writer(scratch, PLAIN_UDP_PAYLOAD_BYTES);
  writer.header(id, Flag.RD, [1, 0, 0, edns === null ? 0 : 1]);
  writer.name(question.name);
  writer.u16(question.type);
  writer.u16(CLASS_IN);
  if (edns !== null) writer.opt(Rcode.NOERROR, edns.dnssecOk, null);
  return writer.message();
}
