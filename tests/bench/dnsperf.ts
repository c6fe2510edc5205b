/** Runs dnsperf and reads its report. */
import type { Machine } from "../lab/machine.ts";

/** One run of dnsperf. */
export interface DnsRun {
  /** Client's machine. */
  readonly from: Machine;
  readonly server: string;
  readonly port: number;
  /** File on the client's machine, see {@linkcode queryFile}. */
  readonly queries: string;
  /** The only code that counts as an answer. */
  readonly expect: "NOERROR" | "NXDOMAIN";
  readonly seconds: number;
  /** Queries a second; as many as it can take when absent. */
  readonly rate?: number;
}

/** Outstanding queries: enough to keep a server busy, too few to overflow its socket. */
const OUTSTANDING = 100;
/** dnsperf's sockets, and so the ports that answers go to. */
const CLIENTS = 8;
/** An answer that takes longer is lost; dnsperf waits that long for the last ones. */
const TIMEOUT_SECS = 1;

/** Two busy processors may pause a socket's reader once; more than this is no answer rate. */
const MAX_LOST_SHARE = 0.001;

/** The lines of a query file: address look-ups of `names`. */
export function queryFile(names: readonly string[]): string {
  return names.map((name) => `${name} A\n`).join("");
}

/** Figures of one report. */
export interface DnsReport {
  readonly answersPerSec: number;
  readonly lost: number;
  /** Answers by code. */
  readonly codes: Readonly<Record<string, number>>;
  /** Of each answer, in seconds; empty unless dnsperf was asked to be verbose. */
  readonly latenciesSecs: readonly number[];
}

/** Reads what `dnsperf` prints, with or without `-v`. */
export function readReport(text: string): DnsReport {
  const number = (label: string): number =>
    Number(new RegExp(`${label}:\\s+([0-9.]+)`).exec(text)?.[1] ?? NaN);
  const codes: Record<string, number> = {};
  for (const [, code = "", count] of text.matchAll(/([A-Z]+) ([0-9]+) \([0-9.]+%\)/g)) {
    codes[code] = Number(count);
  }
  const latenciesSecs = [...text.matchAll(/^> [A-Z]+ \S+ \S+ ([0-9.]+)$/gm)]
    .map(([, seconds]) => Number(seconds));
  return {
    answersPerSec: number("Queries per second"),
    lost: number("Queries lost"),
    codes,
    latenciesSecs,
  };
}

/**
 * Runs dnsperf.
 * @throws Error when answers were lost or were not the expected ones.
 */
async function measure(run: DnsRun, options: readonly string[]): Promise<DnsReport> {
  const text = await run.from.must([
    ...["dnsperf", "-s", run.server, "-p", `${run.port}`, "-d", run.queries],
    ...["-l", `${run.seconds}`, "-t", `${TIMEOUT_SECS}`, "-c", `${CLIENTS}`],
    ...["-q", `${OUTSTANDING}`, ...options],
    ...(run.rate === undefined ? [] : ["-Q", `${run.rate}`]),
  ], { timeoutMs: (run.seconds + TIMEOUT_SECS + 10) * 1000 });
  const report = readReport(text);
  const { lost, codes } = report;
  const others = Object.keys(codes).filter((code) => code !== run.expect);
  const answered = codes[run.expect] ?? 0;
  if (answered === 0 || others.length > 0 || !(lost <= answered * MAX_LOST_SHARE)) {
    throw new Error(`${lost} answers lost, answers by code: ${JSON.stringify(codes)}`);
  }
  return report;
}

/** Answers a second. */
export async function answersPerSec(run: DnsRun): Promise<number> {
  return (await measure(run, [])).answersPerSec;
}

/** The time, in microseconds, within which this share of the answers came. */
export async function latencyUs(run: DnsRun, share: number): Promise<number> {
  const { latenciesSecs } = await measure(run, ["-v"]);
  const sorted = latenciesSecs.toSorted((a, b) => a - b);
  return 1e6 * (sorted[Math.floor(sorted.length * share)] ?? NaN);
}

/** Median time to an answer, in microseconds. */
export async function medianLatencyUs(run: DnsRun): Promise<number> {
  return await latencyUs(run, 0.5);
}
