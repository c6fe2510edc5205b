/**
 * `outcall-agent`, the program inside agent containers. It fails closed: without a verdict from the
 * daemon nothing runs, and this version of the daemon gives none.
 */
import { VERSION } from "./lib/version.ts";

/** The daemon could not be asked (S005): whoever called must take it as a refusal. */
const EXIT_UNREACHABLE = 5;

const USAGE = `Usage: outcall-agent [--help | --version]

Asks outcalld whether an action is allowed, and carries it out if it is.
The agent API is not available in this version: everything is refused with exit code 5.
`;

// Only the first argument is ours: `outcall-agent git --version` asks about git.
switch (Deno.args[0]) {
  case "--help":
  case "-h":
    console.log(USAGE.trimEnd());
    break;
  case "--version":
  case "-V":
    console.log(`outcall-agent ${VERSION}`);
    break;
  default:
    console.error("error: refused: the agent API is not available in this version of outcalld");
    Deno.exit(EXIT_UNREACHABLE);
}
