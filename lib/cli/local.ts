/** `outcall run`: a local command as an agent, without Docker. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { OBSERVE_DEFAULT_SECS } from "../api/schemas.ts";
import { defaultUser, runAgent, userOf } from "../namespace/process.ts";
import type { Run } from "./run.ts";
import { duration, OBSERVE_HELP } from "./values.ts";

/** Adds the command to `program`. */
export function addLocalCommand(program: CommandUnknownOpts, run: Run): void {
  program.command("run")
    .description("run a local command as an agent in a network of its own; needs root")
    .argument("<command...>", "command and arguments, after --")
    .option("--name <name>", "name of the agent; absent: an agent without a name")
    .option("--network <name>", "managed network, full name or suffix; absent: the default one")
    .option(
      "-u, --user <uid:gid>",
      "numeric user and group, neither zero; absent: who called sudo, else 65532:65532",
      userOf,
    )
    .option("--observe [time]", OBSERVE_HELP, duration)
    .action((command, options) =>
      run(async (client) => {
        const exitCode = await runAgent(client, {
          command,
          name: options.name,
          network: options.network,
          user: options.user ?? defaultUser(),
          observeSecs: options.observe === true ? OBSERVE_DEFAULT_SECS : options.observe,
        });
        return { json: { exit_code: exitCode }, lines: [], exitCode };
      })
    );
}
