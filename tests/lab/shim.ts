/** The shim in containers of the lab: this checkout's, on a runtime that is part of their image. */
import { fileURLToPath } from "node:url";

/** Where the checkout appears in a container. */
const ROOT = "/opt/outcall";

/** What `outcall-agent` is in the lab; to be written on the host, and mounted. */
export const SHIM_SCRIPT = `#!/bin/sh
export DENO_NO_UPDATE_CHECK=1 DENO_DIR=/tmp/deno HOME=/tmp
exec ${Deno.execPath()} run -qA --no-config --no-remote --no-npm ${ROOT}/shim.ts "$@"
`;

/** Options of `docker run` that put shim and agent socket into a container. */
export const SHIM_MOUNTS: readonly string[] = [
  ...["shim.ts", "deno.json", "lib"].map((part) =>
    `${fileURLToPath(new URL(`../../${part}`, import.meta.url))}:${ROOT}/${part}:ro`
  ),
  "/usr/local/bin/outcall-agent.lab:/usr/local/bin/outcall-agent:ro",
  "/run/outcall/agent.sock.d:/run/outcall",
].flatMap((mount) => ["-v", mount]);
