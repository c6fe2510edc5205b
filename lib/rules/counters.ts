/** How often each rule decided, blocked and failed since its policy was loaded. */
import type { Policy } from "./policy.ts";
import type { RuleFailure, Verdict } from "./types.ts";

/** One rule's counters. */
export interface RuleCounter {
  readonly id: string;
  readonly file: string;
  readonly line: number;
  readonly action: "allow" | "block";
  /** Decisions that this rule made. */
  readonly matches: number;
  /** Those of them that blocked. */
  readonly blocks: number;
  /** Evaluations that failed. */
  readonly errors: number;
  /** ISO 8601 in UTC; null: never since it was loaded. */
  readonly last_matched: string | null;
}

interface Tally {
  matches: number;
  blocks: number;
  errors: number;
  lastMatchedMs: number | null;
  lastLoggedMs: number;
}

/** Decision D9: a failing rule is logged once a minute at most, however often it is asked. */
const LOG_INTERVAL_MS = 60_000;

/** Counts verdicts by rule id; ids outlive a reload, so their counts do as long as they are loaded. */
export class RuleCounters {
  #tallies = new Map<string, Tally>();

  #tally(id: string): Tally {
    let tally = this.#tallies.get(id);
    if (tally === undefined) {
      tally = { matches: 0, blocks: 0, errors: 0, lastMatchedMs: null, lastLoggedMs: -Infinity };
      this.#tallies.set(id, tally);
    }
    return tally;
  }

  /**
   * Counts one verdict.
   * @param nowMs Wall clock, milliseconds since 1970.
   * @returns the failures that are due to be logged.
   */
  count(verdict: Verdict, nowMs: number): RuleFailure[] {
    const { rule, allowed, reason, failures = [] } = verdict;
    // A rule that was named for its port did not match.
    if (rule !== null && reason !== "port") {
      const tally = this.#tally(rule.id);
      tally.matches++;
      if (!allowed) tally.blocks++;
      tally.lastMatchedMs = nowMs;
    }
    return failures.filter((failure) => {
      const tally = this.#tally(failure.id);
      tally.errors++;
      if (nowMs - tally.lastLoggedMs < LOG_INTERVAL_MS) return false;
      tally.lastLoggedMs = nowMs;
      return true;
    });
  }

  /** Forgets rules that `policy` no longer has. Call after each reload. */
  keepOnly(policy: Policy): void {
    this.#tallies = new Map([...this.#tallies].filter(([id]) => policy.byId.has(id)));
  }

  /** The counters of every rule of `policy`, in evaluation order. */
  list(policy: Policy): RuleCounter[] {
    return policy.rules.map(({ id, file, line, action }) => {
      const tally = this.#tallies.get(id);
      const last = tally?.lastMatchedMs ?? null;
      return {
        id,
        file,
        line,
        action,
        matches: tally?.matches ?? 0,
        blocks: tally?.blocks ?? 0,
        errors: tally?.errors ?? 0,
        last_matched: last === null ? null : new Date(last).toISOString(),
      };
    });
  }
}
