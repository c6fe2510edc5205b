/** `outcall rules …`: the policy in force (S003-IF-010, S003-IF-011), and tools to write one. */
import { basename } from "node:path";
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { RuleDetail } from "../api/services.ts";
import type { RuleCounter } from "../rules/counters.ts";
import { addCheckCommand } from "./check.ts";
import { addDiffCommand } from "./diff.ts";
import { addExplainCommand } from "./explain.ts";
import { addExpressionCommand } from "./expression.ts";
import { terminalColumns } from "./output.ts";
import { labels, oneLine, table } from "./render.ts";
import type { Run } from "./run.ts";

const NO_RULES: readonly string[] = ["No rules are loaded: everything is denied."];

/** Adds the commands to `program`. */
export function addRulesCommands(program: CommandUnknownOpts, run: Run): void {
  const rules = program.command("rules").description("the rules in force, and tools to write them");

  rules.command("list").description("list the rules in the order they are tried").action(() =>
    run(async (client) => {
      const loaded = await client.rules();
      const columns = [
        { header: "ID", width: 24 },
        { header: "FILE", width: 20 },
        { header: "ACTION", width: 6 },
        { header: "CONDITION", width: 0 },
      ];
      const rows = loaded.map((rule) => [
        rule.id,
        basename(rule.file),
        rule.action,
        oneLine(rule.condition),
      ]);
      const lines = rows.length === 0 ? NO_RULES : table(columns, rows, terminalColumns());
      return { json: { rules: loaded }, lines };
    })
  );

  rules.command("show <id>").description("show one rule in full").action((id) =>
    run(async (client) => {
      const rule = await client.rule(id);
      return { json: rule, lines: ruleLines(rule) };
    })
  );

  rules.command("counters")
    .description("show how often each rule matched, blocked and failed since it was loaded")
    .action(() =>
      run(async (client) => {
        const counters = await client.ruleCounters();
        const columns = [
          { header: "ID", width: 24 },
          { header: "ACTION", width: 6 },
          { header: "MATCHES", width: 8 },
          { header: "BLOCKS", width: 7 },
          { header: "ERRORS", width: 7 },
          { header: "LAST MATCHED", width: 0 },
        ];
        const rows = counters.map((counter) => [
          counter.id,
          counter.action,
          counter.matches,
          counter.blocks,
          counter.errors,
          lastMatched(counter),
        ]);
        const lines = rows.length === 0 ? NO_RULES : table(columns, rows);
        return { json: { rules: counters }, lines };
      })
    );

  rules.command("reload")
    .description("load the rules directory anew; on any error the old rules stay in force")
    .action(() =>
      run(async (client) => {
        const result = await client.reloadRules();
        return {
          json: result,
          lines: [
            `Reloaded ${result.rules_loaded} rule(s) from ${result.files_loaded} file(s).`,
            ...result.warnings.map((warning) => `  warning: ${warning}`),
          ],
        };
      })
    );

  addExplainCommand(rules, run);
  addExpressionCommand(rules, run);
  addCheckCommand(rules, run);
  addDiffCommand(rules, run);
}

function lastMatched({ last_matched }: RuleCounter): string {
  return last_matched ?? "never since load";
}

function egressText(egress: NonNullable<RuleDetail["egress"]>): string {
  return [
    egress.mode,
    egress.ports === null ? "default ports" : `ports ${egress.ports.join(", ")}`,
    `tls ${egress.tls}`,
    egress.allow_private_ips ? "private addresses allowed" : "private addresses refused",
    `plain bodies up to ${egress.max_body_bytes} bytes`,
  ].join("; ");
}

function ruleLines(rule: RuleDetail): string[] {
  const { matches, blocks, errors } = rule;
  return [
    ...labels(14, [
      ["Rule", rule.id],
      ["File", `${rule.file}:${rule.line}`],
      ["Action", rule.action],
      ["Priority", rule.priority],
      ...(rule.egress === null ? [] : [["Egress", egressText(rule.egress)] as const]),
      ["Log", rule.log ? "yes" : "no"],
      ["Matches", `${matches} (${blocks} blocked, ${errors} failed)`],
      ["Last matched", lastMatched(rule)],
      ...(rule.description === null ? [] : [["Description", rule.description] as const]),
    ]),
    "Condition:",
    ...rule.condition.split("\n").map((line) => `  ${line}`),
  ];
}
