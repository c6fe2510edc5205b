/** Seeded randomness: a failure prints the seed, and the seed brings it back. */

/** The seed of this run: OUTCALL_FUZZ_SEED, or a fixed one. */
export const SEED = Number(Deno.env.get("OUTCALL_FUZZ_SEED") ?? "20240607") >>> 0;

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
  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError("nothing to pick from");
    return item;
  }

  /** `length` random bytes. */
  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }

  /** `packet` with a few bytes changed, cut out, doubled or put in. */
  mutate(packet: Uint8Array): Uint8Array {
    let bytes = [...packet];
    for (let rounds = 1 + this.below(4); rounds > 0; rounds--) {
      const at = this.below(bytes.length + 1);
      switch (this.below(6)) {
        case 0:
          bytes[Math.min(at, bytes.length - 1)] = this.below(256);
          break;
        case 1: // values that mean something: pointers, long labels, extremes
          bytes[Math.min(at, bytes.length - 1)] = this.pick([0, 1, 12, 63, 64, 0xc0, 0xff]);
          break;
        case 2:
          bytes = bytes.slice(0, at);
          break;
        case 3:
          bytes.splice(at, 1 + this.below(8));
          break;
        case 4:
          bytes.splice(at, 0, ...this.bytes(1 + this.below(8)));
          break;
        case 5:
          bytes.push(...bytes.slice(at, at + 1 + this.below(32)));
          break;
      }
    }
    return Uint8Array.from(bytes);
  }
}

/** Lower-case hexadecimal, for failure messages. */
export function hex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
