/** Measuring ours and the peers in turns, so that what else the machine does hits all of them. */
import { type BenchResult, compare } from "./result.ts";

/** Turns that each contender gets; an odd number, so that the median is one of the figures. */
const TURNS = 3;

/** The middle one of an odd number of figures. */
function median(figures: readonly number[]): number {
  return figures.toSorted((a, b) => a - b)[(figures.length - 1) / 2] ?? NaN;
}

/**
 * Lets all contenders take turns and compares the medians.
 * @throws Error naming the contender whose measurement failed.
 */
export async function race<Contender>(
  what: Pick<BenchResult, "suite" | "case" | "unit" | "better">,
  measure: (contender: Contender) => Promise<number>,
  ours: Contender,
  peers: Readonly<Record<string, Contender>>,
): Promise<BenchResult> {
  const figures = new Map<string, number[]>();
  for (let turn = 0; turn < TURNS; turn++) {
    for (const [name, contender] of [["ours", ours] as const, ...Object.entries(peers)]) {
      try {
        figures.set(name, [...figures.get(name) ?? [], await measure(contender)]);
      } catch (cause) {
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new Error(`${what.suite}/${what.case}: ${name}: ${reason}`, { cause });
      }
    }
  }
  const medianOf = (name: string): number => median(figures.get(name) ?? []);
  return compare({
    ...what,
    ours: medianOf("ours"),
    peers: Object.fromEntries(Object.keys(peers).map((name) => [name, medianOf(name)])),
  });
}
