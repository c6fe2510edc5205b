/**
 * Which sources the kernel is to drop for a moment: those that send so much more than they may that
 * refusing it would take time from the others.
 */
import type { Rate } from "../../rate.ts";

/** Excess that mutes, in multiples of the rate. */
const MUTE_AT_RATE_TIMES = 4;
/** Over how long it is measured, and how much it takes at least: as many packets cost nothing. */
const WINDOW_MS = 25;
const MUTE_AT_LEAST = 100;

/**
 * How long a source that floods is not heard: not so long that somebody who sent too much for once
 * resolves nothing. Each time that it goes on when it is heard again it takes four times as long, since
 * the moments in which it is heard are what the others notice of it.
 */
const MUTE_MS = 75;
const MAX_MUTE_MS = 1200;

/** A source that sent more than it may. */
interface Sender {
  /** Packets in excess since `sinceMs`. */
  excess: number;
  sinceMs: number;
  /** When it is, or was, heard again, and how long it was not. */
  heardAtMs: number;
  muteMs: number;
}

/** Counts what sources send beyond their rate, and mutes those that send far more. */
export class Floods {
  readonly #ratePerMs: number;
  readonly #senders = new Map<number, Sender>();
  readonly #muted = new Map<number, Sender>();
  #hasChanged = false;
  #lastTickMs = Number.NEGATIVE_INFINITY;
  #nowMs = Number.NEGATIVE_INFINITY;

  constructor({ count, windowSecs }: Rate) {
    this.#ratePerMs = count / windowSecs / 1000;
  }

  /** Sets the time for everything that follows; milliseconds, never going back. */
  tick(nowMs: number): void {
    this.#lastTickMs = this.#nowMs;
    this.#nowMs = nowMs;
  }

  /** Counts a packet of `source` beyond its rate. */
  exceeded(source: number): void {
    // The kernel had let it through before.
    if (this.#muted.has(source)) return;
    const sender = this.#sender(source);
    const elapsedMs = Math.max(WINDOW_MS, this.#nowMs - sender.sinceMs);
    const enough = Math.max(MUTE_AT_LEAST, MUTE_AT_RATE_TIMES * this.#ratePerMs * elapsedMs);
    if (++sender.excess <= enough) return;
    const goesOn = this.#nowMs < sender.heardAtMs + sender.muteMs;
    sender.muteMs = goesOn ? Math.min(4 * sender.muteMs, MAX_MUTE_MS) : MUTE_MS;
    sender.heardAtMs = this.#nowMs + sender.muteMs;
    this.#muted.set(source, sender);
    this.#hasChanged = true;
  }

  #sender(source: number): Sender {
    let sender = this.#senders.get(source);
    if (sender === undefined) {
      const heardAtMs = Number.NEGATIVE_INFINITY;
      sender = { excess: 0, sinceMs: this.#lastTickMs, heardAtMs, muteMs: 0 };
      this.#senders.set(source, sender);
    }
    // What is read in one tick came since the last one: a pause of ours makes nobody flood.
    if (sender.sinceMs < this.#lastTickMs && this.#nowMs - sender.sinceMs > WINDOW_MS) {
      sender.sinceMs = this.#lastTickMs;
      sender.excess = 0;
    }
    return sender;
  }

  /** Sources that are muted now. */
  get muted(): readonly number[] {
    return [...this.#muted.keys()];
  }

  /** Milliseconds until {@linkcode look} changes something; null: not before the next excess. */
  dueInMs(nowMs: number): number | null {
    if (this.#hasChanged) return 0;
    if (this.#muted.size === 0) return null;
    const nextMs = Math.min(...this.#muted.values().map(({ heardAtMs }) => heardAtMs));
    return Math.max(0, Math.ceil(nextMs - nowMs));
  }

  /** Starts anew: somebody else may be at any address. */
  forget(): void {
    this.#senders.clear();
    this.#hasChanged ||= this.#muted.size > 0;
    this.#muted.clear();
  }

  /** Ends what has lasted long enough; returns which sources are heard again. */
  look(nowMs: number): readonly number[] {
    this.#hasChanged = false;
    const heard: number[] = [];
    for (const [source, { heardAtMs }] of this.#muted) {
      if (nowMs < heardAtMs) continue;
      this.#muted.delete(source);
      heard.push(source);
    }
    return heard;
  }
}
