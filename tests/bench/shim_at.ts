/** The shim with its socket somewhere else: the first argument. */
import { main } from "../../lib/shim/main.ts";

const [socketPath = "", ...args] = Deno.args;
Deno.exit(await main(args, socketPath));
