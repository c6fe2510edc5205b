/**
 * A flood of decisions through the real log, history and stream, in a process of its own: what each
 * costs where it is made, and what a minute of it costs in memory. Prints one JSON line.
 */
import { hostApp } from "../../lib/api/host.ts";
import { serveUnix } from "../../lib/api/unix_server.ts";
import { DecisionLines } from "../../lib/decision_log_line.ts";
import { DecisionLog, nameDecision, type NewDecision } from "../../lib/decision.ts";
import { configureLogs } from "../../lib/log.ts";
import { History } from "../../lib/record/history.ts";
import { HistoryLookup } from "../../lib/record/lookup.ts";
import { DecisionRecords } from "../../lib/record/records.ts";
import { databasePath, openDatabase } from "../../lib/store/database.ts";
import { healthy, services } from "../api/services.ts";
import { blockedName } from "../record/support.ts";

/** What the flood did. */
export interface FloodReport {
  readonly decisions: number;
  readonly perSec: number;
  /** Microseconds in the log and its sinks, for each decision. */
  readonly costUs: number;
  /** Resident memory after a quarter of the time, and at the end. */
  readonly earlyMiB: number;
  readonly lateMiB: number;
  readonly written: number;
  readonly merged: number;
  readonly lost: number;
  readonly lostToReaders: number;
  readonly withoutLine: number;
}

const PER_SEC = 50_000;

/** As reports of the DNS worker come: some at a time. */
const EVERY_MS = 20;
const AT_ONCE = PER_SEC * EVERY_MS / 1000;

const MIB = 1024 * 1024;

/** Half are blocked and new, half are allowed and repeat a thousand names. */
function decisionOf(number: number): NewDecision {
  return number % 2 === 0 ? blockedName(`h${number}.example.com`) : {
    ...blockedName(`site-${number % 1000}.example.com`),
    verdict: "allow",
    reason: "rule",
    rule: { id: "sites", file: "/etc/outcall/rules.d/sites.yaml", line: 3 },
  };
}

async function flood(directory: string, seconds: number, isRead: boolean): Promise<FloodReport> {
  await configureLogs({ format: "text", redactHostnames: false });
  openDatabase(directory).close();
  const path = databasePath(directory);
  const log = new DecisionLog();
  const lines = new DecisionLines();
  const history = new History({ path, bounds: { maxBytes: 64 * MIB, maxAgeMs: 86_400_000 } });
  const records = new DecisionRecords(log, new HistoryLookup(path), () => history.lastLost);
  log.addSink(lines.add);
  log.addSink(history.add);
  history.start();
  const socket = `${directory}/host.sock`;
  const server = await serveUnix({
    path: socket,
    mode: 0o600,
    target: "host_api",
    admit: () => {},
    fetch: hostApp({ ...services(healthy(), { calls: [] }), decisions: records }).fetch,
  });
  const url = "http://localhost/api/v1/events";
  const reader = isRead
    ? new Deno.Command("curl", { args: ["-sN", "--unix-socket", socket, url], stdout: "null" })
      .spawn()
    : null;

  let decisions = 0;
  let spentMs = 0;
  let earlyMiB = 0;
  const startedMs = performance.now();
  for (let round = 1; round <= seconds * 1000 / EVERY_MS; round++) {
    const made = Array.from({ length: AT_ONCE }, () => {
      const now = Date.now();
      return nameDecision(decisionOf(decisions++), now, new Date(now).toISOString());
    });
    const beganMs = performance.now();
    for (const decision of made) log.add(decision);
    spentMs += performance.now() - beganMs;
    if (round * EVERY_MS === seconds * 250) earlyMiB = Deno.memoryUsage().rss / MIB;
    const dueMs = startedMs + round * EVERY_MS;
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueMs - performance.now())));
  }
  const tookMs = performance.now() - startedMs;
  const lateMiB = Deno.memoryUsage().rss / MIB;
  const lostToReaders = records.streamCounters.lost;
  records.stop();
  await server.close();
  await reader?.status;
  await history.stop();
  return {
    decisions,
    perSec: decisions / tookMs * 1000,
    costUs: spentMs * 1000 / decisions,
    earlyMiB,
    lateMiB,
    ...history.counters,
    lostToReaders,
    withoutLine: lines.leftOut,
  };
}

if (import.meta.main) {
  const [directory = "", seconds = "", isRead = ""] = Deno.args;
  console.log(JSON.stringify(await flood(directory, Number(seconds), isRead === "read")));
}
