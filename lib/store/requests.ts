/** Rule requests in the state database. */
import type { DatabaseSync } from "node:sqlite";
import { z } from "zod";

type Values = Record<string, string | number | null>;

/** What became of a rule request. `expired` was approved for a time that is over. */
export type RequestStatus = "pending" | "approved" | "rejected" | "expired";

const row = z.object({
  id: z.string(),
  agent_key: z.string(),
  agent: z.string(),
  container_id: z.string().nullable(),
  address: z.string(),
  network: z.string(),
  rule_file: z.string(),
  approved_file: z.string().nullable(),
  reason: z.string().nullable(),
  for_secs: z.number().nullable(),
  hits: z.number(),
  status: z.enum(["pending", "approved", "rejected", "expired"]),
  created_ms: z.number(),
  asked_ms: z.number(),
  decided_ms: z.number().nullable(),
  decided_by: z.string().nullable(),
  answer: z.string().nullable(),
  expires_ms: z.number().nullable(),
});

/** One rule request with its history, as stored. Times are milliseconds since 1970. */
export type StoredRequest = Readonly<z.infer<typeof row>>;

/** What {@linkcode RequestStore.add} stores; the rest begins empty. */
export type NewRequest = Pick<
  StoredRequest,
  | "id"
  | "agent_key"
  | "agent"
  | "container_id"
  | "address"
  | "network"
  | "rule_file"
  | "reason"
  | "for_secs"
  | "created_ms"
>;

/** An operator's answer. */
export type Answered = Pick<
  StoredRequest,
  "status" | "decided_ms" | "decided_by" | "answer" | "expires_ms" | "approved_file"
>;

const event = z.object({
  at_ms: z.number(),
  event: z.enum(["asked", "approved", "rejected", "extended", "replaced", "expired"]),
  by: z.string().nullable(),
  until_ms: z.number().nullable(),
  note: z.string().nullable(),
});

/**
 * What happened to a request, and when: `by` whom (an agent, an operator; null: by itself), and
 * `until_ms` when an approval or extension holds (null: for ever, or no matter).
 */
export type RequestEvent = Readonly<z.infer<typeof event>>;

/** Each change of a request and the event that tells of it are one transaction. */
export class RequestStore {
  constructor(readonly database: DatabaseSync) {}

  /** Stores a pending request. */
  add(request: NewRequest): void {
    const { id, created_ms, agent, reason } = request;
    const asked = { at_ms: created_ms, event: "asked", by: agent, until_ms: null, note: reason };
    this.#change(
      id,
      asked,
      `INSERT INTO rule_requests (id, agent_key, agent, container_id, address, network, rule_file,
         reason, for_secs, created_ms, asked_ms, hits, status)
       VALUES (:id, :agent_key, :agent, :container_id, :address, :network, :rule_file,
         :reason, :for_secs, :created_ms, :created_ms, 1, 'pending')`,
      request,
    );
  }

  /** Counts the same request once more. */
  repeat(id: string, nowMs: number): void {
    this.#run("UPDATE rule_requests SET hits = hits + 1, asked_ms = :now WHERE id = :id", {
      id,
      now: nowMs,
    });
  }

  /** Stores an answer. */
  answer(id: string, answered: Answered): void {
    const { status, decided_ms, decided_by, answer, expires_ms } = answered;
    this.#change(
      id,
      {
        at_ms: decided_ms,
        event: status === "rejected" ? "rejected" : "approved",
        by: decided_by,
        until_ms: expires_ms,
        note: answer,
      },
      `UPDATE rule_requests SET status = :status, decided_ms = :decided_ms,
         decided_by = :decided_by, answer = :answer, expires_ms = :expires_ms,
         approved_file = :approved_file
       WHERE id = :id`,
      { id, ...answered },
    );
  }

  /** Gives an approval another end. */
  extend(id: string, extension: Omit<RequestEvent, "event">): void {
    this.#change(
      id,
      { ...extension, event: "extended" },
      "UPDATE rule_requests SET expires_ms = :until WHERE id = :id",
      { id, until: extension.until_ms },
    );
  }

  /** Marks an approval as over; `by` what, if not by its time. */
  end(
    id: string,
    end: Pick<RequestEvent, "at_ms" | "by" | "note"> & {
      readonly event: "expired" | "replaced";
    },
  ): void {
    this.#change(
      id,
      { ...end, until_ms: null },
      "UPDATE rule_requests SET status = 'expired', expires_ms = :at WHERE id = :id",
      { id, at: end.at_ms },
    );
  }

  /** What happened to a request, in order. */
  events(id: string): RequestEvent[] {
    return this.database.prepare(
      "SELECT * FROM rule_request_events WHERE request = :id ORDER BY sequence",
    ).all({ id }).map((found) => event.parse(found));
  }

  /** The request of this id. */
  find(id: string): StoredRequest | undefined {
    return this.#all("SELECT * FROM rule_requests WHERE id = :id", { id })[0];
  }

  /** The pending request of this agent with this text. */
  findPending(agentKey: string, ruleFile: string): StoredRequest | undefined {
    return this.#all(
      `SELECT * FROM rule_requests
       WHERE agent_key = :agentKey AND status = 'pending' AND rule_file = :ruleFile`,
      { agentKey, ruleFile },
    )[0];
  }

  /** Requests of one status, or of all; oldest first. */
  list(status: RequestStatus | "all"): StoredRequest[] {
    return status === "all"
      ? this.#all("SELECT * FROM rule_requests ORDER BY created_ms, id", {})
      : this.#all(
        "SELECT * FROM rule_requests WHERE status = :status ORDER BY created_ms, id",
        { status },
      );
  }

  /** How many requests of an agent are pending; of all agents without a key. */
  countPending(agentKey: string): number {
    return this.#count(
      "SELECT count(*) AS n FROM rule_requests WHERE agent_key = :agentKey AND status = 'pending'",
      { agentKey },
    );
  }

  /** How many requests there are. */
  count(): number {
    return this.#count("SELECT count(*) AS n FROM rule_requests", {});
  }

  /** Forgets the oldest requests that are over. */
  prune(howMany: number): void {
    this.#run(
      `DELETE FROM rule_requests WHERE id IN (
         SELECT id FROM rule_requests WHERE status IN ('rejected', 'expired')
         ORDER BY created_ms LIMIT :howMany)`,
      { howMany },
    );
    this.#run(
      "DELETE FROM rule_request_events WHERE request NOT IN (SELECT id FROM rule_requests)",
      {},
    );
  }

  #change(
    id: string,
    told: Record<keyof RequestEvent, string | number | null>,
    sql: string,
    values: Values,
  ): void {
    this.database.exec("BEGIN IMMEDIATE");
    try {
      this.#run(sql, values);
      this.#run(
        `INSERT INTO rule_request_events (request, at_ms, event, by, until_ms, note)
         VALUES (:id, :at_ms, :event, :by, :until_ms, :note)`,
        { id, ...told },
      );
      this.database.exec("COMMIT");
    } catch (thrown) {
      this.database.exec("ROLLBACK");
      throw thrown;
    }
  }

  #run(sql: string, values: Values): void {
    this.database.prepare(sql).run(values);
  }

  #all(sql: string, values: Values): StoredRequest[] {
    return this.database.prepare(sql).all(values).map((found) => row.parse(found));
  }

  #count(sql: string, values: Values): number {
    return z.object({ n: z.number() }).parse(this.database.prepare(sql).get(values)).n;
  }
}
