/** The state database (decision D15): one SQLite file in the state directory, written ahead (WAL). */
import { statfsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { dirname, join } from "node:path";
import { messageOf, OutcallError } from "../errors.ts";

/** What brings a database from each version to the next; the position is the version. */
const MIGRATIONS: readonly string[] = [
  `CREATE TABLE rule_requests (
     id TEXT PRIMARY KEY,
     agent_key TEXT NOT NULL,
     agent TEXT NOT NULL,
     container_id TEXT,
     address TEXT NOT NULL,
     network TEXT NOT NULL,
     rule_file TEXT NOT NULL,
     approved_file TEXT,
     reason TEXT,
     for_secs INTEGER,
     hits INTEGER NOT NULL,
     status TEXT NOT NULL CHECK (status IN ('pending', 'approved', 'rejected', 'expired')),
     created_ms INTEGER NOT NULL,
     asked_ms INTEGER NOT NULL,
     decided_ms INTEGER,
     decided_by TEXT,
     answer TEXT,
     expires_ms INTEGER
   ) STRICT;
   CREATE INDEX rule_requests_by_agent ON rule_requests (agent_key, status);
   CREATE INDEX rule_requests_by_status ON rule_requests (status, expires_ms);`,
  // Written by lib/record alone. What filters compare stands beside the record itself.
  `CREATE TABLE decisions (
     sequence INTEGER PRIMARY KEY,
     id TEXT NOT NULL UNIQUE,
     agent TEXT NOT NULL,
     verdict TEXT NOT NULL,
     layer TEXT NOT NULL,
     host TEXT NOT NULL,
     rule TEXT NOT NULL,
     count INTEGER NOT NULL,
     record TEXT NOT NULL
   ) STRICT;`,
  `CREATE TABLE operator_grants (
     id TEXT PRIMARY KEY,
     container_id TEXT NOT NULL,
     address TEXT NOT NULL,
     destination TEXT NOT NULL,
     protocol TEXT NOT NULL CHECK (protocol IN ('tcp', 'udp')),
     port INTEGER NOT NULL,
     host TEXT,
     expires_ms INTEGER
   ) STRICT;`,
  `CREATE TABLE rule_request_events (
     sequence INTEGER PRIMARY KEY,
     request TEXT NOT NULL,
     at_ms INTEGER NOT NULL,
     event TEXT NOT NULL,
     by TEXT,
     until_ms INTEGER,
     note TEXT
   ) STRICT;
   CREATE INDEX rule_request_events_by_request ON rule_request_events (request);
   INSERT INTO rule_request_events (request, at_ms, event, by, until_ms, note)
     SELECT id, created_ms, 'asked', agent, NULL, reason FROM rule_requests
     UNION ALL
     SELECT id, decided_ms, iif(status = 'rejected', 'rejected', 'approved'), decided_by, expires_ms,
       answer FROM rule_requests WHERE decided_ms IS NOT NULL
     UNION ALL
     SELECT id, expires_ms, 'expired', NULL, NULL, NULL FROM rule_requests WHERE status = 'expired'
     ORDER BY 2;`,
];

/** Path of the database in the state directory. */
export function databasePath(directory: string): string {
  return join(directory, "outcall.db");
}

/**
 * Opens the database in `directory`, making both where they are missing, for our user alone.
 * @throws OutcallError (500) `store.damaged`, `store.full`, or `store.failed` for anything else: a state
 * that cannot be read must not be taken for an empty one.
 */
export function openDatabase(directory: string): DatabaseSync {
  const path = databasePath(directory);
  try {
    Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
    // Before SQLite makes it with the mode of the umask.
    Deno.openSync(path, { write: true, create: true, mode: 0o600 }).close();
    const database = new DatabaseSync(path);
    try {
      prepare(database);
      return database;
    } catch (thrown) {
      database.close();
      throw thrown;
    }
  } catch (cause) {
    throw failure(path, cause);
  }
}

/** How SQLite's messages begin for SQLITE_NOTADB and SQLITE_CORRUPT, and ours for a failed check. */
const DAMAGE = [
  "file is not a database",
  "database disk image is malformed",
  "malformed database schema",
  "it is damaged",
];

/** Whether what was thrown says that the database is damaged, and not only out of reach. */
export function isDamage(thrown: unknown): boolean {
  return DAMAGE.some((beginning) => messageOf(thrown).startsWith(beginning));
}

/** An empty database needs as much, with the files that SQLite has beside it. */
const ROOM_BYTES = 256 * 1024;

function failure(path: string, cause: unknown): OutcallError {
  const message = `${path} cannot be used: ${messageOf(cause)}`;
  if (isDamage(cause)) return new OutcallError(500, "store.damaged", message, { cause });
  const free = freeBytes(dirname(path));
  // On a full disk SQLite says no more than "disk I/O error" where its index of the log has no room.
  if (free === null || free >= ROOM_BYTES) {
    return new OutcallError(500, "store.failed", message, {
      cause,
      hint: "Check the owner, the mode and the disk of that file and its directory.",
    });
  }
  const left = `${Math.floor(free / 1024)} KiB are free there`;
  return new OutcallError(500, "store.full", `${message} (${left})`, {
    cause,
    hint: `Make room (${ROOM_BYTES / 1024} KiB will do), or name another place with --state-dir.`,
  });
}

/** Bytes of the file system that are free for us; null: there is no such directory. */
function freeBytes(directory: string): number | null {
  try {
    const { bavail, bsize } = statfsSync(directory);
    return bavail * bsize;
  } catch {
    return null;
  }
}

function prepare(database: DatabaseSync): void {
  // FULL: what was answered with a success survives a loss of power.
  database.exec(
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 2000;",
  );
  checkTables(database);
  const version = Number(Object.values(database.prepare("PRAGMA user_version").get() ?? {})[0]);
  if (version > MIGRATIONS.length) throw new Error(`it was made by a newer version (${version})`);
  for (const [from, migration] of MIGRATIONS.entries()) {
    if (from < version) continue;
    database.exec(`BEGIN IMMEDIATE; ${migration} PRAGMA user_version = ${from + 1}; COMMIT;`);
  }
}

/**
 * The decisions are not looked at: there are many, and nothing that is enforced depends on them.
 * @throws Error when what enforcement depends on is damaged.
 */
function checkTables(database: DatabaseSync): void {
  const tables = database.prepare(
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'decisions'",
  ).all().flatMap((row) => Object.values(row ?? {}));
  for (const table of tables) {
    const [check] = Object.values(
      database.prepare(`PRAGMA quick_check('${String(table)}')`).get() ?? {},
    );
    if (check !== "ok") throw new Error(`it is damaged: ${String(check)}`);
  }
}
