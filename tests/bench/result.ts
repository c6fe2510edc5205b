/** One measured comparison with real peers, made in the same run on the same machine. */
export interface BenchResult {
  readonly suite: string;
  readonly case: string;
  readonly unit: string;
  readonly better: "higher" | "lower";
  readonly ours: number;
  /** Each peer's figure in the same unit. */
  readonly peers: Readonly<Record<string, number>>;
  /** Above 1: ours is better than the best peer. Null where there is no peer to compare with. */
  readonly ratio: number | null;
}

/** Receives results as they are measured. */
export type Report = (result: BenchResult) => void;

/** One suite: measures its cases in turn. */
export type Suite = (report: Report, progress: (line: string) => void) => Promise<void>;

/**
 * Builds a result, with the ratio against the best peer.
 * @throws Error when a figure is not a positive number: a failed measurement is not a result.
 */
export function compare(
  parts: Omit<BenchResult, "ratio">,
): BenchResult {
  const figures = [["ours", parts.ours] as const, ...Object.entries(parts.peers)];
  for (const [name, value] of figures) {
    if (!Number.isFinite(value) || value <= 0) {
      throw new Error(`${parts.suite}/${parts.case}: ${name} measured ${value} ${parts.unit}`);
    }
  }
  const peers = Object.values(parts.peers);
  if (peers.length === 0) return { ...parts, ratio: null };
  const best = parts.better === "higher" ? Math.max(...peers) : Math.min(...peers);
  return { ...parts, ratio: parts.better === "higher" ? parts.ours / best : best / parts.ours };
}
