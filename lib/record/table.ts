/** The table of decisions in the state database: what is written to it, asked of it and taken out. */
import { DatabaseSync } from "node:sqlite";
import { z } from "zod";
import { earliestIdAt } from "../decision.ts";
import type { DecisionFilter } from "./filter.ts";

/** How much is kept. */
export interface Bounds {
  /** Bytes of the database; above it the oldest decisions go. */
  readonly maxBytes: number;
  readonly maxAgeMs: number;
}

/** A record as JSON text, and its place in the order of changes. */
export interface Row {
  readonly sequence: number;
  readonly record: string;
}

/** Which decisions to count. */
export interface StatsQuery extends DecisionFilter {
  /** Milliseconds since 1970. */
  readonly sinceMs?: number | undefined;
}

/** Which decisions to read. */
export interface HistoryQuery extends StatsQuery {
  readonly id?: string | undefined;
  /** Only what changed after this. */
  readonly afterSequence?: number | undefined;
  readonly limit: number;
}

/** One line of a tally. */
export interface Tally {
  /** Empty: none, as for attempts that no rule decided. */
  readonly name: string;
  readonly allowed: number;
  readonly blocked: number;
}

/** What happened, counted in attempts; each list begins with what was blocked most. */
export interface DecisionStats {
  readonly allowed: number;
  readonly blocked: number;
  readonly hosts: readonly Tally[];
  readonly agents: readonly Tally[];
  readonly rules: readonly Tally[];
  readonly layers: readonly Tally[];
}

/** How much there is. */
export interface Extent {
  readonly bytes: number;
  readonly records: number;
  /** ISO 8601; null when there is none. */
  readonly oldest: string | null;
}

/**
 * Rows in one transaction: some milliseconds. The main isolate, which writes rule requests to the
 * same database, waits no longer than for one.
 */
const ROWS_AT_ONCE = 500;

/** Lines of a tally. */
const TALLY_LINES = 10;

const tallyRow = z.object({ name: z.string(), allowed: z.number(), blocked: z.number() });
const row = z.object({ sequence: z.number(), record: z.string() });
const timeRow = z.object({ time: z.string() });
const numberRow = z.object({ n: z.number() });

const INSERT = `INSERT OR REPLACE INTO decisions
  (sequence, id, agent, verdict, layer, host, rule, count, record)
  VALUES (:sequence, :record ->> 'id', coalesce(:record ->> '$.agent.name', ''),
    :record ->> 'verdict', :record ->> 'layer',
    coalesce(:record ->> '$.attempt.host', :record ->> '$.attempt.address', ''),
    coalesce(:record ->> '$.rule.id', ''), coalesce(:record ->> 'count', 1), :record)`;

/**
 * The sequence that the newest change on disk has; 0 where there is none, or it cannot be read.
 * @param path Of a database that `openDatabase` made.
 */
export function lastSequence(path: string): number {
  const database = new DatabaseSync(path);
  try {
    const newest = database.prepare("SELECT coalesce(max(sequence), 0) AS n FROM decisions").get();
    return numberRow.parse(newest).n;
  } catch {
    return 0; // it is damaged, which the history will tell
  } finally {
    database.close();
  }
}

/** The table, on a connection of its own. */
export class DecisionTable {
  readonly #database: DatabaseSync;
  readonly #insert;

  /**
   * @param path Of a database that `openDatabase` made.
   * @throws Error when it cannot be used.
   */
  constructor(path: string) {
    this.#database = new DatabaseSync(path);
    // NORMAL: what was written survives the daemon; a loss of power may cost the last seconds.
    this.#database.exec("PRAGMA busy_timeout = 5000; PRAGMA synchronous = NORMAL;");
    this.#insert = this.#database.prepare(INSERT);
  }

  /** @throws Error when the table is damaged. */
  check(): void {
    const [found] = Object.values(
      this.#database.prepare("PRAGMA quick_check('decisions')").get() ?? {},
    );
    if (found !== "ok") throw new Error(`it is damaged: ${String(found)}`);
  }

  /**
   * Stores `rows`, in place of older versions.
   * @throws Error such as `database or disk is full`; then some are not stored, and all of them may be
   * written again.
   */
  write(rows: readonly Row[]): void {
    for (let from = 0; from < rows.length; from += ROWS_AT_ONCE) {
      this.#transaction(() => {
        for (const { sequence, record } of rows.slice(from, from + ROWS_AT_ONCE)) {
          this.#insert.run({ sequence, record });
        }
      });
    }
  }

  /** Takes out what is beyond the bounds, the oldest first; returns whether there may be more. */
  prune({ maxBytes, maxAgeMs }: Bounds, nowMs: number): boolean {
    const expired = this.#database.prepare(
      `DELETE FROM decisions WHERE id IN
         (SELECT id FROM decisions WHERE id < :before ORDER BY id LIMIT ${ROWS_AT_ONCE})`,
    ).run({ before: earliestIdAt(Math.max(0, nowMs - maxAgeMs)) });
    if (Number(expired.changes) === ROWS_AT_ONCE) return true;
    if (this.#bytes() <= maxBytes) return false;
    const oldest = this.#database.prepare(
      `DELETE FROM decisions WHERE sequence IN
         (SELECT sequence FROM decisions ORDER BY sequence LIMIT ${ROWS_AT_ONCE})`,
    ).run();
    return Number(oldest.changes) > 0;
  }

  /** The newest decisions that are wanted, oldest first; or the first ones after a sequence. */
  read(query: HistoryQuery): Row[] {
    const { where, values } = condition(query);
    const order = query.afterSequence === undefined ? "id DESC" : "sequence";
    const found = this.#database.prepare(
      `SELECT sequence, record FROM decisions ${where} ORDER BY ${order} LIMIT :limit`,
    ).all({ ...values, limit: query.limit }).map((found) => row.parse(found));
    return query.afterSequence === undefined ? found.reverse() : found;
  }

  /** Counts what happened. */
  stats(query: StatsQuery): DecisionStats {
    const layers = this.#tally("layer", query);
    const total = (which: "allowed" | "blocked"): number =>
      layers.reduce((sum, line) => sum + line[which], 0);
    return {
      allowed: total("allowed"),
      blocked: total("blocked"),
      hosts: this.#tally("host", query),
      agents: this.#tally("agent", query),
      rules: this.#tally("rule", query),
      layers,
    };
  }

  #tally(column: "host" | "agent" | "rule" | "layer", query: StatsQuery): Tally[] {
    const { where, values } = condition(query);
    return this.#database.prepare(
      `SELECT ${column} AS name,
         sum(iif(verdict = 'allow', count, 0)) AS allowed,
         sum(iif(verdict = 'block', count, 0)) AS blocked
       FROM decisions ${where} GROUP BY name
       ORDER BY blocked DESC, allowed DESC, name LIMIT ${TALLY_LINES}`,
    ).all(values).map((found) => tallyRow.parse(found));
  }

  /** How much there is. */
  extent(): Extent {
    const oldest = this.#database.prepare(
      "SELECT record ->> 'time' AS time FROM decisions ORDER BY id LIMIT 1",
    ).get();
    return {
      bytes: this.#bytes(),
      records: this.#number("SELECT count(*) AS n FROM decisions"),
      oldest: oldest === undefined ? null : timeRow.parse(oldest).time,
    };
  }

  /** Pages in use, those of other tables included: they are few. */
  #bytes(): number {
    return this.#number(
      `SELECT (page_count - freelist_count) * page_size AS n
       FROM pragma_page_count, pragma_freelist_count, pragma_page_size`,
    );
  }

  #number(sql: string): number {
    return numberRow.parse(this.#database.prepare(sql).get()).n;
  }

  #transaction(work: () => void): void {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      work();
      this.#database.exec("COMMIT");
    } catch (thrown) {
      try {
        this.#database.exec("ROLLBACK");
      } catch {
        // A full disk has rolled it back by itself (SQLITE_FULL).
      }
      throw thrown;
    }
  }

  /** Lets go of the file. */
  close(): void {
    this.#database.close();
  }
}

/** A query as SQL. */
function condition(query: Partial<HistoryQuery>): {
  readonly where: string;
  readonly values: Record<string, string | number>;
} {
  const { id, sinceMs, afterSequence, agent, verdict, layer } = query;
  const host = query.host?.toLowerCase();
  const conditions: string[] = [];
  const values: Record<string, string | number> = {};
  const where = (condition: string, name: string, value: string | number | undefined): void => {
    if (value === undefined) return;
    conditions.push(condition);
    values[name] = value;
  };
  where("id = :id", "id", id);
  where("id >= :since", "since", sinceMs === undefined ? undefined : earliestIdAt(sinceMs));
  where("sequence > :after", "after", afterSequence);
  where("agent = :agent", "agent", agent);
  where("verdict = :verdict", "verdict", verdict);
  where("layer = :layer", "layer", layer);
  if (host?.startsWith(".") === true) {
    // Not LIKE, to which an underscore is a wildcard. Nothing is below an address.
    where(
      `('.' || host = :host OR substr(host, -length(:host)) = :host)
         AND record ->> '$.attempt.host' IS NOT NULL`,
      "host",
      host,
    );
  } else where("(host = :host OR record ->> '$.attempt.address' = :host)", "host", host);
  return { where: conditions.length === 0 ? "" : `WHERE ${conditions.join(" AND ")}`, values };
}
