/** Fuzzing of the proxy's parsers: a failure prints seed and input, and the seed replays it. */
import { Random, SEED } from "../random.ts";

/** How many inputs each fuzz test tries: `OUTCALL_FUZZ_RUNS`, or fifty thousand. */
const RUNS = Number(Deno.env.get("OUTCALL_FUZZ_RUNS") ?? 50_000);

/** How many inputs a test tries that sends them through sockets. */
export const SOCKET_RUNS = Math.ceil(RUNS / 25);

/** How many ClientHellos are given to another TLS library. */
export const HELLO_RUNS = Math.ceil(RUNS / 5);

/** Runs `check` on `RUNS` inputs; a failure names the seed and shows the input. */
export function fuzz(
  inputs: (random: Random) => Uint8Array,
  check: (input: Uint8Array) => void,
): void {
  const random = new Random();
  for (let run = 0; run < RUNS; run++) {
    const input = inputs(random);
    try {
      check(input);
    } catch (thrown) {
      const shown = JSON.stringify(Array.from(input, (byte) => String.fromCharCode(byte)).join(""));
      throw new Error(`run ${run}, OUTCALL_FUZZ_SEED=${SEED}, input ${shown}`, { cause: thrown });
    }
  }
}
