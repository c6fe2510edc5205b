/** Single keys from a terminal, and what keeps them from being taken for answers to what they were not meant for. */

/** Ctrl-C, Ctrl-D, and the end of input. */
export const LEAVE = "\x03";
const CTRL_D = "\x04";

/**
 * For so long nothing must be typed before a question counts as asked: whoever was about to answer the
 * last one has noticed by then.
 */
const QUIET_MS = 300;

/** A terminal in raw mode: keys come one by one, unseen, Ctrl-C among them. */
export class Keys implements Disposable {
  readonly #decoder = new TextDecoder();
  /** A read cannot be taken back: the next one who wants a key gets what it brings. */
  #reading: Promise<string> | undefined;
  #isLent = false;

  constructor() {
    Deno.stdin.setRaw(true);
  }

  /** The next key or keys that are typed; {@linkcode LEAVE} at the end of input. */
  next(): Promise<string> {
    return this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
  }

  /** Forgets what was typed so far. @returns false when it was to leave. */
  async forget(): Promise<boolean> {
    for (;;) {
      const key = await orAfter(QUIET_MS, this.next());
      if (key === null) return true;
      if (key.includes(LEAVE)) return false;
    }
  }

  /** Whether a program has the terminal: Ctrl-C is for it then. */
  get isLent(): boolean {
    return this.#isLent;
  }

  /** Lets a program have the terminal; nobody may wait for a key meanwhile. */
  async lend<T>(use: () => Promise<T>): Promise<T> {
    this.#isLent = true;
    try {
      return await this.#cooked(use);
    } finally {
      this.#isLent = false;
    }
  }

  /** One line, edited and shown as usual; null at the end of input. */
  async line(): Promise<string | null> {
    // A read of `forget` may be under way; it brings the line then.
    const text = await this.#cooked(() => this.next());
    return text.includes(LEAVE) ? null : text.trim();
  }

  [Symbol.dispose](): void {
    Deno.stdin.setRaw(false);
  }

  async #cooked<T>(use: () => Promise<T>): Promise<T> {
    Deno.stdin.setRaw(false);
    try {
      return await use();
    } finally {
      Deno.stdin.setRaw(true);
    }
  }

  async #read(): Promise<string> {
    const bytes = new Uint8Array(1024);
    const count = await Deno.stdin.read(bytes);
    const text = count === null ? LEAVE : this.#decoder.decode(bytes.subarray(0, count));
    return text.replaceAll(CTRL_D, LEAVE);
  }
}

/** What `promise` gives, or null when it takes longer. */
export async function orAfter<T>(limitMs: number, promise: Promise<T>): Promise<T | null> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), limitMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
