/** Decisions on their way from the worker to the main isolate, and the replies they stand for. */
import { type Decision, nameDecision, type NewDecision } from "../../decision.ts";
import type { DecisionRecorder } from "../filter.ts";
import type { Activity } from "./protocol.ts";

/**
 * Decisions in one report. It bounds memory and the main isolate's work while somebody floods us
 * with different questions; the packets above it are dropped.
 */
const MAX_DECISIONS = 4096;

/** For this long an identical packet gets the identical reply: less than a TTL can tell apart. */
const REPLY_LIFE_MS = 500;

/** Time between reports: nobody who looks a decision up by its id is quicker. */
const REPORT_EVERY_MS = 100;

/**
 * In busy moments, with more than {@linkcode BUSY_DECISIONS} different ones, a report waits for as
 * long as replies live: repetitions then cost the main isolate nothing.
 */
const BUSY_DECISIONS = 256;

interface KnownReply {
  readonly address: number;
  /** The packet without its id. */
  readonly packet: Uint8Array;
  readonly reply: Uint8Array | null;
  readonly decision: number;
  readonly untilMs: number;
}

/** Offset of what follows the id. */
const BODY = 2;

/** FNV-1a over source and packet without id: quick, and a collision costs no more than a miss. */
function hashOf(address: number, packet: Uint8Array): number {
  let hash = 0x811c9dc5 ^ address;
  for (let i = BODY; i < packet.length; i++) {
    hash = Math.imul(hash ^ (packet[i] ?? 0), 0x01000193);
  }
  return hash | 0;
}

function isSame(known: KnownReply, address: number, packet: Uint8Array): boolean {
  if (known.address !== address || known.packet.length !== packet.length) return false;
  for (let i = BODY; i < packet.length; i++) if (known.packet[i] !== packet[i]) return false;
  return true;
}

/**
 * The decisions since the last report. Identical packets of one moment share one decision and one
 * reply; the decision counts them.
 */
export class Journal implements DecisionRecorder {
  #nowMs = 0;
  #nowText = "";
  #reportedAtMs = Number.NEGATIVE_INFINITY;
  #decisions: Decision[] = [];
  #counts: number[] = [];
  #hits = new Set<string>();
  #dropped = 0;
  readonly #replies = new Map<number, KnownReply>();

  record(decision: NewDecision): { readonly id: string } {
    const now = Date.now();
    if (now !== this.#nowMs) {
      this.#nowMs = now;
      this.#nowText = new Date(now).toISOString();
    }
    const named = nameDecision(decision, now, this.#nowText);
    this.#decisions.push(named);
    this.#counts.push(1);
    return named;
  }

  /**
   * Milliseconds until the next report is due, 0 when it is; null when there is nothing to report.
   * After a quiet moment it is due at once.
   */
  dueInMs(nowMs: number): number | null {
    const { length } = this.#decisions;
    if (length === 0 && this.#dropped === 0) return null;
    const isBusy = length > BUSY_DECISIONS && length < MAX_DECISIONS / 2;
    const everyMs = isBusy ? REPLY_LIFE_MS : REPORT_EVERY_MS;
    return Math.max(0, Math.ceil(this.#reportedAtMs + everyMs - nowMs));
  }

  /** No further decision fits into the report. */
  get isFull(): boolean {
    return this.#decisions.length >= MAX_DECISIONS;
  }

  /** Position of the newest decision. */
  get newest(): number {
    return this.#decisions.length - 1;
  }

  /** Counts one more attempt that the decision at this position stands for. */
  repeat(decision: number): void {
    this.#counts[decision] = (this.#counts[decision] ?? 0) + 1;
  }

  /** Counts a packet that gets neither reply nor decision. */
  drop(): void {
    this.#dropped++;
  }

  /** Notes that the cache entry of this key was used. */
  hit(key: string): void {
    this.#hits.add(key);
  }

  /** Remembers the reply to `packet`, the newest decision's. */
  remember(address: number, packet: Uint8Array, reply: Uint8Array | null, nowMs: number): void {
    this.#replies.set(hashOf(address, packet), {
      address,
      packet: packet.slice(),
      reply,
      decision: this.newest,
      untilMs: nowMs + REPLY_LIFE_MS,
    });
  }

  /** The reply that an identical packet just got, null for silence; undefined when there is none. */
  recall(address: number, packet: Uint8Array, nowMs: number): Uint8Array | null | undefined {
    const known = this.#replies.get(hashOf(address, packet));
    if (known === undefined || nowMs >= known.untilMs || !isSame(known, address, packet)) {
      return undefined;
    }
    this.repeat(known.decision);
    return known.reply;
  }

  /** Forgets the replies: something changed. */
  forgetReplies(): void {
    this.#replies.clear();
  }

  /** Everything since the last report; begins anew. */
  take(nowMs: number): Activity {
    this.#reportedAtMs = nowMs;
    const decisions = this.#decisions.map((decision, i) => {
      const count = this.#counts[i] ?? 1;
      return count === 1 ? decision : { ...decision, count };
    });
    const activity = { decisions, dropped: this.#dropped, hits: [...this.#hits] };
    this.#decisions = [];
    this.#counts = [];
    this.#hits = new Set();
    this.#dropped = 0;
    this.#replies.clear();
    return activity;
  }
}
