/** The rules of before: what a decision is explained by, as long as it is kept. */
import type { PolicyData } from "./policy.ts";

/** Sets of rules that are kept, the one in force included. */
const MAX_GENERATIONS = 32;

/** Rules in all of them together: some 2 KB each. */
const MAX_RULES = 20_000;

interface Kept {
  readonly data: PolicyData;
  readonly sinceMs: number;
}

/** The newest sets of rules that were in force. */
export class PolicyHistory {
  #kept: readonly Kept[] = [];

  /** Notes that `data` came into force at `nowMs`. */
  add(data: PolicyData, nowMs: number): void {
    const kept = [...this.#kept, { data, sinceMs: nowMs }];
    const rules = (): number => kept.reduce((sum, { data }) => sum + data.rules.length, 0);
    while (kept.length > MAX_GENERATIONS || (kept.length > 1 && rules() > MAX_RULES)) kept.shift();
    this.#kept = kept;
  }

  /**
   * The rules of a generation, or null when they are no longer kept.
   * @param atMs When they decided: another daemon counted its generations from 1, too.
   */
  at(generation: number, atMs: number): PolicyData | null {
    const found = this.#kept.find(({ data }) => data.generation === generation);
    return found === undefined || atMs < found.sinceMs ? null : found.data;
  }
}
