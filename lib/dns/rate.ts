/** How many queries each source may send: a flood by one agent must not slow another one down. */
import type { Rate } from "../rate.ts";
import type { MonotonicClock } from "./cache.ts";
import type { DnsFilter, Handled, PacketHandler, QuerySource } from "./filter.ts";

/**
 * Sources remembered at once. A managed network has at most 254; more than this are strangers that
 * make addresses up, and those are not worth an answer.
 */
const MAX_SOURCES = 4096;

/** Looking for sources to forget costs a pass over all of them. */
const SWEEP_EVERY_MS = 1000;

interface Bucket {
  tokens: number;
  filledAtMs: number;
}

/**
 * A token bucket for each source: `count` queries at once, and as many again in every `windowSecs`.
 * `Source` is what a transport knows its clients by.
 */
export class QueryBuckets<Source> {
  readonly #buckets = new Map<Source, Bucket>();
  readonly #perMs: number;
  #sweptAtMs = Number.NEGATIVE_INFINITY;

  constructor(
    readonly rate: Rate,
    readonly now: MonotonicClock = () => performance.now(),
  ) {
    this.#perMs = rate.count / (1000 * rate.windowSecs);
  }

  /** Whether one more query of `source` is within its rate; takes it off when it is. */
  admits(source: Source): boolean {
    const now = this.now();
    const bucket = this.#buckets.get(source) ?? this.#add(source, now);
    if (bucket === null) return false;
    bucket.tokens = this.#level(bucket, now);
    bucket.filledAtMs = now;
    if (bucket.tokens < 1) return false;
    bucket.tokens--;
    return true;
  }

  /** Takes from `source` what it might send by now. */
  empty(source: Source): void {
    const bucket = this.#buckets.get(source);
    if (bucket === undefined) return;
    bucket.tokens = 0;
    bucket.filledAtMs = this.now();
  }

  #level(bucket: Bucket, now: number): number {
    return Math.min(this.rate.count, bucket.tokens + (now - bucket.filledAtMs) * this.#perMs);
  }

  #add(source: Source, now: number): Bucket | null {
    if (this.#buckets.size >= MAX_SOURCES) this.#sweep(now);
    if (this.#buckets.size >= MAX_SOURCES) return null;
    const bucket = { tokens: this.rate.count, filledAtMs: now };
    this.#buckets.set(source, bucket);
    return bucket;
  }

  /** Forgets the sources whose bucket is full: as if they had never asked. */
  #sweep(now: number): void {
    if (now - this.#sweptAtMs < SWEEP_EVERY_MS) return;
    this.#sweptAtMs = now;
    for (const [source, bucket] of this.#buckets) {
      if (this.#level(bucket, now) >= this.rate.count) this.#buckets.delete(source);
    }
  }
}

/**
 * One refusal for each source in this time. Each is a record, and a client that need not wait for
 * replies could make 50,000 a second, which would push everybody else's out of log and history.
 */
const REFUSE_EVERY_MS = 100;

/** What a source sent beyond its rate. */
interface Excess {
  readonly refusedAtMs: number;
  /** Queries since, which were not refused one by one. */
  dropped: number;
}

/** The filter behind the limit on the rate of each source. */
export class Admission implements PacketHandler {
  readonly #excess = new Map<string, Excess>();

  constructor(readonly filter: DnsFilter, readonly buckets: QueryBuckets<string>) {}

  /** As {@linkcode DnsFilter.handle}; silence also where a refusal stands for this query, too. */
  handle(packet: Uint8Array, source: QuerySource): Handled {
    if (this.buckets.admits(source.address)) return this.filter.handle(packet, source);
    const attempts = this.#refusedAttempts(source.address);
    return attempts === null
      ? null
      : this.filter.refuseExcess(packet, source, "query_rate", attempts);
  }

  /** How many queries of `source` a refusal stands for now; null: none is due. */
  #refusedAttempts(source: string): number | null {
    const now = this.buckets.now();
    const excess = this.#excess.get(source);
    if (excess !== undefined && now - excess.refusedAtMs < REFUSE_EVERY_MS) {
      excess.dropped++;
      return null;
    }
    if (this.#excess.size >= MAX_SOURCES) this.#excess.clear();
    this.#excess.set(source, { refusedAtMs: now, dropped: 0 });
    return 1 + (excess?.dropped ?? 0);
  }
}
