/**
 * The file of a Unix socket: taking its place in the file system without ever taking it from a
 * daemon that lives, from a file that is not a socket, or through a link (ADV-HOST-02); and without
 * a moment in which anybody could connect who should not.
 */
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { messageOf, OutcallError } from "../errors.ts";

/** Length of sun_path without its final NUL (unix(7)). */
const MAX_PATH_BYTES = 107;

/** A local connect is answered at once; a server that does not answer at all is not ours to replace. */
const PROBE_TIMEOUT_MS = 1_000;

/** How often a place that keeps changing is tried for before giving up. */
const CLAIM_ATTEMPTS = 5;

/** Owner and mode of a socket file. */
export interface SocketAccess {
  readonly mode: number;
  /** Group of the file; absent: the daemon's own. */
  readonly gid?: number | undefined;
}

/** A socket file that is in its place. */
export interface SocketFile {
  /** Removes it, unless somebody else's file stands there by now. */
  remove(): void;
}

/**
 * Puts a listening socket at `path`, creating missing directories.
 *
 * `listen` binds to a name in a directory that only we can enter; there mode and group are set, and
 * only then does the file get its real name, by link(2), which never replaces anything.
 * @param listen Binds and listens at the path it is given.
 * @throws OutcallError `socket.path`, `socket.in_use`, `socket.not_a_socket`, `socket.bind`.
 */
export async function placeSocket(
  path: string,
  access: SocketAccess,
  listen: (path: string) => Promise<void>,
): Promise<SocketFile> {
  const directory = dirname(path);
  let workshop: string | null = null;
  try {
    Deno.mkdirSync(directory, { recursive: true, mode: 0o755 });
    workshop = Deno.makeTempDirSync({ dir: directory, prefix: "." });
    const fresh = join(workshop, "s");
    assertPath(path, fresh);
    await listen(fresh);
    Deno.chmodSync(fresh, access.mode);
    if (access.gid !== undefined) Deno.chownSync(fresh, null, access.gid);
    const { dev, ino } = Deno.lstatSync(fresh);
    await claim(path, fresh, join(workshop, "stale"));
    return { remove: () => removeIfSame(path, dev, ino) };
  } catch (thrown) {
    throw thrown instanceof OutcallError ? thrown : new OutcallError(
      500,
      "socket.bind",
      `cannot listen on ${path}: ${messageOf(thrown)}`,
      { cause: thrown, hint: "Check the directory's owner and mode, or name another socket path." },
    );
  } finally {
    if (workshop !== null) Deno.removeSync(workshop, { recursive: true });
  }
}

function assertPath(path: string, fresh: string): void {
  if (!path.startsWith("/")) {
    throw new OutcallError(500, "socket.path", `socket path ${path} is not absolute`);
  }
  const bytes = Math.max(...[path, fresh].map((name) => new TextEncoder().encode(name).length));
  if (bytes > MAX_PATH_BYTES) {
    throw new OutcallError(500, "socket.path", `socket path ${path} is too long`, {
      hint: "Use a shorter directory name.",
    });
  }
}

async function claim(path: string, fresh: string, stale: string): Promise<void> {
  for (let attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
    if (linkIfFree(fresh, path)) return;
    await assertStale(path, path);
    // Moved away before it is removed: another daemon may have put its socket here since the probe.
    if (!renameIfThere(path, stale)) continue;
    try {
      await assertStale(stale, path);
    } catch (alive) {
      linkIfFree(stale, path);
      throw alive;
    }
    Deno.removeSync(stale);
  }
  throw inUse(path);
}

function linkIfFree(from: string, to: string): boolean {
  try {
    Deno.linkSync(from, to);
    return true;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.AlreadyExists) return false;
    throw thrown;
  }
}

function renameIfThere(from: string, to: string): boolean {
  try {
    Deno.renameSync(from, to);
    return true;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return false;
    throw thrown;
  }
}

/**
 * Returns when `file` is a socket that nobody listens on, or is gone.
 * @param path The name to complain about.
 */
async function assertStale(file: string, path: string): Promise<void> {
  let isSocket: boolean | null;
  try {
    isSocket = Deno.lstatSync(file).isSocket;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return;
    throw thrown;
  }
  if (isSocket !== true) {
    throw new OutcallError(500, "socket.not_a_socket", `${path} exists and is not a socket`, {
      hint: "Move it away, or name another socket path.",
    });
  }
  // Only "nobody listens" is proof. Anything else, such as a full backlog, may be a live daemon.
  const answer = await probe(file);
  if (answer !== "ECONNREFUSED" && answer !== "ENOENT") throw inUse(path);
}

function inUse(path: string): OutcallError {
  return new OutcallError(409, "socket.in_use", `another process is listening on ${path}`, {
    hint: "Stop the other outcalld, or name another socket path.",
  });
}

/** The error code of connecting to `path`; `connected` or `timeout` when there was none. */
function probe(path: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const finish = (answer: string): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => finish("timeout"), PROBE_TIMEOUT_MS);
    socket.once("connect", () => finish("connected"));
    socket.once("error", (error: NodeJS.ErrnoException) => finish(error.code ?? "unknown"));
  });
}

function removeIfSame(path: string, dev: number, ino: number | null): void {
  try {
    const found = Deno.lstatSync(path);
    if (found.dev === dev && found.ino === ino) Deno.removeSync(path);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
  }
}
