/** A second opinion on the wire format: another implementation of DNS, typed for these tests. */
import { Buffer } from "node:buffer";
import * as dnsPacket from "dns-packet";

/** An OPT record. */
export interface OracleOpt {
  readonly udpPayloadSize?: number;
  readonly dnssecOk?: boolean;
  readonly version?: number;
  /** Raw options, such as a client cookie or subnet. */
  readonly options?: readonly { readonly code: number; readonly data: Uint8Array }[];
}

/** A record in the oracle's form: the shape of `data` depends on `type`. */
export interface OracleRecord {
  readonly name: string;
  readonly type: string;
  readonly ttl?: number;
  readonly class?: string;
  readonly data: unknown;
}

/** A message in the oracle's form. */
export interface OracleMessage {
  readonly id: number;
  readonly qr: boolean;
  readonly rcode: string;
  readonly aa: boolean;
  readonly tc: boolean;
  readonly rd: boolean;
  readonly ra: boolean;
  readonly cd: boolean;
  readonly questions: readonly { readonly name: string; readonly type: string }[];
  readonly answers: readonly OracleRecord[];
  readonly authorities: readonly OracleRecord[];
  /** Without OPT. */
  readonly additionals: readonly OracleRecord[];
  readonly opt: {
    readonly udpPayloadSize: number;
    readonly dnssecOk: boolean;
    readonly extendedRcode: number;
    readonly options: readonly { readonly code: number; readonly data: Uint8Array }[];
  } | null;
}

/** An OPT record as the library has it. */
interface CodecOpt {
  readonly type: "OPT";
  readonly name: string;
  readonly udpPayloadSize: number;
  readonly extendedRcode: number;
  readonly ednsVersion: number;
  readonly flags: number;
  readonly flag_do?: boolean;
  readonly options: readonly { readonly code: number; readonly data: Uint8Array }[];
}

type CodecRecord = OracleRecord | CodecOpt;

function isOpt(record: CodecRecord): record is CodecOpt {
  return record.type === "OPT";
}

/** What the library does; its published types know only some of the record types. */
interface Codec {
  readonly RECURSION_DESIRED: number;
  readonly RECURSION_AVAILABLE: number;
  readonly TRUNCATED_RESPONSE: number;
  readonly DNSSEC_OK: number;
  encode(message: {
    readonly type: "query" | "response";
    readonly id: number;
    readonly flags: number;
    readonly questions: readonly { readonly name: string; readonly type: string }[];
    readonly answers?: readonly OracleRecord[];
    readonly authorities?: readonly OracleRecord[];
    readonly additionals?: readonly CodecRecord[];
  }): Uint8Array;
  decode(bytes: Uint8Array): {
    readonly id: number;
    readonly rcode: string;
    readonly flag_qr: boolean;
    readonly flag_aa: boolean;
    readonly flag_tc: boolean;
    readonly flag_rd: boolean;
    readonly flag_ra: boolean;
    readonly flag_cd: boolean;
    readonly questions: readonly { readonly name: string; readonly type: string }[];
    readonly answers: readonly OracleRecord[];
    readonly authorities: readonly OracleRecord[];
    readonly additionals: readonly CodecRecord[];
  };
}

const foreign: unknown = dnsPacket;
const library = foreign as Codec;

function optRecord(opt: OracleOpt): CodecOpt {
  return {
    type: "OPT",
    name: ".",
    udpPayloadSize: opt.udpPayloadSize ?? 1232,
    extendedRcode: 0,
    ednsVersion: opt.version ?? 0,
    flags: opt.dnssecOk === true ? library.DNSSEC_OK : 0,
    options: (opt.options ?? []).map(({ code, data }) => ({ code, data: Buffer.from(data) })),
  };
}

function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes);
}

/** A query as a stub resolver sends it. */
export function encodeQuery(
  name: string,
  type: string,
  options: { readonly id?: number; readonly opt?: OracleOpt; readonly flags?: number } = {},
): Uint8Array {
  return plain(library.encode({
    type: "query",
    id: options.id ?? 0x1234,
    flags: options.flags ?? library.RECURSION_DESIRED,
    questions: [{ type, name }],
    additionals: options.opt === undefined ? [] : [optRecord(options.opt)],
  }));
}

/** What an upstream says. */
export interface OracleReply {
  readonly id: number;
  readonly name: string;
  readonly type: string;
  /** The low four bits. */
  readonly rcode?: number;
  readonly answers?: readonly OracleRecord[];
  readonly authorities?: readonly OracleRecord[];
  readonly additionals?: readonly OracleRecord[];
  readonly truncated?: boolean;
  readonly opt?: OracleOpt;
}

/** A reply as a recursive resolver sends it. */
export function encodeReply(reply: OracleReply): Uint8Array {
  return plain(library.encode({
    type: "response",
    id: reply.id,
    flags: library.RECURSION_DESIRED | library.RECURSION_AVAILABLE |
      (reply.truncated === true ? library.TRUNCATED_RESPONSE : 0) | (reply.rcode ?? 0),
    questions: [{ type: reply.type, name: reply.name }],
    answers: reply.answers ?? [],
    authorities: reply.authorities ?? [],
    additionals: [
      ...(reply.additionals ?? []),
      ...(reply.opt === undefined ? [] : [optRecord(reply.opt)]),
    ],
  }));
}

/**
 * Reads a message.
 * @throws what the library throws on bytes it cannot read.
 */
export function decode(bytes: Uint8Array): OracleMessage {
  const message = library.decode(Buffer.from(bytes));
  const opt = message.additionals.find(isOpt);
  return {
    id: message.id,
    qr: message.flag_qr,
    rcode: message.rcode,
    aa: message.flag_aa,
    tc: message.flag_tc,
    rd: message.flag_rd,
    ra: message.flag_ra,
    cd: message.flag_cd,
    questions: message.questions,
    answers: message.answers,
    authorities: message.authorities,
    additionals: message.additionals.filter((record): record is OracleRecord => !isOpt(record)),
    opt: opt === undefined ? null : {
      udpPayloadSize: opt.udpPayloadSize,
      dnssecOk: opt.flag_do === true,
      extendedRcode: opt.extendedRcode,
      options: opt.options,
    },
  };
}

/** The Extended DNS Error of a message (RFC 8914), or null. */
export function edeOf(message: OracleMessage): { code: number; text: string } | null {
  const option = message.opt?.options.find(({ code }) => code === 15);
  if (option === undefined) return null;
  const [high = 0, low = 0] = option.data;
  return { code: high << 8 | low, text: new TextDecoder().decode(option.data.subarray(2)) };
}
