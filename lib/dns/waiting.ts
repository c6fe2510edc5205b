/** Keeps one agent from taking all the upstream queries there can be. */

/** A resolver's worth of parallel new names; a browser has a few dozen. */
const MAX_WAITING_PER_AGENT = 128;

/** How many look-ups each agent waits for. */
export class Waiting {
  readonly #counts = new Map<string, number>();

  constructor(readonly maxPerAgent: number = MAX_WAITING_PER_AGENT) {}

  /** Whether the agent at `address` may start another look-up. */
  admits(address: string): boolean {
    return (this.#counts.get(address) ?? 0) < this.maxPerAgent;
  }

  /** Counts `lookup` for the agent at `address` until it settles; returns its outcome. */
  async track<T>(address: string, lookup: Promise<T>): Promise<T> {
    this.#counts.set(address, (this.#counts.get(address) ?? 0) + 1);
    try {
      return await lookup;
    } finally {
      const left = (this.#counts.get(address) ?? 1) - 1;
      if (left === 0) this.#counts.delete(address);
      else this.#counts.set(address, left);
    }
  }
}
