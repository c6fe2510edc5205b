/** `outcall suggest`: a rule file for what an agent was seen to do. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { printable } from "../printable.ts";
import { moment } from "./logs.ts";
import { writeErr } from "./output.ts";
import { plural } from "./render.ts";
import type { Run } from "./run.ts";

/** Adds the command to `program`. */
export function addSuggestCommand(program: CommandUnknownOpts, run: Run): void {
  program.command("suggest")
    .description("write rules, with tests, for what an agent did while it was observed")
    .requiredOption("--agent <name>", "name of the agent as rules see it")
    .option("--since <time>", "such as 15m, 24h, 7d, or ISO 8601 (default: 1h)", moment)
    .option("--blocked", "cover what was refused for want of a rule, too", false)
    .action(({ agent, since = moment("1h"), blocked }) =>
      run(async (client, { json }) => {
        const result = await client.suggest(agent, since, blocked);
        const { rules, tests, covered, not_covered: left, incomplete } = result;
        if (!json) {
          // Beside the file, which goes to stdout.
          const notes = [
            `${plural(rules, "rule")} and ${plural(tests, "test")} for ${
              plural(covered, "attempt")
            }`,
            ...(left.length === 0
              ? []
              : [`${plural(left.length, "kind")} not covered: see the file`]),
            ...(incomplete === null ? [] : [`warning: ${incomplete}`]),
          ];
          writeErr(notes.map((note) => `${printable(note)}\n`).join(""));
        }
        return { json: result, lines: result.file.trimEnd().split("\n") };
      })
    );
}
