/** The shim of this checkout, where the lab's agents can run it. */
import { fileURLToPath } from "node:url";
import type { Machine } from "./machine.ts";

/** Where the checkout appears in a container. */
const ROOT = "/opt/outcall";

const PARTS = ["shim.ts", "deno.json", "lib"];

function inCheckout(part: string): string {
  return fileURLToPath(new URL(`../../${part}`, import.meta.url));
}

/** `outcall-agent` for a place that has the runtime at `deno`, and the checkout at `root`. */
export function shimScript(deno: string, root: string = ROOT): string {
  return `#!/bin/sh
export DENO_NO_UPDATE_CHECK=1 DENO_DIR=/tmp/deno HOME=/tmp
exec ${deno} run -qA --no-config --no-remote --no-npm ${root}/shim.ts "$@"
`;
}

/**
 * What `outcall-agent` is in a container whose image has the runtime where we have it; to be written
 * on the host, and mounted.
 */
export const SHIM_SCRIPT = shimScript(Deno.execPath());

/** Mounts that put this checkout's part of the shim into a container. */
export const SHIM_PARTS: readonly string[] = PARTS.map((part) =>
  `${inCheckout(part)}:${ROOT}/${part}:ro`
);

/** Options of `docker run` that put shim and agent socket into a container. */
export const SHIM_MOUNTS: readonly string[] = [
  ...SHIM_PARTS,
  "/usr/local/bin/outcall-agent.lab:/usr/local/bin/outcall-agent:ro",
  "/run/outcall/agent.sock.d:/run/outcall",
].flatMap((mount) => ["-v", mount]);

/**
 * Installs the shim on a machine for users who may read neither the checkout nor our runtime, as a
 * package would.
 */
export async function installShim(machine: Machine): Promise<void> {
  const folder = "/usr/local/lib/outcall";
  const deno = `${folder}/deno`;
  await machine.must(["mkdir", "-p", `${folder}/lib`]);
  for (const part of ["deno", ...PARTS]) {
    if (part !== "lib") await machine.write(`${folder}/${part}`, "");
    const source = part === "deno" ? Deno.execPath() : inCheckout(part);
    await machine.must(["mount", "--bind", source, `${folder}/${part}`]);
  }
  await machine.write("/usr/local/bin/outcall-agent", shimScript(deno, folder), 0o755);
}
