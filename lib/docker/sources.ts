/**
 * The host's side of mounts: where a source really leads, through links and by other names, and
 * whether the helper files are what they should be (S008-FR-009, FR-039).
 */
import { messageOf, OutcallError } from "../errors.ts";
import type { Engine } from "./engine.ts";
import { bind, clean, denied, exposes, type Mount } from "./mounts.ts";

/** Control sockets of Docker and containerd, in both spellings of their folder. */
const CONTROL_SOCKETS = [
  "/run/docker.sock",
  "/var/run/docker.sock",
  "/run/docker",
  "/var/run/docker",
  "/run/containerd",
  "/var/run/containerd",
];

/** The kernel's door to every process's files (`/proc/1/root`). */
const PROCESS_FILES = "/proc";

/** A file or folder regardless of its name: bind mounts and hard links give it several. */
function identity(path: string): string | null {
  try {
    const { dev, ino } = Deno.statSync(path);
    return `${dev}:${ino}`;
  } catch {
    return null; // not there (yet): nothing to compare
  }
}

/** `path` and every folder above it. */
function withParents(path: string): string[] {
  const parents = [path];
  while (path !== "/") {
    path = clean(`${path}/..`);
    parents.push(path);
  }
  return parents;
}

/** Where links lead; null: there is no such file. */
function realPath(path: string): string | null {
  try {
    return Deno.realPathSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw new OutcallError(
      403,
      "mount.unreadable",
      `bind mount denied - "${path}" cannot be checked: ${messageOf(error)}`,
    );
  }
}

/** The host paths no container may get at. */
export class ProtectedPaths {
  readonly #paths: readonly string[];

  /**
   * @param paths The daemon's own: host socket, Docker's socket, rules, state; absolute. Control
   * sockets of Docker and containerd, and /proc, are always among them.
   */
  constructor(paths: readonly string[]) {
    this.#paths = [...new Set([...paths.map(clean), ...CONTROL_SOCKETS, PROCESS_FILES])];
  }

  /**
   * Where `source` (clean, absolute) really is, for Docker to mount: the path that was checked.
   * @throws OutcallError `mount.denied` (403) with the path as given and what it would expose;
   * `mount.missing` (404): Docker would make the folder, and what it turns into later is unchecked.
   */
  check(source: string): string {
    this.#refuse(source, source);
    const real = realPath(source);
    if (real === null) {
      throw new OutcallError(
        404,
        "mount.missing",
        `bind mount source "${source}" does not exist`,
        { hint: "Make it first; a daemon in a container must see it under the same path." },
      );
    }
    this.#refuse(source, real);
    const itself = identity(real);
    const parents = new Set(withParents(real).map(identity));
    for (const path of this.#paths) {
      // The links of today: /var/run is one nearly everywhere.
      const target = realPath(path) ?? path;
      const exposed = exposes(real, [target]) !== undefined ||
        withParents(target).some((parent) => itself !== null && identity(parent) === itself) ||
        parents.has(identity(target) ?? "");
      if (exposed) throw denied(source, path);
    }
    return real;
  }

  #refuse(source: string, path: string): void {
    const exposed = exposes(path, this.#paths);
    if (exposed !== undefined) throw denied(source, exposed);
  }
}

/**
 * Docker's text for each mount, its source checked and resolved. A volume may be a folder of the
 * host in disguise (`docker volume create -o type=none -o o=bind -o device=/run …`).
 * @throws OutcallError as {@linkcode ProtectedPaths.check}.
 */
export async function checkSources(
  mounts: readonly Mount[],
  paths: ProtectedPaths,
  engine: Engine,
): Promise<string[]> {
  const binds: string[] = [];
  for (const mount of mounts) {
    if (!mount.isVolume) {
      binds.push(bind(mount, paths.check(mount.source)));
      continue;
    }
    const volume = await engine.volume(mount.source);
    const device = volume?.Options?.["device"];
    if (device?.startsWith("/") === true) paths.check(clean(device));
    binds.push(bind(mount, mount.source));
  }
  return binds;
}

function lstat(path: string): Deno.FileInfo | null {
  try {
    return Deno.lstatSync(path); // a link is not followed: what it points to may change
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw new OutcallError(500, "helper.unreadable", `cannot look at ${path}: ${messageOf(error)}`);
  }
}

function helper(code: string, message: string): OutcallError {
  return new OutcallError(409, code, message, {
    hint: "See --agent-socket-host-path and --shim-host-path of the daemon.",
  });
}

/** @throws OutcallError unless the agent socket is there and is a Unix socket (S008-EC-015, -017). */
export function requireAgentSocket(path: string): void {
  const info = lstat(path);
  if (info === null) throw helper("helper.missing", `agent socket not found at "${path}"`);
  if (info.isSocket !== true) {
    throw helper("helper.invalid", `agent socket at "${path}" is not a Unix socket`);
  }
}

/** @throws OutcallError unless the shim is there and is an executable file (S008-EC-016, -017). */
export function requireShim(path: string): void {
  const info = lstat(path);
  if (info === null) throw helper("helper.missing", `shim binary not found at "${path}"`);
  if (!info.isFile || ((info.mode ?? 0) & 0o111) === 0) {
    throw helper("helper.invalid", `shim binary at "${path}" is not an executable file`);
  }
}
