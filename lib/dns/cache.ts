/** Upstream answers for a while, so that a name is asked once and not at every look-up. */
import type { DnsCacheEntry, DnsCacheStats } from "../api/services.ts";
import type { Answer } from "./answer.ts";
import { typeName } from "./codes.ts";
import type { Question } from "./message.ts";
import { nameText } from "./name.ts";

/** S007-FR-019 */
const MAX_ENTRIES = 10_000;

/**
 * Bytes of names and data above which an answer is not kept. Common answers have a few hundred; with
 * {@linkcode MAX_ENTRIES} it bounds what a hostile zone can make the cache hold to some 40 MB.
 */
const MAX_ANSWER_BYTES = 4096;

/** Milliseconds from any fixed point; must never go back. */
export type MonotonicClock = () => number;

interface Entry {
  readonly question: Question;
  readonly answer: Answer;
  readonly storedAtMs: number;
}

/** An answer from the cache. */
export interface CachedAnswer {
  readonly answer: Answer;
  /** Whole seconds since it was stored, to be taken off every TTL; less than any of them. */
  readonly ageSecs: number;
  /** When it was stored, on the cache's clock. */
  readonly storedAtMs: number;
}

/** Answers that differ are kept apart: by name, type, and whether DNSSEC records were wanted. */
export function cacheKey(question: Question, dnssecOk: boolean): string {
  return `${question.type}${dnssecOk ? "+" : " "}${question.name}`;
}

function sizeBytes(answer: Answer): number {
  return [...answer.answers, ...answer.authority].reduce(
    (sum, record) => sum + record.name.length + record.data.length,
    0,
  );
}

/**
 * A bounded cache that gives up the answer which was not asked for the longest (LRU). It holds what
 * upstreams said, addresses unfiltered: the policy in force when an answer is *read* decides about
 * them (S007-EC-016).
 */
export class DnsCache {
  readonly #entries = new Map<string, Entry>();
  #hits = 0;
  #misses = 0;
  #evictions = 0;

  constructor(
    readonly now: MonotonicClock = () => performance.now(),
    readonly maxEntries: number = MAX_ENTRIES,
  ) {}

  #ageSecs(entry: Entry): number {
    return Math.floor((this.now() - entry.storedAtMs) / 1000);
  }

  /** The answer of `entry`, while it lives. */
  #read(entry: Entry): CachedAnswer | null {
    const { answer, storedAtMs } = entry;
    const ageSecs = this.#ageSecs(entry);
    return ageSecs >= answer.lifetimeSecs ? null : { answer, ageSecs, storedAtMs };
  }

  /** The answer stored under `key` ({@linkcode cacheKey}), while it lives. */
  get(key: string): CachedAnswer | null {
    const entry = this.#entries.get(key);
    if (entry === undefined) {
      this.#misses++;
      return null;
    }
    this.#entries.delete(key);
    const hit = this.#read(entry);
    if (hit === null) {
      this.#misses++;
      return null;
    }
    this.#hits++;
    // A Map keeps the order of insertion: put back last, the first one is the least recently used.
    this.#entries.set(key, entry);
    return hit;
  }

  /** As {@linkcode get}, but it counts as no use. */
  peek(key: string): CachedAnswer | null {
    const entry = this.#entries.get(key);
    return entry === undefined ? null : this.#read(entry);
  }

  /**
   * Keeps `answer`, which is `ageSecs` old, for its lifetime; does nothing when it has none, or is
   * too large.
   */
  set(key: string, question: Question, answer: Answer, ageSecs = 0): void {
    if (answer.lifetimeSecs <= 0 || sizeBytes(answer) > MAX_ANSWER_BYTES) return;
    this.#entries.delete(key);
    if (this.#entries.size >= this.maxEntries) {
      const [oldest] = this.#entries.keys();
      if (oldest !== undefined) this.#entries.delete(oldest);
      this.#evictions++;
    }
    this.#entries.set(key, { question, answer, storedAtMs: this.now() - 1000 * ageSecs });
  }

  /** Takes into account that a copy of this cache answered `hits` questions from these entries. */
  credit(keys: readonly string[], hits: number): void {
    this.#hits += hits;
    for (const key of keys) {
      const entry = this.#entries.get(key);
      if (entry !== undefined && this.#entries.delete(key)) this.#entries.set(key, entry);
    }
  }

  /** Forgets everything; returns how many answers there were. */
  flush(): number {
    const count = this.#entries.size;
    this.#entries.clear();
    return count;
  }

  /** Counters since start-up. */
  stats(): DnsCacheStats {
    return {
      entries: this.#entries.size,
      max_entries: this.maxEntries,
      hits: this.#hits,
      misses: this.#misses,
      evictions: this.#evictions,
    };
  }

  /** What is cached and alive, in no particular order. */
  entries(): readonly DnsCacheEntry[] {
    const alive: DnsCacheEntry[] = [];
    for (const [key, entry] of this.#entries) {
      const ttlSecs = entry.answer.lifetimeSecs - this.#ageSecs(entry);
      if (ttlSecs <= 0) continue;
      alive.push({
        hostname: nameText(entry.question.name),
        record_type: typeName(entry.question.type),
        ttl_remaining_secs: ttlSecs,
        ...(key === cacheKey(entry.question, true) ? { dnssec: true } : {}),
      });
    }
    return alive;
  }
}
