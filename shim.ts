/** `outcall-agent`, the program inside agent containers. Everything else is lib/shim/main.ts. */
import { main } from "./lib/shim/main.ts";

Deno.exit(await main(Deno.args));
