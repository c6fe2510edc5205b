/** Seeded randomness for fuzzing: a failure prints seed and input, and the seed replays it. */

/** Seed of this run: `OUTCALL_FUZZ_SEED`, or a fixed one. */
export const SEED = Number(Deno.env.get("OUTCALL_FUZZ_SEED") ?? 20_260_401) >>> 0;

/** How many inputs each fuzz test tries: `OUTCALL_FUZZ_RUNS`, or fifty thousand. */
export const RUNS = Number(Deno.env.get("OUTCALL_FUZZ_RUNS") ?? 50_000);

/** A generator of numbers in [0, 1) (mulberry32): good enough to choose mutations, and repeatable. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** A whole number below `limit`. */
export function below(next: () => number, limit: number): number {
  return Math.floor(next() * limit);
}

/** One of `choices`. */
export function pick<T>(next: () => number, choices: readonly T[]): T {
  const chosen = choices[below(next, choices.length)];
  if (chosen === undefined) throw new TypeError("nothing to choose from");
  return chosen;
}

/** A copy of `input` with one to four small damages, biased to bytes that parsers stumble over. */
export function mutate(next: () => number, input: Uint8Array, spice: Uint8Array): Uint8Array {
  let bytes = [...input];
  for (let damages = 1 + below(next, 4); damages > 0; damages--) {
    const at = below(next, bytes.length + 1);
    const length = 1 + below(next, 8);
    switch (below(next, 6)) {
      case 0: // flip a bit
        if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << below(next, 8));
        break;
      case 1: // insert something troublesome
        bytes.splice(at, 0, spice[below(next, spice.length)] ?? 0);
        break;
      case 2: // remove a stretch
        bytes.splice(at, length);
        break;
      case 3: // repeat a stretch
        bytes.splice(at, 0, ...bytes.slice(at, at + length));
        break;
      case 4: // cut off
        if (next() < 0.2) bytes = bytes.slice(0, at);
        break;
      default: // overwrite with anything
        if (at < bytes.length) bytes[at] = below(next, 256);
    }
  }
  return Uint8Array.from(bytes);
}

/** Runs `check` on `RUNS` inputs; a failure names the seed and shows the input. */
export function fuzz(
  inputs: (next: () => number) => Uint8Array,
  check: (input: Uint8Array) => void,
): void {
  const next = random(SEED);
  for (let run = 0; run < RUNS; run++) {
    const input = inputs(next);
    try {
      check(input);
    } catch (thrown) {
      const shown = JSON.stringify(Array.from(input, (byte) => String.fromCharCode(byte)).join(""));
      throw new Error(`run ${run}, OUTCALL_FUZZ_SEED=${SEED}, input ${shown}`, { cause: thrown });
    }
  }
}
