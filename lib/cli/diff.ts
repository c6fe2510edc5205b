/** `outcall rules diff`: what a candidate set would change. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { DiffResult, EvaluateResult, TestOutcome } from "../api/replies.ts";
import { OutcallError } from "../errors.ts";
import { formatDiagnostic } from "../rules/diagnostic.ts";
import type { RuleFile } from "../rules/read.ts";
import { readCandidate } from "./candidate.ts";
import { plural, table } from "./render.ts";
import type { Run } from "./run.ts";

/** Adds the command to `rules`. */
export function addDiffCommand(rules: CommandUnknownOpts, run: Run): void {
  rules.command("diff <dir>")
    .description(
      "judge the daemon's recorded decisions and the policy tests by the rules in <dir>, and list what would change; changes nothing",
    )
    .action((dir) =>
      run(async (client) => {
        const result = await client.diffRules(readFiles(dir));
        return { json: result, lines: lines(result) };
      })
    );
}

/** The candidate's files, to be sent: the daemon reads no directory for anybody. */
function readFiles(dir: string): readonly RuleFile[] {
  const { files, problems } = readCandidate(dir);
  if (problems.length === 0) return files;
  throw new OutcallError(422, "rules.invalid", `the rules in ${dir} cannot be read`, {
    details: problems,
    report: problems.map(formatDiagnostic).join("\n"),
  });
}

type Flip = DiffResult["decisions"]["flips"][number];

function lines({ rules, decisions, tests }: DiffResult): string[] {
  const flips = decisions.flips.length + tests.flips.length;
  const examined = `${plural(decisions.examined, "recorded decision")} and ${
    plural(tests.examined, "policy test")
  }`;
  return [
    ...(["added", "removed", "changed"] as const).flatMap((what) =>
      rules[what].length === 0 ? [] : [`Rules ${what}: ${rules[what].join(", ")}`]
    ),
    `${examined} judged by both sets: ${
      flips === 0 ? "nothing would change" : `${flips} would change`
    }`,
    ...(flips === 0 ? [] : ["", ...flipTable(decisions.flips, tests.flips)]),
  ];
}

function flipTable(flips: readonly Flip[], tests: DiffResult["tests"]["flips"]): string[] {
  const columns = [
    { header: "CHANGE", width: 15 },
    { header: "COUNT", width: 5 },
    { header: "LAYER", width: 7 },
    { header: "ATTEMPT", width: 32 },
    { header: "BEFORE", width: 20 },
    { header: "AFTER", width: 0 },
  ];
  return table(columns, [
    ...flips.map((flip) => [
      `${flip.before.decision} -> ${flip.after.decision}`,
      flip.count,
      flip.layer,
      attempt(flip),
      by(flip.before),
      by(flip.after),
    ]),
    ...tests.map(({ name, before, after }) => [
      `${before.decision} -> ${after.decision}`,
      "test",
      (before.decision === "block" ? before.layer : after.layer) ?? "",
      name,
      by(before),
      by(after),
    ]),
  ]);
}

/** The rule that decides. */
function by({ matched_rule }: EvaluateResult | TestOutcome): string {
  return matched_rule ?? "(default policy)";
}

function attempt({ agent, host, address, port, method, path, record_type }: Flip): string {
  const target = host ?? address ?? "";
  return [
    method,
    `${target}${port === null ? "" : `:${port}`}${path ?? ""}`,
    record_type,
    agent === "" ? null : `by ${agent}`,
  ].filter((part) => part !== null && part !== "").join(" ");
}
