/** Signs of life of a thread: whoever started it notices when it hangs, though nobody asks it. */

/** A thread that is alive says so at least as often. */
export const BEAT_MS = 500;

/** Until the first one: the thread's code is loaded. */
const MAX_MISSED_AT_START = 20;

/** A count that both isolates see at once; it rises as long as the thread goes on. */
export class Beats {
  readonly #cell: Int32Array<SharedArrayBuffer>;

  constructor(
    readonly buffer: SharedArrayBuffer = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT),
  ) {
    this.#cell = new Int32Array(buffer);
  }

  get count(): number {
    return Atomics.load(this.#cell, 0);
  }

  /** Says that the thread goes on. */
  beat(): void {
    Atomics.add(this.#cell, 0, 1);
  }
}

/** What {@linkcode HeartbeatWatch} listens for. */
export interface Watched {
  readonly beats: Beats;
  /**
   * Beats in a row that may be missed: a thread that sleeps is one behind by nature, and on a busy
   * machine another one.
   */
  readonly maxMissed: number;
  /** It works on a message, which may take long and has a limit of its own. */
  readonly isExcused: () => boolean;
  /** Called once. Must not throw. */
  readonly onSilence: () => void;
}

/**
 * Listens for a thread's beats until it is stopped or they are missing. It counts its own looks, not
 * time: who is held up itself must not blame the thread.
 */
export class HeartbeatWatch {
  readonly #watched: Watched;
  readonly #timer: ReturnType<typeof setInterval>;
  #last = 0;
  #missed = 0;

  constructor(watched: Watched) {
    this.#watched = watched;
    this.#timer = setInterval(() => this.#listen(), BEAT_MS);
  }

  /** Harmless when it has stopped. */
  stop(): void {
    clearInterval(this.#timer);
  }

  #listen(): void {
    const { beats: { count }, maxMissed, isExcused, onSilence } = this.#watched;
    if (count !== this.#last || isExcused()) this.#missed = 0;
    else this.#missed++;
    this.#last = count;
    if (this.#missed <= (count === 0 ? MAX_MISSED_AT_START : maxMissed)) return;
    this.stop();
    onSilence();
  }
}
