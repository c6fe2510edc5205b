/** Decisions on their way from the thread to the main isolate. */
import {
  type Decision,
  type DecisionChanges,
  nameDecision,
  type NewDecision,
} from "../../decision.ts";

/** What came to be known of a decision that was reported before. */
export interface Growth {
  readonly decision: Decision;
  readonly changes: DecisionChanges;
}

/** What was decided, and what came to be known, since the last report. */
export class Journal {
  #decisions = new Map<string, Decision>();
  #growths = new Map<string, Growth>();
  #nowMs = 0;
  #nowText = "";

  /** How many decisions the next report has. */
  get size(): number {
    return this.#decisions.size + this.#growths.size;
  }

  /** Names a decision and keeps it for the next report. */
  record(decision: NewDecision): Decision {
    const nowMs = Date.now();
    if (nowMs !== this.#nowMs) {
      this.#nowMs = nowMs;
      this.#nowText = new Date(nowMs).toISOString();
    }
    const named = nameDecision(decision, nowMs, this.#nowText);
    this.#decisions.set(named.id, named);
    return named;
  }

  /** Adds to a decision; one that has not been reported yet is reported with it, and grows later not. */
  grow(decision: Decision, changes: DecisionChanges): void {
    const { id } = decision;
    if (this.#decisions.has(id)) this.#decisions.set(id, { ...decision, ...changes });
    else this.#growths.set(id, { decision, changes });
  }

  /** Everything since the last report; begins anew. */
  take(): { readonly decisions: readonly Decision[]; readonly growths: readonly Growth[] } {
    const taken = {
      decisions: [...this.#decisions.values()],
      growths: [...this.#growths.values()],
    };
    this.#decisions = new Map();
    this.#growths = new Map();
    return taken;
  }
}
