/** DNS messages as values: what the parsers give and the builders take. */
import type { Rcode } from "./codes.ts";
import type { WireName } from "./name.ts";

/** The one question of a message, class IN. */
export interface Question {
  readonly name: WireName;
  readonly type: number;
}

/** What an OPT record says (RFC 6891 §6.1); its options are read and dropped. */
export interface Edns {
  /** The largest UDP payload the sender takes. */
  readonly udpPayloadBytes: number;
  /** The DO bit: DNSSEC records are wanted (RFC 3225). */
  readonly dnssecOk: boolean;
}

/** A well-formed query for one name of class IN. */
export interface Query {
  readonly id: number;
  readonly recursionDesired: boolean;
  /** CD, copied into the reply (RFC 4035 §3.1.6). */
  readonly checkingDisabled: boolean;
  readonly question: Question;
  /** The question section byte for byte: clients check the case they asked in (0x20). */
  readonly questionBytes: Uint8Array;
  /** Null: the client does not speak EDNS, and must not be sent an OPT record. */
  readonly edns: Edns | null;
}

/** What a client's packet is: a query, something to refuse with a code, or something to ignore. */
export type ParsedQuery =
  | { readonly kind: "query"; readonly query: Query }
  | {
    readonly kind: "refusal";
    readonly id: number;
    readonly opcode: number;
    readonly recursionDesired: boolean;
    readonly rcode: Rcode;
    readonly why: string;
  }
  | { readonly kind: "drop"; readonly why: string };

/** One resource record of class IN. */
export interface ResourceRecord {
  readonly name: WireName;
  readonly type: number;
  readonly ttlSecs: number;
  /** RDATA with names uncompressed; a copy that holds on to no packet. */
  readonly data: Uint8Array;
}

/** An upstream's reply to our question. */
export interface Response {
  /** With the upper bits of OPT (RFC 6891 §6.1.3). */
  readonly rcode: number;
  /** TC: the sections are left empty here; ask again by TCP. */
  readonly truncated: boolean;
  readonly answers: readonly ResourceRecord[];
  readonly authority: readonly ResourceRecord[];
}

/**
 * What a packet from an upstream is: the reply; a stray, which says nothing about our question and
 * is ignored (forged, late, misdirected); or a malformed reply, which means that the upstream failed.
 */
export type ParsedResponse =
  | { readonly kind: "response"; readonly response: Response }
  | { readonly kind: "stray"; readonly why: string }
  | { readonly kind: "malformed"; readonly why: string };
