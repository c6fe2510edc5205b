/** What the record of decisions costs those who decide, with and without a reader of the stream. */
import { fileURLToPath } from "node:url";
import { denoCommand } from "../lab/product.ts";
import { answersPerSec, queryFile } from "./dnsperf.ts";
import { ALLOWED_NAMES, BLOCKED_NAMES } from "./names.ts";
import type { FloodReport } from "./record_flood.ts";
import { compare, type Report } from "./result.ts";
import { OUR_ADDRESS, Stage } from "./stage.ts";

const FLOOD_SECS = 60;
/** Without a reader: to compare with, no memory is measured. */
const QUIET_FLOOD_SECS = 15;

const DNS_RUN_SECS = 2;
const DNS_TURNS = 5;

async function floodOf(seconds: number, reading: "read" | "unread"): Promise<FloodReport> {
  const directory = Deno.makeTempDirSync({ prefix: "outcall-bench-" });
  try {
    const [deno = "", ...args] = denoCommand(new URL("./record_flood.ts", import.meta.url));
    const { stdout, success } = await new Deno.Command(deno, {
      args: [...args, directory, `${seconds}`, reading],
      cwd: fileURLToPath(new URL("../../", import.meta.url)),
      stderr: "null",
    }).output();
    if (!success) throw new Error("the flood failed");
    return JSON.parse(new TextDecoder().decode(stdout));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

async function floodCases(report: Report, progress: (line: string) => void): Promise<void> {
  progress(`50,000 decisions a second for ${QUIET_FLOOD_SECS} s, nobody reads`);
  const unread = await floodOf(QUIET_FLOOD_SECS, "unread");
  progress(`the same for ${FLOOD_SECS} s, with a reader of the stream`);
  const read = await floodOf(FLOOD_SECS, "read");
  progress(
    `${Math.round(read.perSec)}/s; history: ${read.written} written, ${read.merged} merged, ` +
      `${read.lost} lost; ${read.lostToReaders} lost to the reader; ${read.withoutLine} without a line`,
  );
  // Versions of merged records are written once, so both sides count attempts.
  if (read.written + read.merged + read.lost < read.decisions) {
    throw new Error("decisions are neither kept nor counted");
  }
  report(compare({
    suite: "record",
    case: "cost of a decision, with a reader",
    unit: "µs",
    better: "lower",
    ours: read.costUs,
    peers: { "without": unread.costUs },
  }));
  report(compare({
    suite: "record",
    case: `memory after ${FLOOD_SECS} s of flood`,
    unit: "MiB",
    better: "lower",
    ours: read.lateMiB,
    peers: { [`after ${FLOOD_SECS / 4} s`]: read.earlyMiB },
  }));
}

async function dnsCases(report: Report, progress: (line: string) => void): Promise<void> {
  await using stage = await Stage.create(10_000);
  const { agent, host } = stage;
  const cases = [
    { what: "cached, allowed", names: ALLOWED_NAMES, expect: "NOERROR" },
    { what: "blocked", names: BLOCKED_NAMES, expect: "NXDOMAIN" },
  ] as const;
  for (const { what, names, expect } of cases) {
    progress(`DNS, ${what}`);
    const queries = "/run/lab/queries.txt";
    await agent.write(queries, queryFile(names));
    const measure = (): Promise<number> =>
      answersPerSec({
        ...{ from: agent, server: OUR_ADDRESS, port: 53, queries, expect },
        seconds: DNS_RUN_SECS,
      });
    await measure();
    const unread: number[] = [];
    const read: number[] = [];
    for (let turn = 0; turn < DNS_TURNS; turn++) {
      unread.push(await measure());
      const reader = host.spawn([
        "bash",
        "-c",
        "echo $$; exec curl -sN --unix-socket /run/outcall/host.sock http://localhost/api/v1/events >/dev/null",
      ]);
      const pid = Number(await reader.line("stdout", () => true));
      read.push(await measure());
      await host.kill(pid, "KILL");
      await reader.ended;
    }
    report(compare({
      suite: "record",
      case: `DNS with a reader: ${what}`,
      unit: "answers/s",
      better: "higher",
      ours: median(read),
      peers: { without: median(unread) },
    }));
  }
}

function median(figures: readonly number[]): number {
  return figures.toSorted((a, b) => a - b)[(figures.length - 1) / 2] ?? NaN;
}

/** 50,000 decisions a second for a minute, and DNS at full speed with and without a reader. */
export async function recordSuite(
  report: Report,
  progress: (line: string) => void,
): Promise<void> {
  await floodCases(report, progress);
  await dnsCases(report, progress);
}
