/** The image that the quickstart starts the daemon from, made from this checkout. */
import { fileURLToPath } from "node:url";
import { importImage } from "./dockerd.ts";
import type { Engine } from "./engine.ts";

const BASE = "outcall-base:latest";

/** Programs that the daemon runs, and what it takes to fill the image. */
const PROGRAMS: readonly string[] = [
  ...[Deno.execPath(), "nft"],
  ...["bash", "sh", "cp", "mkdir", "chmod"],
];

/** Runs in the base image with the sources mounted at /from. */
const FILL = `
set -e
mkdir -p /opt/outcall /opt/deno /usr/local/bin
cp -r /from/repo/main.ts /from/repo/deno.json /from/repo/deno.lock /from/repo/lib /opt/outcall
cp -r /from/cache/npm /opt/deno
printf '#!/bin/sh\\nexport DENO_DIR=/opt/deno\\nexec %s run -qA --cached-only %s "$@"\\n' "$0" \\
  '--config /opt/outcall/deno.json /opt/outcall/main.ts' > /usr/local/bin/outcalld
chmod 755 /usr/local/bin/outcalld
`;

async function denoCache(): Promise<string> {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).output();
  const info: { denoDir: string } = JSON.parse(new TextDecoder().decode(stdout));
  return info.denoDir;
}

/** Makes image `name`, whose `outcalld` is this checkout's. */
export async function buildDaemonImage(engine: Engine, name: string): Promise<void> {
  await importImage(engine.machine.path("/run/docker.sock"), BASE, PROGRAMS);
  const sources = {
    repo: fileURLToPath(new URL("../../", import.meta.url)),
    cache: await denoCache(),
  };
  const mounts = Object.entries(sources).flatMap(([at, path]) => ["-v", `${path}:/from/${at}:ro`]);
  await engine.must(
    ["run", "--name", "fill", ...mounts, BASE, "bash", "-c", FILL, Deno.execPath()],
    {
      timeoutMs: 120_000,
    },
  );
  await engine.must(["commit", "fill", name]);
  await engine.must(["rm", "fill"]);
}
