/**
 * Decisions on their way from the thread to the main isolate.
 *
 * Most repeat others but for their id, their time and how they ended. What they have in common, their
 * outline, crosses over once in a report. A report is JSON: copied as objects, each decision would
 * cost both isolates three times as much, and the records of one outline would share no memory.
 */
import {
  type Decision,
  DECISION_SCHEMA,
  type DecisionChanges,
  nameDecision,
  type NewDecision,
} from "../../decision.ts";

/** What came to be known of a decision that was reported before. */
export interface Growth {
  readonly decision: Decision;
  readonly changes: DecisionChanges;
}

/** Decisions, and what came to be known of earlier ones. */
export interface Activity {
  readonly decisions: readonly Decision[];
  readonly growths: readonly Growth[];
}

/** One decision: its outline's position, and what it does not share. */
type Row = readonly [outline: number, id: string, timeMs: number, changes: DecisionChanges];

/** A report as it is written. */
interface Written {
  readonly outlines: readonly NewDecision[];
  readonly rows: readonly Row[];
  readonly growths: readonly Growth[];
}

/** Times as ISO 8601; many decisions in a row are of the same millisecond. */
class TimeTexts {
  #timeMs = Number.NaN;
  #text = "";

  of(timeMs: number): string {
    if (timeMs !== this.#timeMs) {
      this.#timeMs = timeMs;
      this.#text = new Date(timeMs).toISOString();
    }
    return this.#text;
  }
}

/** The thread's side: what was decided, and what came to be known, since the last report. */
export class Journal {
  /** JSON of each outline, to its position in the report. */
  #outlines = new Map<string, number>();
  #rows = new Map<string, Row>();
  #growths = new Map<string, Growth>();
  readonly #times = new TimeTexts();

  /** How many decisions the next report has. */
  get size(): number {
    return this.#rows.size + this.#growths.size;
  }

  /** Names a decision and keeps it for the next report. */
  record(decision: NewDecision): Decision {
    const nowMs = Date.now();
    const named = nameDecision(decision, nowMs, this.#times.of(nowMs));
    this.#rows.set(named.id, [this.#outlineOf(decision), named.id, nowMs, {}]);
    return named;
  }

  #outlineOf(decision: NewDecision): number {
    const text = JSON.stringify(decision);
    const known = this.#outlines.get(text);
    if (known !== undefined) return known;
    const position = this.#outlines.size;
    this.#outlines.set(text, position);
    return position;
  }

  /** Adds to a decision; one that has not been reported yet is reported with it, and grows later not. */
  grow(decision: Decision, changes: DecisionChanges): void {
    const { id } = decision;
    const row = this.#rows.get(id);
    if (row === undefined) this.#growths.set(id, { decision, changes });
    else this.#rows.set(id, [row[0], id, row[2], changes]);
  }

  /** Everything since the last report, for {@linkcode readJournal}; begins anew. */
  take(): string {
    const outlines = [...this.#outlines.keys()].join(",");
    const rows = JSON.stringify([...this.#rows.values()]);
    const growths = JSON.stringify([...this.#growths.values()]);
    this.#outlines = new Map();
    this.#rows = new Map();
    this.#growths = new Map();
    return `{"outlines":[${outlines}],"rows":${rows},"growths":${growths}}`;
  }
}

/** The main isolate's side: what a report says, in the order in which it was decided. */
export function readJournal(report: string): Activity {
  const { outlines, rows, growths }: Written = JSON.parse(report);
  const times = new TimeTexts();
  const decisions = rows.map(([position, id, timeMs, changes]): Decision => {
    const outline = outlines[position];
    if (outline === undefined) throw new Error("a report refers to what it does not say");
    return { schema: DECISION_SCHEMA, id, time: times.of(timeMs), ...outline, ...changes };
  });
  return { decisions, growths };
}
