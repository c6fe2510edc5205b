/** Counts events in a sliding window: at most so many in any stretch of so many seconds. */
import type { Rate } from "../rate.ts";

/** One agent's events of one kind (S004-FR-014). */
export class SlidingWindow {
  /** When the admitted ones happened, oldest first, from `#first` on. */
  #times: number[] = [];
  #first = 0;

  constructor(readonly rate: Rate) {}

  /**
   * Admits an event that happens at `nowMs`, or says how long to wait.
   * @returns null when it is admitted; else whole seconds, at least 1.
   */
  admit(nowMs: number): number | null {
    const windowMs = this.rate.windowSecs * 1_000;
    while ((this.#times[this.#first] ?? Infinity) <= nowMs - windowMs) this.#first++;
    if (this.#first > this.rate.count) {
      this.#times = this.#times.slice(this.#first);
      this.#first = 0;
    }
    if (this.#times.length - this.#first < this.rate.count) {
      this.#times.push(nowMs);
      return null;
    }
    const oldestMs = this.#times[this.#first] ?? nowMs;
    return Math.max(1, Math.ceil((oldestMs + windowMs - nowMs) / 1_000));
  }
}
