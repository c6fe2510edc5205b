/** `outcall observe …`: agents that are let out, and recorded, where no rule allows or blocks. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { table } from "./render.ts";
import type { Run } from "./run.ts";

/** Adds the commands to `program`. */
export function addObserveCommands(program: CommandUnknownOpts, run: Run): void {
  const observe = program.command("observe")
    .description("agents that were started with --observe: see them, end it");

  observe.command("list").description("show the agents that are observed").action(() =>
    run(async (client) => {
      const observations = await client.observations();
      const columns = [
        { header: "AGENT", width: 24 },
        { header: "BEGAN", width: 24 },
        { header: "ENDS IN", width: 8 },
        { header: "KEY", width: 0 },
      ];
      const rows = observations.map(({ agent, began_at, ends_in_secs, key }) => [
        agent === "" ? "(without a name)" : agent,
        began_at,
        `${ends_in_secs} s`,
        key,
      ]);
      return {
        json: { observations },
        lines: rows.length === 0 ? ["No agent is observed."] : table(columns, rows),
      };
    })
  );

  observe.command("end <agent>")
    .description(
      "enforce the rules again for an agent, by name or key; cuts what they do not allow",
    )
    .action((agent) =>
      run(async (client) => {
        const result = await client.endObservation(agent);
        return { json: result, lines: [`Agent "${agent}" is no longer observed.`] };
      })
    );
}
