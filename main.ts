/** `outcalld`: flags in, exit code out. Everything else is lib/daemon.ts. */
import { parseCommandLine } from "./lib/config.ts";
import { runDaemon } from "./lib/daemon.ts";

const invocation = parseCommandLine(Deno.args);
Deno.exit(invocation.kind === "run" ? await runDaemon(invocation.config) : invocation.code);
