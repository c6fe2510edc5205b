/** Seeded randomness: a failure prints the seed, and the seed brings it back. */

/** The seed of this run: OUTCALL_FUZZ_SEED, or a fixed one. */
export const SEED = Number(Deno.env.get("OUTCALL_FUZZ_SEED") ?? 20_240_607) >>> 0;

/** A small generator (mulberry32); the same seed gives the same sequence. */
export class Random {
  #state: number;

  constructor(seed: number = SEED) {
    this.#state = seed >>> 0;
  }

  /** A whole number from 0 to `below` - 1. */
  below(below: number): number {
    this.#state = this.#state + 0x6d2b79f5 >>> 0;
    let mixed = Math.imul(this.#state ^ this.#state >>> 15, this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61);
    return Math.floor(((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32 * below);
  }

  /** One of `items`, of which there must be at least one. */
  pick<T>(items: ArrayLike<T>): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError("nothing to pick from");
    return item;
  }

  /** `length` random bytes. */
  bytes(length: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length }, () => this.below(256));
  }

  /**
   * A copy of `input` with one to four small damages.
   * @param spice Bytes that mean something to the parser, which stumbles over them more easily.
   */
  mutate(input: Uint8Array, spice: ArrayLike<number>): Uint8Array<ArrayBuffer> {
    let bytes = [...input];
    for (let damages = 1 + this.below(4); damages > 0; damages--) {
      const at = this.below(bytes.length + 1);
      const length = 1 + this.below(8);
      switch (this.below(8)) {
        case 0: // flip a bit
          if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << this.below(8));
          break;
        case 1:
          if (at < bytes.length) bytes[at] = this.below(256);
          break;
        case 2:
          if (at < bytes.length) bytes[at] = this.pick(spice);
          break;
        case 3:
          bytes.splice(at, 0, this.pick(spice));
          break;
        case 4:
          bytes.splice(at, 0, ...this.bytes(length));
          break;
        case 5:
          bytes.splice(at, length);
          break;
        case 6: // repeat a stretch
          bytes.splice(at, 0, ...bytes.slice(at, at + 1 + this.below(32)));
          break;
        default: // cut off, not so often that nothing long is left to try
          if (this.below(4) === 0) bytes = bytes.slice(0, at);
      }
    }
    return Uint8Array.from(bytes);
  }
}

/** Lower-case hexadecimal, for failure messages. */
export function hex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
