/**
 * Which sources the kernel is to drop for a moment: those that send so much more than they may that
 * refusing it would take time from the others.
 */
import type { Rate } from "../../rate.ts";

/**
 * How often sources are looked at, and how long one that floods is not heard: neither so long that it
 * takes others' time, nor that somebody who sent too much for once resolves nothing.
 */
const LOOK_EVERY_MS = 25;
const MUTE_MS = 75;

/** Excess that mutes, in multiples of the rate, but at least so many packets in one look. */
const MUTE_AT_RATE_TIMES = 4;
const MUTE_AT_LEAST = 100;

/** Counts what sources send beyond their rate, and mutes those that send far more. */
export class Floods {
  readonly #muteAt: number;
  readonly #excess = new Map<number, number>();
  readonly #mutedUntilMs = new Map<number, number>();
  #lookedAtMs = Number.NEGATIVE_INFINITY;

  constructor({ count, windowSecs }: Rate) {
    const perLook = count / windowSecs * LOOK_EVERY_MS / 1000;
    this.#muteAt = Math.max(MUTE_AT_LEAST, MUTE_AT_RATE_TIMES * perLook);
  }

  /** Counts a packet of `source` beyond its rate. */
  exceeded(source: number): void {
    this.#excess.set(source, (this.#excess.get(source) ?? 0) + 1);
  }

  /** Sources that are muted now. */
  get muted(): readonly number[] {
    return [...this.#mutedUntilMs.keys()];
  }

  /** Milliseconds until {@linkcode look} may change something; null: not before the next excess. */
  dueInMs(nowMs: number): number | null {
    if (this.#excess.size === 0 && this.#mutedUntilMs.size === 0) return null;
    return Math.max(0, Math.ceil(this.#lookedAtMs + LOOK_EVERY_MS - nowMs));
  }

  /** Takes stock; whether other sources are muted from now on. */
  look(nowMs: number): boolean {
    // The first excess after a quiet time is no measure yet.
    const isMeasure = nowMs - this.#lookedAtMs < 2 * LOOK_EVERY_MS;
    this.#lookedAtMs = nowMs;
    let hasChanged = false;
    for (const [source, untilMs] of this.#mutedUntilMs) {
      if (nowMs < untilMs) continue;
      this.#mutedUntilMs.delete(source);
      hasChanged = true;
    }
    for (const [source, excess] of this.#excess) {
      if (!isMeasure || excess <= this.#muteAt) continue;
      this.#mutedUntilMs.set(source, nowMs + MUTE_MS);
      hasChanged = true;
    }
    this.#excess.clear();
    return hasChanged;
  }
}
