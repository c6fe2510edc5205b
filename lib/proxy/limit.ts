/** Time limits: for one step, and for a stream that falls silent. */

/** Thrown when a step takes longer than it may. */
export class TimeLimitExceeded extends Error {
  override readonly name = "TimeLimitExceeded";
}

/** Limits are kept to this; none of them needs to be kept better. */
const GRAIN_MS = 50;

/** One running limit. */
export interface Timer {
  readonly atMs: number;
  readonly callback: () => void;
}

/**
 * Callbacks at later times, of `performance.now()`. Most are taken back long before they are due, so
 * that nothing is sorted: a look at all of them, now and then, costs less.
 */
export class Timers {
  readonly #timers = new Set<Timer>();
  #nextMs = Infinity;

  /** Calls back once, `delayMs` from now or up to 50 ms later. */
  after(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: performance.now() + delayMs, callback };
    this.#timers.add(timer);
    if (timer.atMs < this.#nextMs) this.#nextMs = timer.atMs;
    return timer;
  }

  /** Takes it back; harmless when it has been called. */
  cancel(timer: Timer): void {
    this.#timers.delete(timer);
  }

  /** How long there is nothing to do; Infinity: for ever. */
  dueInMs(nowMs: number): number {
    if (this.#timers.size === 0) return Infinity;
    return Math.max(0, Math.ceil(this.#nextMs - nowMs));
  }

  /** Calls back whoever is due. */
  expire(nowMs: number): void {
    if (nowMs < this.#nextMs) return;
    const due: Timer[] = [];
    let nextMs = Infinity;
    for (const timer of this.#timers) {
      if (timer.atMs <= nowMs) due.push(timer);
      else if (timer.atMs < nextMs) nextMs = timer.atMs;
    }
    this.#nextMs = Math.max(nextMs, nowMs + GRAIN_MS);
    for (const timer of due) {
      // An earlier one may have taken it back.
      if (this.#timers.delete(timer)) timer.callback();
    }
  }
}

/**
 * Settles as `step` does, or rejects with {@linkcode TimeLimitExceeded} after `limitMs`. The step
 * itself goes on: end it by closing what it waits for. Most steps need no time; those are returned.
 */
export function within<T>(
  timers: Timers,
  limitMs: number,
  step: T | Promise<T>,
): T | Promise<T> {
  if (!(step instanceof Promise)) return step;
  return new Promise((resolve, reject) => {
    const timer = timers.after(limitMs, () => {
      reject(new TimeLimitExceeded(`took over ${limitMs} ms`));
    });
    step.then((result) => {
      timers.cancel(timer);
      resolve(result);
    }, (thrown) => {
      timers.cancel(timer);
      reject(thrown);
    });
  });
}

/** A time limit for several steps together, which begins with the first one that needs time. */
export class Deadline {
  #atMs: number | null = null;

  constructor(readonly timers: Timers, readonly limitMs: number) {}

  /** {@linkcode within} what is left of the limit. */
  within<T>(step: T | Promise<T>): T | Promise<T> {
    if (!(step instanceof Promise)) return step;
    const nowMs = performance.now();
    this.#atMs ??= nowMs + this.limitMs;
    return within(this.timers, Math.max(0, this.#atMs - nowMs), step);
  }
}

/** Watches for silence: calls back once when `touch` has not been called for the limit. */
export class IdleWatch {
  #lastMs = performance.now();
  #timer: Timer;
  #expired = false;

  /** @param onIdle Called at most once; must not throw. */
  constructor(readonly timers: Timers, readonly limitMs: number, readonly onIdle: () => void) {
    this.#timer = timers.after(limitMs, () => this.#look());
  }

  /** Whether the limit was reached. */
  get expired(): boolean {
    return this.#expired;
  }

  /** Notes activity. Cheap: the timer is moved only when it fires. */
  touch(): void {
    this.#lastMs = performance.now();
  }

  /** Ends the watch. */
  stop(): void {
    this.timers.cancel(this.#timer);
  }

  #look(): void {
    const leftMs = this.#lastMs + this.limitMs - performance.now();
    if (leftMs > 0) {
      this.#timer = this.timers.after(leftMs, () => this.#look());
    } else {
      this.#expired = true;
      this.onIdle();
    }
  }
}
