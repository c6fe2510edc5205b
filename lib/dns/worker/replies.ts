/** Replies that the worker sends again to identical packets, brought up to date in place. */
import type { Agent } from "../../agents.ts";
import { ageTtls } from "../ttl.ts";

/** A reply, what it answers, and until when. */
export interface KnownReply {
  /** Source address of the packet, as a number. */
  readonly address: number;
  readonly agent: Agent;
  /** The packet without its id. */
  readonly body: Uint8Array;
  /** Its own bytes, which are changed; null: silence. */
  readonly reply: Uint8Array | null;
  /** Where the reply shows the decision's id; null: nowhere. */
  readonly idAt: number | null;
  /** Where its TTLs stand that count down. */
  readonly ttlsAt: readonly number[];
  /** Key of the cached answer that it comes from; null: from none. */
  readonly cacheKey: string | null;
  readonly expiresAtMs: number;
  /** When its TTLs fall next. */
  agesAtMs: number;
  /** The outline of decisions about such packets, see {@linkcode Journal}. */
  readonly outline: number;
  /** The newest decision: its position in the report of this number. */
  decision: number;
  report: number;
}

/** Offset of what follows the id. */
const BODY = 2;

/**
 * FNV-1a over source and packet without id: quick, and a collision costs no more than a miss. As many
 * bits as an integer can have without memory of its own.
 */
function hashOf(address: number, bytes: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5 ^ address;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ (bytes[i] ?? 0), 0x01000193);
  return hash & 0x3fff_ffff;
}

function isSame(body: Uint8Array, bytes: Uint8Array, start: number, end: number): boolean {
  if (body.length !== end - start) return false;
  for (let i = 0; i < body.length; i++) if (body[i] !== bytes[start + i]) return false;
  return true;
}

/** Replies by packet and source. Whoever adds bounds how many there are. */
export class KnownReplies {
  readonly #replies = new Map<number, KnownReply>();

  /**
   * The reply to the packet of `length` bytes at `start` of `bytes`, aged to this moment; undefined
   * when there is none. It says nothing about who is at the address now.
   */
  find(
    address: number,
    bytes: Uint8Array,
    start: number,
    length: number,
    nowMs: number,
  ): KnownReply | undefined {
    const end = start + length;
    const known = this.#replies.get(hashOf(address, bytes, start + BODY, end));
    if (known === undefined || known.address !== address || nowMs >= known.expiresAtMs) {
      return undefined;
    }
    if (!isSame(known.body, bytes, start + BODY, end)) return undefined;
    if (nowMs >= known.agesAtMs && known.reply !== null) {
      const secs = 1 + Math.floor((nowMs - known.agesAtMs) / 1000);
      ageTtls(known.reply, known.ttlsAt, secs);
      known.agesAtMs += 1000 * secs;
    }
    return known;
  }

  /** Keeps the reply to `packet`, of which a copy is made. */
  add(packet: Uint8Array, reply: Omit<KnownReply, "body">): void {
    const { address } = reply;
    this.#replies.set(hashOf(address, packet, BODY, packet.length), {
      ...reply,
      body: packet.slice(BODY),
    });
  }

  /** Forgets all of them. */
  clear(): void {
    this.#replies.clear();
  }
}
