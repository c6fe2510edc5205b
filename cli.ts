/** `outcall`: arguments in, exit code out. Everything else is lib/cli/program.ts. */
import { main } from "./lib/cli/program.ts";

Deno.exit(await main(Deno.args));
