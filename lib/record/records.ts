/** Everything that is known of decisions: the newest in memory, older ones in the history. */
import type { DecisionService } from "../api/services.ts";
import type { Decision, DecisionLog, Recorded } from "../decision.ts";
import { messageOf } from "../errors.ts";
import { type DecisionFilter, type DecisionList, type DecisionQuery, matches } from "./filter.ts";
import type { HistoryLookup } from "./lookup.ts";
import { decisionSchema } from "./schema.ts";
import { DecisionStreams, type Subscription } from "./streams.ts";
import type { DecisionStats, HistoryQuery, Row, StatsQuery } from "./table.ts";

/** A record from disk; none if it is of another schema than ours, or damaged. */
function recordedIn({ sequence, record }: Row): Recorded[] {
  try {
    return [{ sequence, decision: decisionSchema.parse(JSON.parse(record)) }];
  } catch {
    return [];
  }
}

function byId(a: Decision, b: Decision): number {
  return a.id < b.id ? -1 : 1;
}

/** The decision log and its history as one. */
export class DecisionRecords implements DecisionService {
  readonly #log: DecisionLog;
  readonly #lookup: HistoryLookup;
  readonly #streams: DecisionStreams;
  readonly #settle: () => Promise<unknown>;

  /**
   * @param lastLost Sequence of the last change that the history lost.
   * @param settle Settles when what other threads have decided until now is in the log: who was just
   *   refused has an id, and looks it up before they report by themselves. Must not reject.
   */
  constructor(
    log: DecisionLog,
    lookup: HistoryLookup,
    lastLost: () => number,
    settle: () => Promise<unknown> = () => Promise.resolve(),
  ) {
    this.#log = log;
    this.#lookup = lookup;
    this.#settle = settle;
    this.#streams = new DecisionStreams(log, { read: (query) => this.#read(query), lastLost });
  }

  async #read(query: HistoryQuery): Promise<readonly Recorded[]> {
    return (await this.#lookup.read(query)).flatMap(recordedIn);
  }

  recent(limit?: number): readonly Decision[] {
    return this.#log.recent(limit);
  }

  get sequence(): number {
    return this.#log.sequence;
  }

  async find(id: string): Promise<Decision | undefined> {
    const known = this.#log.find(id);
    if (known !== undefined) return known;
    await this.#settle();
    const recent = this.#log.find(id);
    if (recent !== undefined) return recent;
    const [found] = await this.#read({ id, limit: 1 });
    return found?.decision;
  }

  async query(query: DecisionQuery): Promise<DecisionList> {
    const { sinceMs = 0, limit } = query;
    const since = new Date(sinceMs).toISOString();
    await this.#settle();
    const recent = this.#log.recent().filter((decision) =>
      decision.time >= since && matches(query, decision)
    ).sort(byId).slice(-limit);
    // Memory has the newest without a gap.
    if (recent.length === limit) return { decisions: recent, incomplete: null };
    try {
      const found = new Map<string, Decision>();
      for (const { decision } of await this.#read(query)) found.set(decision.id, decision);
      for (const decision of recent) found.set(decision.id, decision);
      return { decisions: [...found.values()].sort(byId).slice(-limit), incomplete: null };
    } catch (thrown) {
      return { decisions: recent, incomplete: messageOf(thrown) };
    }
  }

  stats(query: StatsQuery): Promise<DecisionStats> {
    return this.#lookup.stats(query);
  }

  subscribe(filter: DecisionFilter, afterSequence: number | null): Subscription {
    return this.#streams.subscribe(filter, afterSequence);
  }

  /** Subscriptions now, and events that their readers were too slow for since start-up. */
  get streamCounters(): DecisionStreams["counters"] {
    return this.#streams.counters;
  }

  /** Ends every subscription and every question. */
  stop(): void {
    this.#streams.stop();
    this.#lookup.stop();
  }
}
