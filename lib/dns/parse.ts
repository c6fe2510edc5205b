/**
 * From bytes to messages. Both ends of the filter read bytes that somebody hostile may have chosen,
 * so every function here is total: a value or a typed refusal, never a throw, and work that is
 * bounded by the length of the packet.
 */
import { CLASS_IN, HEADER_BYTES, PLAIN_UDP_PAYLOAD_BYTES, Rcode, RecordType } from "./codes.ts";
import type { Edns, ParsedQuery, ParsedResponse, Question, ResourceRecord } from "./message.ts";
import { readName, ROOT, type WireName } from "./name.ts";

/** Bits of the header's second 16-bit word (RFC 1035 §4.1.1, RFC 4035 §3.1.6). */
export const Flag = {
  QR: 0x8000,
  AA: 0x0400,
  TC: 0x0200,
  RD: 0x0100,
  RA: 0x0080,
  CD: 0x0010,
} as const;

/** Where the opcode stands in the flags word. */
export const OPCODE_SHIFT = 11;

/** The DO bit within the OPT record's TTL field (RFC 3225 §3). */
export const DNSSEC_OK = 0x8000;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

interface QuestionAt {
  readonly question: Question;
  readonly qclass: number;
  readonly end: number;
}

function readQuestion(message: Uint8Array, view: DataView): QuestionAt | null {
  const name = readName(message, HEADER_BYTES);
  if (name === null || name.end + 4 > message.length) return null;
  return {
    question: { name: name.name, type: view.getUint16(name.end) },
    qclass: view.getUint16(name.end + 2),
    end: name.end + 4,
  };
}

/** One record of any class, before its data is understood. */
interface RawRecord {
  readonly name: WireName;
  readonly type: number;
  /** Class; for OPT the payload size. */
  readonly rclass: number;
  /** TTL; for OPT extended code, version and flags. */
  readonly ttl: number;
  readonly dataStart: number;
  /** End of the data, and so of the record. */
  readonly end: number;
}

function readRecord(message: Uint8Array, view: DataView, start: number): RawRecord | null {
  const name = readName(message, start);
  if (name === null || name.end + 10 > message.length) return null;
  const dataStart = name.end + 10;
  const end = dataStart + view.getUint16(name.end + 8);
  if (end > message.length) return null;
  return {
    name: name.name,
    type: view.getUint16(name.end),
    rclass: view.getUint16(name.end + 2),
    ttl: view.getUint32(name.end + 4),
    dataStart,
    end,
  };
}

/** Whether the options of an OPT record fill its data exactly (RFC 6891 §6.1.2). */
function optionsFit(view: DataView, record: RawRecord): boolean {
  let at = record.dataStart;
  while (at < record.end) {
    if (at + 4 > record.end) return false;
    at += 4 + view.getUint16(at + 2);
  }
  return at === record.end;
}

/** Meta types that ask for no record: OPT, and 128–254 (TKEY, TSIG, zone transfers; RFC 6895 §3.1). */
function isMetaType(type: number): boolean {
  return type === 0 || type === RecordType.OPT || (type >= 128 && type < RecordType.ANY);
}

/**
 * Reads a client's packet. Exactly one question, class IN, opcode QUERY, nothing in the answer and
 * authority sections, nothing but one OPT in the additional section, no byte left over: a stub
 * resolver sends nothing else, and what nobody needs must not reach an upstream.
 */
export function parseQuery(packet: Uint8Array): ParsedQuery {
  if (packet.length < HEADER_BYTES) return { kind: "drop", why: "shorter than a header" };
  const view = viewOf(packet);
  const flags = view.getUint16(2);
  // Answering an answer could make two servers talk for ever.
  if ((flags & Flag.QR) !== 0) return { kind: "drop", why: "not a query but a reply" };
  const id = view.getUint16(0);
  const opcode = flags >> OPCODE_SHIFT & 0x0f;
  const recursionDesired = (flags & Flag.RD) !== 0;
  const refuse = (rcode: Rcode, why: string): ParsedQuery => {
    return { kind: "refusal", id, opcode, recursionDesired, rcode, why };
  };

  if (opcode !== 0) return refuse(Rcode.NOTIMP, `opcode ${opcode}`);
  if ((flags & Flag.TC) !== 0) return refuse(Rcode.FORMERR, "truncated query");
  if (view.getUint16(4) !== 1) {
    return refuse(Rcode.FORMERR, `${view.getUint16(4)} questions`);
  }
  if (view.getUint16(6) !== 0 || view.getUint16(8) !== 0) {
    return refuse(Rcode.FORMERR, "records in answer or authority");
  }
  const asked = readQuestion(packet, view);
  if (asked === null) return refuse(Rcode.FORMERR, "question cannot be read");
  const additional = view.getUint16(10);
  let edns: Edns | null = null;
  let end = asked.end;
  if (additional > 1) return refuse(Rcode.FORMERR, `${additional} additional records`);
  if (additional === 1) {
    const record = readRecord(packet, view, end);
    if (record === null) return refuse(Rcode.FORMERR, "additional record cannot be read");
    if (record.type !== RecordType.OPT || record.name !== ROOT || !optionsFit(view, record)) {
      return refuse(Rcode.FORMERR, "additional record is not a proper OPT");
    }
    const version = record.ttl >> 16 & 0xff;
    if (version !== 0) return refuse(Rcode.BADVERS, `EDNS version ${version}`);
    edns = {
      // RFC 6891 §6.2.3: smaller values mean 512.
      udpPayloadBytes: Math.max(record.rclass, PLAIN_UDP_PAYLOAD_BYTES),
      dnssecOk: (record.ttl & DNSSEC_OK) !== 0,
    };
    end = record.end;
  }
  if (end !== packet.length) return refuse(Rcode.FORMERR, "bytes after the message");
  if (asked.qclass !== CLASS_IN) return refuse(Rcode.NOTIMP, `class ${asked.qclass}`);
  if (isMetaType(asked.question.type)) {
    return refuse(Rcode.NOTIMP, `type ${asked.question.type}`);
  }
  return {
    kind: "query",
    query: {
      id,
      recursionDesired,
      checkingDisabled: (flags & Flag.CD) !== 0,
      question: asked.question,
      questionBytes: packet.slice(HEADER_BYTES, asked.end),
      edns,
    },
  };
}

/** How the data of a type is built, where it holds names that may be compressed. */
interface DataLayout {
  /** Bytes before the names. */
  readonly lead: number;
  readonly names: number;
  /** Bytes after the names. */
  readonly tail: number;
}

const ONE_NAME: DataLayout = { lead: 0, names: 1, tail: 0 };

/** The types whose names a receiver has to expand (RFC 3597 §4), and DNAME. */
const LAYOUTS: ReadonlyMap<number, DataLayout> = new Map([
  [RecordType.NS, ONE_NAME],
  [RecordType.MD, ONE_NAME],
  [RecordType.MF, ONE_NAME],
  [RecordType.CNAME, ONE_NAME],
  [RecordType.MB, ONE_NAME],
  [RecordType.MG, ONE_NAME],
  [RecordType.MR, ONE_NAME],
  [RecordType.PTR, ONE_NAME],
  [RecordType.DNAME, ONE_NAME],
  [RecordType.SOA, { lead: 0, names: 2, tail: 20 }],
  [RecordType.MINFO, { lead: 0, names: 2, tail: 0 }],
  [RecordType.RP, { lead: 0, names: 2, tail: 0 }],
  [RecordType.MX, { lead: 2, names: 1, tail: 0 }],
  [RecordType.AFSDB, { lead: 2, names: 1, tail: 0 }],
  [RecordType.RT, { lead: 2, names: 1, tail: 0 }],
  [RecordType.KX, { lead: 2, names: 1, tail: 0 }],
  [RecordType.PX, { lead: 2, names: 2, tail: 0 }],
  [RecordType.SRV, { lead: 6, names: 1, tail: 0 }],
]);

/** Types whose data has one length only. */
const FIXED_LENGTHS: ReadonlyMap<number, number> = new Map([
  [RecordType.A, 4],
  [RecordType.AAAA, 16],
]);

function pushName(bytes: number[], name: WireName): void {
  for (let i = 0; i < name.length; i++) bytes.push(name.charCodeAt(i));
}

/** The data of a record with its names expanded, or null when it is not what its type says. */
function readData(message: Uint8Array, record: RawRecord): Uint8Array | null {
  const layout = LAYOUTS.get(record.type);
  if (layout === undefined) {
    const fixed = FIXED_LENGTHS.get(record.type);
    if (fixed !== undefined && record.end - record.dataStart !== fixed) return null;
    return message.slice(record.dataStart, record.end);
  }
  const namesStart = record.dataStart + layout.lead;
  if (namesStart > record.end) return null;
  const bytes = [...message.subarray(record.dataStart, namesStart)];
  let at = namesStart;
  for (let i = 0; i < layout.names; i++) {
    const name = readName(message, at);
    if (name === null || name.end > record.end) return null;
    pushName(bytes, name.name);
    at = name.end;
  }
  if (at + layout.tail !== record.end) return null;
  for (let i = at; i < record.end; i++) bytes.push(message[i] ?? 0);
  return Uint8Array.from(bytes);
}

/** RFC 2181 §8: a TTL with the top bit set means zero. */
function ttlSecs(ttl: number): number {
  return ttl > 0x7fff_ffff ? 0 : ttl;
}

interface Section {
  /** The records of class IN, without OPT. */
  readonly records: readonly ResourceRecord[];
  /** The OPT records. */
  readonly options: readonly RawRecord[];
  readonly end: number;
}

/** The records of one section, or null when one cannot be read; other classes are left out. */
function readSection(
  message: Uint8Array,
  view: DataView,
  start: number,
  count: number,
): Section | null {
  const records: ResourceRecord[] = [];
  const options: RawRecord[] = [];
  let at = start;
  for (let i = 0; i < count; i++) {
    const record = readRecord(message, view, at);
    if (record === null) return null;
    at = record.end;
    if (record.type === RecordType.OPT) {
      options.push(record);
      continue;
    }
    const data = readData(message, record);
    if (data === null) return null;
    if (record.rclass === CLASS_IN) {
      records.push({ name: record.name, type: record.type, ttlSecs: ttlSecs(record.ttl), data });
    }
  }
  return { records, options, end: at };
}

const stray = (why: string): ParsedResponse => ({ kind: "stray", why });
const malformed = (why: string): ParsedResponse => ({ kind: "malformed", why });

/** Reads a packet that came from the upstream asked `question` under `id`. */
export function parseResponse(packet: Uint8Array, id: number, question: Question): ParsedResponse {
  if (packet.length < HEADER_BYTES) return stray("shorter than a header");
  const view = viewOf(packet);
  const flags = view.getUint16(2);
  if (view.getUint16(0) !== id) return stray("another id");
  if ((flags & Flag.QR) === 0) return stray("not a reply");
  if ((flags >> OPCODE_SHIFT & 0x0f) !== 0) return stray("another opcode");
  const headerRcode = flags & 0x0f;
  const questions = view.getUint16(4);
  // A server that could not read the question may leave it out; such a reply carries no data.
  if (questions === 0 && headerRcode !== Rcode.NOERROR && headerRcode !== Rcode.NXDOMAIN) {
    return failure(headerRcode);
  }
  const asked = questions === 1 ? readQuestion(packet, view) : null;
  if (
    asked === null || asked.qclass !== CLASS_IN || asked.question.name !== question.name ||
    asked.question.type !== question.type
  ) return stray("another question");
  if ((flags & Flag.TC) !== 0) {
    return {
      kind: "response",
      response: { rcode: headerRcode, truncated: true, answers: [], authority: [] },
    };
  }
  const answers = readSection(packet, view, asked.end, view.getUint16(6));
  if (answers === null) return malformed("answer section cannot be read");
  const authority = readSection(packet, view, answers.end, view.getUint16(8));
  if (authority === null) return malformed("authority section cannot be read");
  const additional = readSection(packet, view, authority.end, view.getUint16(10));
  if (additional === null) return malformed("additional section cannot be read");
  if (additional.end !== packet.length) return malformed("bytes after the message");
  if (answers.options.length + authority.options.length > 0 || additional.options.length > 1) {
    return malformed("misplaced OPT record");
  }
  const extended = (additional.options[0]?.ttl ?? 0) >>> 24;
  return {
    kind: "response",
    response: {
      rcode: extended << 4 | headerRcode,
      truncated: false,
      answers: answers.records,
      authority: authority.records,
    },
  };
}

function failure(rcode: number): ParsedResponse {
  return { kind: "response", response: { rcode, truncated: false, answers: [], authority: [] } };
}
