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

/** Every statement is one transaction. */
export class RequestStore {
  constructor(readonly database: DatabaseSync) {}

  /** Stores a pending request. */
  add(request: NewRequest): void {
    this.#run(
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
    this.#run(
      `UPDATE rule_requests SET status = :status, decided_ms = :decided_ms,
         decided_by = :decided_by, answer = :answer, expires_ms = :expires_ms,
         approved_file = :approved_file
       WHERE id = :id`,
      { id, ...answered },
    );
  }

  /** Marks an approval as over. */
  expire(id: string): void {
    this.#run("UPDATE rule_requests SET status = 'expired' WHERE id = :id", { id });
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
