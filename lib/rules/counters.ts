/** How often each rule decided, blocked and failed since it was loaded as it is. */
import { type CompiledRule, isSameRule, type Policy } from "./policy.ts";
import type { RuleFailure, RuleRef } from "./types.ts";

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

/** Counts by rule id. A rule that a reload leaves as it was keeps its counts. */
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
   * Counts one decision that `rule` made.
   * @param nowMs Wall clock, milliseconds since 1970.
   * @param attempts How many attempts the decision was about.
   */
  countMatch(rule: RuleRef, blocked: boolean, nowMs: number, attempts = 1): void {
    const tally = this.#tally(rule.id);
    tally.matches += attempts;
    if (blocked) tally.blocks += attempts;
    tally.lastMatchedMs = nowMs;
  }

  /**
   * Counts evaluations that failed.
   * @param nowMs Wall clock, milliseconds since 1970.
   * @returns the failures that are due to be logged.
   */
  countFailures(failures: readonly RuleFailure[], nowMs: number): RuleFailure[] {
    return failures.filter((failure) => {
      const tally = this.#tally(failure.id);
      tally.errors++;
      if (nowMs - tally.lastLoggedMs < LOG_INTERVAL_MS) return false;
      tally.lastLoggedMs = nowMs;
      return true;
    });
  }

  /** Forgets rules that `after` no longer has as `before` had them. Call at each reload. */
  keepUnchanged(before: Policy, after: Policy): void {
    this.#tallies = new Map([...this.#tallies].filter(([id]) => {
      const old = before.byId.get(id);
      const rule = after.byId.get(id);
      return old !== undefined && rule !== undefined && isSameRule(old, rule);
    }));
  }

  /** The counters of one rule. */
  of({ id, file, line, action }: CompiledRule): RuleCounter {
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
  }

  /** The counters of every rule of `policy`, in evaluation order. */
  list(policy: Policy): RuleCounter[] {
    return policy.rules.map((rule) => this.of(rule));
  }
}
