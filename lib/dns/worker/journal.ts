/**
 * Decisions on their way from the worker to the main isolate.
 *
 * Most decisions repeat others but for id and time. What they have in common, their outline, crosses
 * over once; after that a decision is one row of numbers, and an id.
 */
import { type Decision, DECISION_SCHEMA, decisionId, type NewDecision } from "../../decision.ts";
import { Shares } from "../../shares.ts";
import type { Activity, Report } from "./protocol.ts";

/**
 * Decisions in one report. It bounds memory and the main isolate's work while somebody floods us
 * with different questions; the packets above it are dropped, and counted.
 */
const MAX_DECISIONS = 4096;

/** A packet on which the filter fails may take two. */
const SHARED_DECISIONS = MAX_DECISIONS - 1;

/** Time between reports: nobody who looks a decision up by its id is quicker. */
const REPORT_EVERY_MS = 100;

/**
 * In busy moments, with more than {@linkcode BUSY_DECISIONS} different ones, reports are rarer, and
 * more attempts share a decision: repetitions then cost the main isolate nothing.
 */
const BUSY_DECISIONS = 256;
const BUSY_REPORT_EVERY_MS = 500;

/** By source address, as a number. */
function newShares(): Shares<number> {
  return new Shares(SHARED_DECISIONS, SHARED_DECISIONS);
}

/** The worker's side. */
export class Journal {
  #report = 0;
  #reportedAtMs = Number.NEGATIVE_INFINITY;
  #outlines: Report["outlines"][number][] = [];
  #nextOutline = 0;
  #firstOutline = 0;
  #size = 0;
  readonly #rows = new Uint32Array(MAX_DECISIONS);
  readonly #counts = new Uint32Array(MAX_DECISIONS);
  readonly #timesMs = new Float64Array(MAX_DECISIONS);
  #ids: string[] = [];
  #hits = new Set<string>();
  #dropped = 0;
  #shares = newShares();

  /**
   * Records a decision about `source` under an outline of its own, {@linkcode newestOutline}; returns
   * its id. There must be room.
   */
  record(decision: NewDecision, source: number): string {
    const number = this.#nextOutline++;
    this.#outlines.push({ number, decision });
    return this.repeatOutline(number, source);
  }

  /**
   * Records one more decision of this outline, the newest then; returns its id. There must be room.
   */
  repeatOutline(outline: number, source: number): string {
    this.#shares.take(source);
    const now = Date.now();
    const id = decisionId(now);
    const position = this.#size++;
    this.#rows[position] = outline;
    this.#counts[position] = 1;
    this.#timesMs[position] = now;
    this.#ids.push(id);
    return id;
  }

  /** Number of the report that is being written. */
  get report(): number {
    return this.#report;
  }

  /** Whether the report, of which each source has a share, has room for a packet of `source`. */
  hasRoomFor(source: number): boolean {
    return this.#shares.hasRoomFor(source);
  }

  /** Position of the newest decision in the report. */
  get newest(): number {
    return this.#size - 1;
  }

  /** Number of the newest outline. */
  get newestOutline(): number {
    return this.#nextOutline - 1;
  }

  /** How many outlines may still be repeated. */
  get outlines(): number {
    return this.#nextOutline - this.#firstOutline;
  }

  /** No outline of before is repeated any more. */
  closeOutlines(): void {
    this.#firstOutline = this.#nextOutline;
  }

  /** Counts further attempts that the decision at this position stands for. */
  repeat(decision: number, attempts = 1): void {
    this.#counts[decision] = (this.#counts[decision] ?? 0) + attempts;
  }

  /** Counts packets that get neither reply nor decision. */
  drop(packets = 1): void {
    this.#dropped += packets;
  }

  /** Notes that the cache entry of this key was used. */
  hit(key: string): void {
    this.#hits.add(key);
  }

  /**
   * Milliseconds until the next report is due, 0 when it is; null when there is nothing to report.
   * After a quiet moment it is due at once.
   */
  dueInMs(nowMs: number): number | null {
    if (this.#size === 0 && this.#dropped === 0) return null;
    const isBusy = this.#size > BUSY_DECISIONS && this.#size < MAX_DECISIONS / 2;
    const everyMs = isBusy ? BUSY_REPORT_EVERY_MS : REPORT_EVERY_MS;
    return Math.max(0, Math.ceil(this.#reportedAtMs + everyMs - nowMs));
  }

  /** Everything since the last report; begins anew. */
  take(nowMs: number): Report {
    const report: Report = {
      outlines: this.#outlines,
      rows: this.#rows.slice(0, this.#size),
      counts: this.#counts.slice(0, this.#size),
      timesMs: this.#timesMs.slice(0, this.#size),
      ids: this.#ids,
      firstOutline: this.#firstOutline,
      dropped: this.#dropped,
      hits: [...this.#hits],
    };
    this.#report++;
    this.#reportedAtMs = nowMs;
    this.#outlines = [];
    this.#size = 0;
    this.#shares = newShares();
    this.#ids = [];
    this.#hits = new Set();
    this.#dropped = 0;
    return report;
  }
}

/** The main isolate's side: knows the outlines of one worker. */
export class JournalReader {
  readonly #outlines = new Map<number, NewDecision>();
  #timeMs = Number.NaN;
  #timeText = "";

  /** Outlines in memory. */
  get outlines(): number {
    return this.#outlines.size;
  }

  /** What a report says; they have to be read in the order in which they were written. */
  read(report: Report): Activity {
    for (const { number, decision } of report.outlines) this.#outlines.set(number, decision);
    const decisions: Decision[] = [];
    for (const [position, id] of report.ids.entries()) {
      const outline = this.#outlines.get(report.rows[position] ?? Number.NaN);
      if (outline === undefined) throw new Error("a report refers to what was never reported");
      const count = report.counts[position] ?? 1;
      decisions.push({
        schema: DECISION_SCHEMA,
        id,
        time: this.#time(report.timesMs[position] ?? Number.NaN),
        ...outline,
        ...(count === 1 ? {} : { count }),
      });
    }
    // A map keeps the order of insertion, and numbers only rise.
    for (const number of this.#outlines.keys()) {
      if (number >= report.firstOutline) break;
      this.#outlines.delete(number);
    }
    return { decisions, dropped: report.dropped, hits: report.hits };
  }

  /** As ISO 8601; many decisions are of the same millisecond. */
  #time(timeMs: number): string {
    if (timeMs !== this.#timeMs) {
      this.#timeMs = timeMs;
      this.#timeText = new Date(timeMs).toISOString();
    }
    return this.#timeText;
  }
}
