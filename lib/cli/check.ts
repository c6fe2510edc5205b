/** `outcall rules check`: everything there is to say about a directory of rules, without a daemon. */
import { type CommandUnknownOpts, Option } from "@commander-js/extra-typings";
import { failure } from "../api/envelope.ts";
import { OutcallError } from "../errors.ts";
import { DEFAULT_RULES_DIR } from "../options.ts";
import { formatDiagnostic } from "../rules/diagnostic.ts";
import { toSarif } from "../rules/sarif.ts";
import { exitCodeOf, validate, type ValidationReport } from "../rules/validate.ts";
import { VERSION } from "../version.ts";
import { readCandidate } from "./candidate.ts";
import { plural } from "./render.ts";
import type { Run } from "./run.ts";

/** Adds the command to `rules`. */
export function addCheckCommand(rules: CommandUnknownOpts, run: Run): void {
  rules.command("check [dir]")
    .description(
      "check a rules directory and run its policy tests, without a daemon; exit code 0 clean, 1 warnings with --strict, 2 errors",
    )
    .option("--strict", "warnings count too", false)
    .addOption(
      new Option("--format <format>", "of what is printed; json is the same as --json")
        .choices(["text", "json", "sarif"] as const).default("text" as const),
    )
    .action((dir, options) =>
      run(() => {
        const report = validate(readCandidate(dir ?? DEFAULT_RULES_DIR));
        const json = fields(report);
        return {
          json,
          lines: {
            text: () => textLines(report),
            json: () => [JSON.stringify({ ok: true, ...json })],
            sarif: () => [JSON.stringify(toSarif(findings(report), VERSION))],
          }[options.format](),
          exitCode: exitCodeOf(report, options.strict),
        };
      })
    );
}

function findings({ errors, warnings }: ValidationReport): ValidationReport["errors"] {
  return [...errors, ...warnings];
}

/** The report as JSON; with errors it is a failure envelope too. */
function fields(report: ValidationReport): object {
  const [first] = report.errors;
  if (first === undefined) return report;
  const text = `${first.file}:${first.line}: ${first.message}`;
  return { ...failure(new OutcallError(422, "rules.invalid", text)), ...report };
}

function textLines(report: ValidationReport): string[] {
  const { files, rules, tests, errors, warnings } = report;
  const found = `${plural(errors.length, "error")}, ${plural(warnings.length, "warning")}`;
  // With errors nothing was compiled, so there is nothing to count but files.
  const counted = errors.length > 0
    ? plural(files, "file")
    : [plural(files, "file"), plural(rules, "rule"), plural(tests.length, "test")].join(", ");
  return [
    ...findings(report).flatMap((each) => formatDiagnostic(each).split("\n")),
    `${counted}: ${found}`,
  ];
}
