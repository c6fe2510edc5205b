/** Operators' grants that are to outlive the daemon, in the state database (decision D15). */
import type { DatabaseSync } from "node:sqlite";
import { z } from "zod";

const row = z.object({
  id: z.string(),
  container_id: z.string(),
  address: z.string(),
  destination: z.string(),
  protocol: z.enum(["tcp", "udp"]),
  port: z.number(),
  host: z.string().nullable(),
  expires_ms: z.number().nullable(),
});

/** One grant as stored. `expires_ms` is in milliseconds since 1970; null: it has no end. */
export type StoredGrant = Readonly<z.infer<typeof row>>;

/** Every statement is one transaction. */
export class GrantStore {
  constructor(readonly database: DatabaseSync) {}

  /** All that have not expired. */
  list(nowMs: number): readonly StoredGrant[] {
    this.database.prepare("DELETE FROM operator_grants WHERE expires_ms <= ?").run(nowMs);
    const rows = this.database.prepare("SELECT * FROM operator_grants ORDER BY id").all();
    return z.array(row).parse(rows);
  }

  /** Stores a grant, in place of the one with its id. */
  put(grant: StoredGrant): void {
    this.database.prepare(
      `INSERT OR REPLACE INTO operator_grants VALUES
       (:id, :container_id, :address, :destination, :protocol, :port, :host, :expires_ms)`,
    ).run({ ...grant });
  }

  /** Whether a grant is stored. */
  has(id: string): boolean {
    return this.database.prepare("SELECT 1 FROM operator_grants WHERE id = ?").get(id) !==
      undefined;
  }

  remove(ids: readonly string[]): void {
    for (const id of ids) {
      this.database.prepare("DELETE FROM operator_grants WHERE id = ?").run(id);
    }
  }

  clear(): void {
    this.database.exec("DELETE FROM operator_grants");
  }
}
