/** The command line of `outcall`: one file for each group of commands, put together here. */
import { Command, CommanderError } from "@commander-js/extra-typings";
import { DEFAULT_RULES_DIR, DEFAULT_SOCKET } from "../options.ts";
import { printable } from "../printable.ts";
import { VERSION } from "../version.ts";
import { addBridgeCommands } from "./bridge.ts";
import { addCompletionCommand } from "./completion.ts";
import { addContainerCommands } from "./container.ts";
import { addDecisionCommand } from "./decision.ts";
import { addDnsCommands } from "./dns.ts";
import { addGrantCommands } from "./grants.ts";
import { addLogsCommands } from "./logs.ts";
import { addNetworkCommands } from "./network.ts";
import { writeErr, writeOut } from "./output.ts";
import { addObserveCommands } from "./observe.ts";
import { addProxyCommands } from "./proxy.ts";
import { addRequestsCommands } from "./requests.ts";
import { addRulesCommands } from "./rules.ts";
import { EXIT, type Run, runTask } from "./run.ts";
import { addStatusCommand } from "./status.ts";
import { addLocalCommand } from "./local.ts";
import { addSuggestCommand } from "./suggest.ts";
import { addTopCommand } from "./top.ts";

const ONBOARDING = `Outcall decides what your agent containers can reach.

Start with:
  outcall bridge status                       is the firewall active?
  outcall status                              what is up, loaded, blocked, and needs you

Then:
  outcall rules reload                        load ${DEFAULT_RULES_DIR}
  outcall network create --name agent-net     a network under enforcement
  outcall container create --image <ref> --network agent-net
  outcall dns test <hostname>                 would a name resolve, and by which rule?
  outcall proxy status                        connections, totals, blocks
  outcall logs -f                             what is decided, as it happens

All commands: outcall --help
`;

/**
 * Carries out one command line.
 * @param args Arguments after the program's name.
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage.
 */
export async function main(args: readonly string[]): Promise<number> {
  const program = new Command("outcall")
    .description("Operate the egress firewall for agent containers.")
    .version(`outcall ${VERSION}`, "-V, --version")
    .option("--socket <path>", "host API socket of the daemon", DEFAULT_SOCKET)
    .option("--json", "print JSON, one object", false)
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ writeOut, writeErr: (text) => writeErr(escapeLines(text)) })
    .exitOverride();
  let code: number = EXIT.ok;
  // Read when a command runs: by then the options have been found, wherever they stood.
  const run: Run = async (task) => {
    code = await runTask(program.opts(), task);
  };
  addStatusCommand(program, run);
  addBridgeCommands(program, run);
  addDnsCommands(program, run);
  addProxyCommands(program, run);
  addNetworkCommands(program, run);
  addContainerCommands(program, run);
  addLocalCommand(program, run);
  addObserveCommands(program, run);
  addRulesCommands(program, run);
  addDecisionCommand(program, run);
  addSuggestCommand(program, run);
  addTopCommand(program, run);
  addGrantCommands(program, run);
  addRequestsCommands(program, run);
  addLogsCommands(program, run);
  addCompletionCommand(program);

  try {
    const { operands, unknown } = program.parseOptions([...args]);
    if (operands.length === 0 && unknown.length === 0) writeOut(ONBOARDING);
    else await program.parseAsync([...args], { from: "user" });
    return code;
  } catch (thrown) {
    if (!(thrown instanceof CommanderError)) throw thrown;
    return thrown.exitCode === 0 ? EXIT.ok : EXIT.usage;
  }
}

/** Usage errors repeat arguments, which a script may have taken from anywhere. */
function escapeLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}
