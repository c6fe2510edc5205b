/**
 * Counts decisions as they are made. This is called for each one, so it only adds to numbers; text is
 * made when somebody asks for it.
 */
import { Counter, Histogram, Registry } from "prom-client";
import type { Change, Decision, TunnelEnd } from "../decision.ts";

/** Seconds; from a cached answer to the longest time limit of an upstream. */
const UPSTREAM_BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];
/** Seconds; requests and permission checks. */
const DURATION_BUCKETS = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30];
/** Seconds; tunnels live from one exchange to days. */
const TUNNEL_BUCKETS = [0.1, 1, 10, 60, 600, 3600, 86_400];

/** What decisions are counted by: each label has the few values that its type has. */
const LABELS = ["layer", "verdict", "reason"] as const;

/** One combination of labels and its number. */
interface Tally {
  readonly layer: string;
  readonly verdict: string;
  readonly reason: string;
  count: number;
}

/** One series of a histogram. */
type Series = Histogram.Internal<string>;

/** What happened, in numbers. */
export class DecisionMetrics {
  /** Where these numbers are, and further ones may be. */
  readonly registry = new Registry();
  /** By layer, verdict and reason. A look-up by three strings costs less than one by their text. */
  readonly #tallies = new Map<string, Map<string, Map<string, Tally>>>();
  readonly #upstream: Histogram;
  readonly #durations: Histogram<"layer">;
  /** By layer: the library finds a series by a text that it makes of the labels each time. */
  readonly #durationsOf = new Map<string, Series>();
  readonly #tunnels: Histogram;
  readonly #tunnelBytes = { up: 0, down: 0 };
  readonly #tunnelEnds = new Map<TunnelEnd, number>();
  readonly #connected: Series;
  readonly #failed: Series;

  constructor() {
    const registers = [this.registry];
    const tallies = this.#tallies;
    new Counter({
      name: "outcall_decisions_total",
      help: "Decisions by layer, verdict and reason. One of the kernel may stand for many packets.",
      labelNames: LABELS,
      registers,
      collect(): void {
        this.reset();
        for (const verdicts of tallies.values()) {
          for (const reasons of verdicts.values()) {
            for (const { count, ...labels } of reasons.values()) this.inc(labels, count);
          }
        }
      },
    });
    this.#upstream = new Histogram({
      name: "outcall_dns_upstream_seconds",
      help: "Time that upstream resolvers took for DNS answers that were not cached.",
      buckets: UPSTREAM_BUCKETS,
      registers,
    });
    this.#durations = new Histogram({
      name: "outcall_decision_seconds",
      help: "Time from an attempt to the end of its handling, where the layer measures it.",
      labelNames: ["layer"],
      buckets: DURATION_BUCKETS,
      registers,
    });
    const dials = new Histogram({
      name: "outcall_proxy_dial_seconds",
      help: "Time to connect to a destination, by whether it answered.",
      labelNames: ["result"],
      buckets: UPSTREAM_BUCKETS,
      registers,
    });
    this.#connected = dials.labels({ result: "connected" });
    this.#failed = dials.labels({ result: "failed" });
    this.#tunnels = new Histogram({
      name: "outcall_tunnel_seconds",
      help: "How long tunnels that have ended lived.",
      buckets: TUNNEL_BUCKETS,
      registers,
    });
    const bytes = this.#tunnelBytes;
    new Counter({
      name: "outcall_tunnel_bytes_total",
      help: "Bytes that tunnels have moved, counted when they end; up is from the agent.",
      labelNames: ["direction"],
      registers,
      collect(): void {
        this.reset();
        for (const [direction, count] of Object.entries(bytes)) this.inc({ direction }, count);
      },
    });
    const ends = this.#tunnelEnds;
    new Counter({
      name: "outcall_tunnels_ended_total",
      help: "Tunnels that have ended, by how.",
      labelNames: ["end"],
      registers,
      collect(): void {
        this.reset();
        for (const [end, count] of ends) this.inc({ end }, count);
      },
    });
  }

  /** To be a sink of the decision log. */
  readonly count = (decision: Decision, change: Change): void => {
    if (change === "new") this.#countNew(decision);
    if (decision.tunnel !== undefined) this.#countTunnel(decision.tunnel, decision.durationMs);
    else if (decision.durationMs !== undefined) {
      const { layer, durationMs } = decision;
      const series = inner(this.#durationsOf, layer, () => this.#durations.labels({ layer }));
      series.observe(durationMs / 1000);
    }
  };

  /** A connection to a destination that was made, or not. */
  readonly countDial = (durationMs: number, isConnected: boolean): void => {
    (isConnected ? this.#connected : this.#failed).observe(durationMs / 1000);
  };

  #countNew({ layer, verdict, reason, count = 1, upstreamMs }: Decision): void {
    const verdicts = inner(this.#tallies, layer, () => new Map<string, Map<string, Tally>>());
    const reasons = inner(verdicts, verdict, () => new Map<string, Tally>());
    inner(reasons, reason, () => ({ layer, verdict, reason, count: 0 })).count += count;
    if (typeof upstreamMs === "number") this.#upstream.observe(upstreamMs / 1000);
  }

  #countTunnel(
    { upBytes, downBytes, end }: { upBytes: number; downBytes: number; end: TunnelEnd },
    durationMs: number | undefined,
  ): void {
    this.#tunnelBytes.up += upBytes;
    this.#tunnelBytes.down += downBytes;
    this.#tunnelEnds.set(end, (this.#tunnelEnds.get(end) ?? 0) + 1);
    if (durationMs !== undefined) this.#tunnels.observe(durationMs / 1000);
  }
}

function inner<T>(map: Map<string, T>, key: string, make: () => T): T {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
