/** Runs one command: asks the daemon, prints the answer or the error, settles the exit code. */
import { failure, success } from "../api/envelope.ts";
import { HostClient } from "../api/client.ts";
import { messageOf, OutcallError } from "../errors.ts";
import { printable } from "../printable.ts";
import { writeErr, writeOut } from "./output.ts";
import { plural } from "./render.ts";

/** What a command has to say: the API's fields for programs, lines for people. */
export interface Report {
  readonly json: object;
  readonly lines: readonly string[];
  /** The command has printed everything itself, as it came. */
  readonly isPrinted?: boolean;
  /** Absent: 0. */
  readonly exitCode?: number;
}

/** Carries out a command's task and prints what it reports. */
export type Run = (
  task: (client: HostClient, options: GlobalOptions) => Report | Promise<Report>,
) => Promise<void>;

/** What the global options say. */
export interface GlobalOptions {
  readonly socket: string;
  readonly json: boolean;
}

/** Exit codes of every command; `rules check` has its own (lib/rules/validate.ts). */
export const EXIT = { ok: 0, failed: 1, usage: 2 } as const;

/**
 * Carries out `task` and prints.
 * @returns the report's exit code, or 1 when the task failed.
 */
export async function runTask(
  options: GlobalOptions,
  task: Parameters<Run>[0],
): Promise<number> {
  try {
    const report = await task(new HostClient(options.socket), options);
    if (report.isPrinted === true) return report.exitCode ?? EXIT.ok;
    if (options.json) writeJson(success(report.json));
    else writeOut(text(report.lines));
    return report.exitCode ?? EXIT.ok;
  } catch (thrown) {
    const error = thrown instanceof OutcallError
      ? thrown
      : new OutcallError(500, "internal", `internal error: ${messageOf(thrown)}`);
    if (options.json) writeJson(failure(error));
    writeErr(text(errorLines(error)));
    return EXIT.failed;
  }
}

function errorLines(error: OutcallError): string[] {
  const hint = error.hint === undefined ? [] : [`hint: ${error.hint}`];
  const [, ...others] = error.details ?? [];
  if (error.report !== undefined) {
    return [
      `error: the rules are refused: ${plural(others.length + 1, "mistake")}`,
      ...error.report.split("\n"),
      ...hint,
    ];
  }
  return [
    `error: ${failure(error).error}`,
    ...others.map((place) => `  ${place.file}:${place.line}:${place.column}: ${place.message}`),
    ...hint,
  ];
}

/** Every line that reaches a terminal goes through here: names and messages are not ours. */
function text(lines: readonly string[]): string {
  return lines.map((line) => `${printable(line)}\n`).join("");
}

function writeJson(value: object): void {
  writeOut(text([JSON.stringify(value)]));
}
