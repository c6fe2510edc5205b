/** What a test and its DNS programs in other network namespaces tell each other: JSON lines. */
import { z } from "zod";

/** What both programs print first. */
export const READY = "ready";

const said = z.strictObject({
  /** The whole message; its id becomes that of the query. */
  hex: z.string(),
  /** What to change of the id. */
  idXor: z.number().exactOptional(),
  /** Another of the upstream's addresses to send it from; only by UDP. */
  from: z.string().exactOptional(),
  /** Pause before it. */
  afterMs: z.number().exactOptional(),
});

/** One packet of a scripted answer. */
export type Said = z.infer<typeof said>;

/** To the upstream; it prints `call` when it has done as told, and printed all that came before. */
export const orderSchema = z.strictObject({
  call: z.string(),
  say: z.strictObject({
    by: z.enum(["udp", "tcp"]),
    /** Only where this address was asked. */
    at: z.string().exactOptional(),
    /** See {@linkcode questionKey}. */
    key: z.string(),
    replies: z.array(said),
  }).exactOptional(),
});

/** To the upstream. */
export type Order = z.infer<typeof orderSchema>;

/** From the upstream: what it was asked, in order, and the calls it has done. */
export const heardSchema = z.union([
  z.strictObject({
    /** The upstream's address. */
    at: z.string(),
    by: z.enum(["udp", "tcp"]),
    /** The query. */
    hex: z.string(),
  }),
  z.strictObject({ call: z.string() }),
]);

/** From the upstream. */
export type Heard = z.infer<typeof heardSchema>;

/** To the client: send all of this from one socket of its own. */
export const sendSchema = z.strictObject({
  call: z.string(),
  by: z.enum(["udp", "tcp"]),
  to: z.string(),
  port: z.number(),
  /** By UDP one datagram each; by TCP one write each, so the length prefixes belong to it. */
  packets: z.array(z.string()),
  /** Messages to wait for. */
  replies: z.number(),
  /** Whether the sending half of a TCP connection is closed behind the packets. */
  halfClose: z.boolean(),
  /** How long to wait for them at most. */
  timeoutMs: z.number(),
});

/** To the client. */
export type Send = z.infer<typeof sendSchema>;

/** From the client. */
export const receivedSchema = z.strictObject({
  call: z.string(),
  replies: z.array(z.string()),
  /** Whether the server ended the TCP connection. */
  ended: z.boolean(),
});

/** From the client. */
export type Received = z.infer<typeof receivedSchema>;

/** The question section of a query in hexadecimal, in lower case; null when it is not proper. */
export function questionKey(query: Uint8Array): string | null {
  const key: number[] = [];
  for (let at = 12;;) {
    const length = query[at];
    if (length === undefined || length > 63) return null;
    key.push(...query.subarray(at, at + 1 + length));
    at += 1 + length;
    if (length > 0) continue;
    if (key.length > 255 || at + 4 > query.length) return null;
    const lower = key.map((byte) => byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte);
    return Uint8Array.from([...lower, ...query.subarray(at, at + 4)]).toHex();
  }
}
