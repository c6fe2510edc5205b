/**
 * The state at a start of the daemon: what is in the database, or, where that is damaged, a new one in
 * its place. A damaged one is set aside and never removed.
 *
 * Nothing opens by losing it: a grant that is not stored is not restored, and rules that agents were
 * granted count as withdrawn without their request.
 */
import type { DatabaseSync } from "node:sqlite";
import { messageOf, OutcallError } from "../errors.ts";
import type { PartHealth } from "../health.ts";
import { logger } from "../log.ts";
import { databasePath, openDatabase } from "./database.ts";

const log = logger("host_api");

/** Everything but the decisions. */
const KEPT_TABLES = ["rule_requests", "rule_request_events", "operator_grants"];

/** The state, open. */
export interface State {
  readonly database: DatabaseSync;
  /** What became of a damaged database; null: there was none. */
  health(): PartHealth | null;
}

function markPath(path: string): string {
  return `${path}.is-damaged`;
}

/** Notes, for the next start, that the database at `path` is damaged where it is not checked then. */
export function markDamaged(path: string): void {
  Deno.writeTextFileSync(markPath(path), "", { mode: 0o600 });
}

function isMarked(path: string): boolean {
  try {
    return Deno.statSync(markPath(path)).isFile;
  } catch {
    return false;
  }
}

/**
 * Opens the state in `directory`.
 * @throws OutcallError `store.full`, `store.failed` (500).
 */
export function openState(directory: string): State {
  try {
    const database = openDatabase(directory);
    if (!isMarked(databasePath(directory))) return { database, health: () => null };
    database.close(); // and with it the write-ahead log ends: all is in the one file
    return replace(directory, true);
  } catch (thrown) {
    if (!(thrown instanceof OutcallError) || thrown.code !== "store.damaged") throw thrown;
    return replace(directory, false);
  }
}

/** @param isReadable Whether what is in {@linkcode KEPT_TABLES} is sound. */
function replace(directory: string, isReadable: boolean): State {
  const path = databasePath(directory);
  const aside = `${path}.damaged-${new Date().toISOString().replaceAll(":", "-")}`;
  const draft = `${path}.new`;
  const isKept = isReadable && makeDraft(draft, path);
  if (!isKept) removeAll(draft);
  removeAll(markPath(path));
  // The log of the old one would be taken for the new one's.
  for (const ending of ["-wal", "-shm", ""]) moveIfThere(`${path}${ending}`, `${aside}${ending}`);
  if (isKept) Deno.renameSync(databasePath(draft), path);
  removeAll(draft);
  const detail = `${path} was damaged and is now ${aside}; ` +
    (isKept
      ? "rule requests and grants were kept, older decisions were not"
      : "rule requests and grants of before are lost, so that what they opened is closed");
  const database = openDatabase(directory);
  log.error("{detail}", { detail });
  return { database, health: () => ({ name: "state", state: "degraded", detail }) };
}

/** Makes a database in `directory` with what is sound of the one at `from`; returns whether it could. */
function makeDraft(directory: string, from: string): boolean {
  removeAll(directory); // of a start that was cut short
  const database = openDatabase(directory);
  try {
    database.prepare("ATTACH ? AS damaged").run(from);
    for (const table of KEPT_TABLES) {
      database.exec(`INSERT INTO main.${table} SELECT * FROM damaged.${table}`);
    }
    return true;
  } catch (thrown) {
    log.error("nothing of {from} can be kept: {reason}", { from, reason: messageOf(thrown) });
    return false;
  } finally {
    database.close();
  }
}

function removeAll(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
  }
}

function moveIfThere(from: string, to: string): void {
  try {
    Deno.renameSync(from, to);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
  }
}
