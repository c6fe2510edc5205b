/** Time limits: for one step, and for a stream that falls silent. */

/** Thrown when a step takes longer than it may. */
export class TimeLimitExceeded extends Error {
  override readonly name = "TimeLimitExceeded";
}

/**
 * Settles as `step` does, or rejects with {@linkcode TimeLimitExceeded} after `limitMs`. The step
 * itself goes on: end it by closing what it waits for.
 */
export async function within<T>(limitMs: number, step: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new TimeLimitExceeded(`took over ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([step, limit]);
  } finally {
    clearTimeout(timer);
  }
}

/** Watches for silence: calls back once when `touch` has not been called for the limit. */
export class IdleWatch {
  #lastMs = performance.now();
  #timer: ReturnType<typeof setTimeout>;
  #expired = false;

  /** @param onIdle Called at most once; must not throw. */
  constructor(readonly limitMs: number, readonly onIdle: () => void) {
    this.#timer = setTimeout(() => this.#look(), limitMs);
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
    clearTimeout(this.#timer);
  }

  #look(): void {
    const leftMs = this.#lastMs + this.limitMs - performance.now();
    if (leftMs > 0) {
      this.#timer = setTimeout(() => this.#look(), leftMs);
    } else {
      this.#expired = true;
      this.onIdle();
    }
  }
}
