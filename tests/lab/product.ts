/** How the lab starts the product: the real entry points, under the names operators type. */
import { fileURLToPath } from "node:url";
import type { Machine } from "./machine.ts";

const ROOT = new URL("../../", import.meta.url);

/** The programs and their entry points. */
const PROGRAMS = { outcalld: "main.ts", outcall: "cli.ts", "outcall-agent": "shim.ts" };

/** As the task `start` has it. */
const DAEMON_FLAGS = ["--v8-flags=--max-semi-space-size=4"];

/**
 * The command line that runs a script of this repository without any network for downloads.
 * @param flags Of Deno, beside the usual ones.
 */
export function denoCommand(script: URL, flags: readonly string[] = []): string[] {
  const config = fileURLToPath(new URL("deno.json", ROOT));
  return [
    ...[Deno.execPath(), "run", "--quiet", "-A", "--cached-only", "--config", config],
    ...flags,
    fileURLToPath(script),
  ];
}

function shellQuote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Puts `outcalld`, `outcall` and `outcall-agent` on the PATH of a machine. */
export async function installProduct(machine: Machine): Promise<void> {
  for (const [name, entry] of Object.entries(PROGRAMS)) {
    const flags = name === "outcalld" ? DAEMON_FLAGS : [];
    const command = denoCommand(new URL(entry, ROOT), flags).map(shellQuote).join(" ");
    await machine.write(`/usr/local/bin/${name}`, `#!/bin/sh\nexec ${command} "$@"\n`, 0o755);
  }
}
