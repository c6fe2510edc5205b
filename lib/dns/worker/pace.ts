/** How the thread waits for the next packets, by how many are coming. */
import { Nap } from "../../linux/nap.ts";
import { setThreadUrgency, type Urgency, usualUrgency } from "../../linux/priority.ts";

/**
 * So many packets at one look mean that many are coming. Then the thread does not let itself be woken
 * by the next one, but looks again after a nap, as network drivers coalesce interrupts: being woken
 * for each few packets costs us, and those who send them, more than answering does. That is no
 * question of how many packets a second there are: up to some 50,000 evenly spaced ones are answered
 * as they come.
 */
const BUSY_PACKETS = 4;
const NAP_US = 50;

/**
 * Who sends so many may keep the processor for milliseconds while the others wait for this thread,
 * which seldom works for long: then it goes before what agents run, and at once. With a slice of
 * 100 µs it interrupts those that send so often that it answers less.
 */
const RUSH: Urgency = { niceness: -10, sliceUs: 1000 };

/**
 * Naps in a period that are a rush, and how long after the last one it is over. In quiet times nothing
 * competes with the thread but those it answers, and they get their answers later while it goes before
 * them.
 */
const PERIOD_MS = 100;
const RUSH_NAPS = 20;
const RUSH_MS = 2000;

/** Of the thread that made it. */
export class Pace {
  readonly #nap = new Nap(NAP_US);
  readonly #calm = usualUrgency();
  #isBusy = false;
  #naps = 0;
  #periodEndsMs = Number.NEGATIVE_INFINITY;
  #rushEndsMs = Number.NEGATIVE_INFINITY;
  #isRush = false;

  constructor() {
    setThreadUrgency(this.#calm);
  }

  /** Takes note of how many packets came at one look. */
  looked(packets: number, nowMs: number): void {
    this.#isBusy = packets >= BUSY_PACKETS;
    if (nowMs < this.#periodEndsMs) return;
    if (this.#naps >= RUSH_NAPS) this.#rushEndsMs = nowMs + RUSH_MS;
    this.#naps = 0;
    this.#periodEndsMs = nowMs + PERIOD_MS;
    const isRush = nowMs < this.#rushEndsMs;
    if (isRush === this.#isRush) return;
    this.#isRush = isRush;
    setThreadUrgency(isRush ? RUSH : this.#calm);
  }

  /** Naps when many packets are coming; whether it did. */
  nap(): boolean {
    if (!this.#isBusy) return false;
    this.#naps++;
    this.#nap.take();
    return true;
  }
}
