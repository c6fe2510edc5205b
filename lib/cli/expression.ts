/** `outcall rules test`: a condition tried out on given facts (S003-FR-035). */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { ExpressionReply } from "../api/replies.ts";
import { EXIT, type Run } from "./run.ts";
import { json } from "./values.ts";

/** Adds the command to `rules`. */
export function addExpressionCommand(rules: CommandUnknownOpts, run: Run): void {
  rules.command("test")
    .description("evaluate a condition on given facts; touches no rule")
    .requiredOption("--expr <condition>", "the condition, in CEL")
    .option("--context <json>", 'what is known, such as {"http":{"host":"x.org"}}', json, {})
    .action((options) =>
      run(async (client) => {
        const result = await client.testExpression(options.expr, options.context);
        const exitCode = result.outcome === "error" ? EXIT.failed : EXIT.ok;
        return { json: result, lines: lines(result), exitCode };
      })
    );
}

function lines({ outcome, error, missing, report }: ExpressionReply): string[] {
  return [
    `Result: ${outcome}`,
    ...(missing.length === 0 ? [] : [`Not known: ${missing.join(", ")}`]),
    ...(report === null ? error === null ? [] : [error] : report.split("\n")),
  ];
}
