/** Queries that are none, with what they deserve: for the parser, and for the real sockets. */
import { Rcode } from "../../lib/dns/codes.ts";
import { encodeQuery, encodeReply } from "./oracle.ts";

/** One packet, and the code of the refusal; null for silence. */
export interface Malformed {
  readonly what: string;
  readonly packet: Uint8Array;
  readonly rcode: Rcode | null;
}

/** `packet` with one 16-bit word replaced. */
export function withWord(packet: Uint8Array, at: number, value: number): Uint8Array {
  const copy = packet.slice();
  new DataView(copy.buffer).setUint16(at, value);
  return copy;
}

const A_QUERY = encodeQuery("Example.com", "A");
const HEADER = A_QUERY.subarray(0, 12);

/** A query whose additional section has these raw records. */
function withAdditional(...records: readonly (readonly number[])[]): Uint8Array {
  const packet = withWord(A_QUERY, 10, records.length);
  return Uint8Array.from([...packet, ...records.flat()]);
}

/** A query for a name of these raw bytes. */
function named(...name: readonly number[]): Uint8Array {
  return Uint8Array.from([...HEADER, ...name, 0, 1, 0, 1]);
}

function label(length: number): number[] {
  return [length, ...new Array<number>(length).fill(0x61)];
}

const OPT = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

const refused: readonly (readonly [string, Uint8Array, Rcode])[] = [
  ["opcode STATUS", withWord(A_QUERY, 2, 0x1100), Rcode.NOTIMP],
  ["opcode UPDATE", withWord(A_QUERY, 2, 0x2900), Rcode.NOTIMP],
  ["the TC bit", withWord(A_QUERY, 2, 0x0300), Rcode.FORMERR],
  ["no question", withWord(A_QUERY, 4, 0), Rcode.FORMERR],
  ["two questions", withWord(A_QUERY, 4, 2), Rcode.FORMERR],
  [
    "two questions that are there",
    Uint8Array.from([...withWord(A_QUERY, 4, 2), ...A_QUERY.subarray(12)]),
    Rcode.FORMERR,
  ],
  ["an answer", withWord(A_QUERY, 6, 1), Rcode.FORMERR],
  ["an authority record", withWord(A_QUERY, 8, 1), Rcode.FORMERR],
  ["an additional record that is missing", withWord(A_QUERY, 10, 1), Rcode.FORMERR],
  ["two OPT records", withAdditional(OPT, OPT), Rcode.FORMERR],
  ["an OPT record with a name", withAdditional([1, 0x61, ...OPT]), Rcode.FORMERR],
  [
    "an OPT record whose option is cut off",
    withAdditional([...OPT.slice(0, 9), 0, 4, 0, 10, 0, 8]),
    Rcode.FORMERR,
  ],
  [
    "an additional A record",
    withAdditional([0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]),
    Rcode.FORMERR,
  ],
  ["bytes after the message", Uint8Array.from([...A_QUERY, 0]), Rcode.FORMERR],
  ["a name that is cut off", A_QUERY.subarray(0, 16), Rcode.FORMERR],
  ["a label of 64 bytes", named(...label(64), 0), Rcode.FORMERR],
  // 26 labels of nine and the root: 261 bytes, 259 characters.
  [
    "a name over 255 bytes",
    named(...Array.from({ length: 26 }, () => label(9)).flat(), 0),
    Rcode.FORMERR,
  ],
  ["a pointer to itself", named(0xc0, 12), Rcode.FORMERR],
  ["a loop of two pointers", named(1, 0x61, 0xc0, 16, 0xc0, 12), Rcode.FORMERR],
  ["class CHAOS", withWord(A_QUERY, A_QUERY.length - 2, 3), Rcode.NOTIMP],
  ["class ANY", withWord(A_QUERY, A_QUERY.length - 2, 255), Rcode.NOTIMP],
  ["type 0", withWord(A_QUERY, A_QUERY.length - 4, 0), Rcode.NOTIMP],
  ["type OPT", withWord(A_QUERY, A_QUERY.length - 4, 41), Rcode.NOTIMP],
  ["type AXFR", withWord(A_QUERY, A_QUERY.length - 4, 252), Rcode.NOTIMP],
  ["type TSIG", withWord(A_QUERY, A_QUERY.length - 4, 250), Rcode.NOTIMP],
  ["EDNS version 1", encodeQuery("a.test", "A", { opt: { version: 1 } }), Rcode.BADVERS],
];

const dropped: readonly (readonly [string, Uint8Array])[] = [
  ["a reply", encodeReply({ id: 1, name: "a.test", type: "A" })],
  ["less than a header", A_QUERY.subarray(0, 11)],
  ["nothing at all", new Uint8Array(0)],
];

/** All of them. */
export const MALFORMED: readonly Malformed[] = [
  ...refused.map(([what, packet, rcode]) => ({ what, packet, rcode })),
  ...dropped.map(([what, packet]) => ({ what, packet, rcode: null })),
];
