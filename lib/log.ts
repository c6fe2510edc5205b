/**
 * Structured logs on stderr (decision D16), one logger for each subsystem.
 *
 * `OUTCALL_LOG` (or its alias `RUST_LOG`) takes comma-separated directives: a bare level sets the
 * default, `target=level` one target, as in `info,dns=debug`. The newest directive for a target
 * wins. `outcalld=…` is read as the default, so that lines written for the documentation's
 * `outcalld=debug,hyper=warn` do what they say.
 */
import { configure, getLogger, type Logger, type LogLevel, type LogRecord } from "@logtape/logtape";
import { printable } from "./printable.ts";

/** The stable target names operators filter by. */
const TARGETS = [
  "bridge",
  "network",
  "rule_engine",
  "dns",
  "proxy",
  "agent_api",
  "host_api",
  "docker_manager",
] as const;

/** One of {@linkcode TARGETS}. */
export type Target = typeof TARGETS[number];

/** How log lines look. */
export type LogFormat = "text" | "json";

const LEVELS: Readonly<Record<string, LogLevel | null>> = {
  trace: "trace",
  debug: "debug",
  info: "info",
  warn: "warning",
  warning: "warning",
  error: "error",
  off: null,
};

/** Lowest level that is written, by target; null silences. */
export interface LogFilter {
  readonly defaultLevel: LogLevel | null;
  readonly targets: ReadonlyMap<Target, LogLevel | null>;
  /** Directives that make no sense, as written. */
  readonly rejected: readonly string[];
}

/** Reads the `target=level` syntax. Unknown targets are other programs' business and are skipped. */
export function parseLogFilter(text: string): LogFilter {
  let defaultLevel: LogLevel | null = "info";
  const targets = new Map<Target, LogLevel | null>();
  const rejected: string[] = [];
  for (const directive of text.split(",").map((part) => part.trim()).filter(Boolean)) {
    const equals = directive.indexOf("=");
    const target = equals < 0 ? "outcalld" : directive.slice(0, equals);
    const level = LEVELS[directive.slice(equals + 1).toLowerCase()];
    if (level === undefined) {
      rejected.push(directive);
      continue;
    }
    if (target === "outcalld") defaultLevel = level;
    const known = TARGETS.find((name) => name === target);
    if (known !== undefined) targets.set(known, level);
  }
  return { defaultLevel, targets, rejected };
}

function levelOf(filter: LogFilter, target: Target): LogLevel | null {
  const level = filter.targets.get(target);
  return level === undefined ? filter.defaultLevel : level; // null means off, not unset
}

function logFilter(): LogFilter {
  return parseLogFilter(Deno.env.get("OUTCALL_LOG") ?? Deno.env.get("RUST_LOG") ?? "");
}

/** The logger of one subsystem. */
export function logger(target: Target): Logger {
  return getLogger(["outcall", target]);
}

/** ANSI colours for a terminal: the level is what the eye looks for. */
const COLOURS: Readonly<Record<string, number>> = { error: 31, fatal: 31, warning: 33, info: 32 };

function levelName(record: LogRecord): string {
  return record.level === "warning" ? "warn" : record.level;
}

function targetName(record: LogRecord): string {
  return record.category[1] ?? record.category[0] ?? "";
}

/** Values come from agents too: nothing in them may steer the terminal (CWE-150). */
function valueText(value: unknown): string {
  return printable(typeof value === "string" ? value : Deno.inspect(value, { colors: false }));
}

/** The message with its values in place: LogTape hands over text and values in turn. */
function messageText(record: LogRecord): string {
  return record.message.map((part, i) => i % 2 === 0 ? part : valueText(part)).join("");
}

function textLine(record: LogRecord, colour: boolean): string {
  const time = new Date(record.timestamp).toISOString();
  const name = levelName(record).padEnd(5);
  const level = colour ? `\x1b[${COLOURS[record.level] ?? 2}m${name}\x1b[0m` : name;
  return `${time} ${level} ${targetName(record)}: ${messageText(record)}\n`;
}

function jsonLine(record: LogRecord): string {
  return JSON.stringify({
    time: new Date(record.timestamp).toISOString(),
    level: levelName(record),
    target: targetName(record),
    message: messageText(record),
    ...record.properties,
  }) + "\n";
}

let hostnamesAreRedacted = false;

/**
 * A hostname, address or path as it may stand in a log line: as it is, or `<redacted>` with
 * `--log-redact-hostnames`. Every line that shows where agents go asks this.
 */
export function hostInLog(host: string): string {
  return hostnamesAreRedacted ? "<redacted>" : host;
}

/** How logs are written. */
export interface LogOptions {
  readonly format: LogFormat;
  /** See {@linkcode hostInLog}. */
  readonly redactHostnames: boolean;
}

/**
 * Sends all logs to stderr. Call once, first thing in a program.
 * @returns the directives of `OUTCALL_LOG` that were not understood, for a warning.
 */
export async function configureLogs(
  { format, redactHostnames }: LogOptions,
): Promise<readonly string[]> {
  hostnamesAreRedacted = redactHostnames;
  const filter = logFilter();
  const encoder = new TextEncoder();
  const colour = Deno.stderr.isTerminal();
  const render = format === "json"
    ? jsonLine
    : (record: LogRecord): string => textLine(record, colour);
  await configure({
    reset: true,
    sinks: { stderr: (record) => void Deno.stderr.writeSync(encoder.encode(render(record))) },
    loggers: [
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: ["stderr"] },
      ...TARGETS.map((target) => ({
        category: ["outcall", target],
        lowestLevel: levelOf(filter, target),
        sinks: ["stderr" as const],
      })),
    ],
  });
  return filter.rejected;
}

/** A record on its way from another thread. */
export interface RemoteLogRecord {
  readonly category: readonly string[];
  readonly level: LogLevel;
  readonly message: string;
  /** Plain values. */
  readonly properties: Readonly<Record<string, unknown>>;
}

function textOf(raw: LogRecord["rawMessage"]): string {
  return typeof raw === "string" ? raw : raw.join("");
}

/** How a thread must log, to be told to it: see {@linkcode forwardLogs}. */
export function threadLogOptions(): Pick<LogOptions, "redactHostnames"> {
  return { redactHostnames: hostnamesAreRedacted };
}

/** Sends all logs of this thread to where {@linkcode logRemote} writes them. */
export async function forwardLogs(
  { redactHostnames }: Pick<LogOptions, "redactHostnames">,
  send: (record: RemoteLogRecord) => void,
): Promise<void> {
  hostnamesAreRedacted = redactHostnames;
  const filter = logFilter();
  await configure({
    reset: true,
    sinks: {
      main: ({ category, level, rawMessage, properties }): void =>
        send({ category, level, message: textOf(rawMessage), properties }),
    },
    loggers: [
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: ["main"] },
      ...TARGETS.map((target) => ({
        category: ["outcall", target],
        lowestLevel: levelOf(filter, target),
        sinks: ["main" as const],
      })),
    ],
  });
}

/** Logs what another thread had to say. */
export function logRemote({ category, level, message, properties }: RemoteLogRecord): void {
  getLogger(category)[level](message, { ...properties });
}
