/** `outcall rules …`: the policy in force (S003-IF-010, S003-IF-011). */
import { basename } from "node:path";
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { terminalColumns } from "./output.ts";
import { table } from "./render.ts";
import type { Run } from "./run.ts";

/** Adds the commands to `program`. */
export function addRulesCommands(program: CommandUnknownOpts, run: Run): void {
  const rules = program.command("rules").description("the rules in force");

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
        rule.condition.replace(/\s+/g, " ").trim(),
      ]);
      return { json: { rules: loaded }, lines: table(columns, rows, terminalColumns()) };
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
}
