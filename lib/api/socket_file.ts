/**
 * The file of a Unix socket: taking its place in the file system without ever taking it from a
 * daemon that lives, from a file that is not a socket, or through a link (ADV-HOST-02); and without
 * a moment in which anybody could connect who should not.
 */
import { connect } from "node:net";
import { basename, dirname, isAbsolute, join } from "node:path";
import { messageOf, OutcallError } from "../errors.ts";
import { tryLock } from "../lock_file.ts";

/** Length of sun_path without its final NUL (unix(7)). */
const MAX_PATH_BYTES = 107;

/** A local connect is answered at once; a server that does not answer at all is not ours to replace. */
const PROBE_TIMEOUT_MS = 1_000;

/** Owner and mode of a socket file. */
export interface SocketAccess {
  readonly mode: number;
  /** Group of the file; absent: the daemon's own. */
  readonly gid?: number | undefined;
  /**
   * A second name of the same socket, in a folder of its own that containers mount; absolute, on the
   * same file system.
   */
  readonly alsoAt?: string | undefined;
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
  if (!isAbsolute(path)) {
    throw new OutcallError(500, "socket.path", `socket path ${path} is not absolute`);
  }
  const directory = dirname(path);
  let lock: Deno.FsFile | null = null;
  let workshop: string | null = null;
  try {
    Deno.mkdirSync(directory, { recursive: true, mode: 0o755 });
    workshop = Deno.makeTempDirSync({ dir: directory, prefix: "." });
    const fresh = join(workshop, "s");
    assertFits(path, fresh);
    lock = lockPlace(path);
    await listen(fresh);
    Deno.chmodSync(fresh, access.mode);
    if (access.gid !== undefined) Deno.chownSync(fresh, null, access.gid);
    const { dev, ino } = Deno.lstatSync(fresh);
    await removeStale(path);
    const names = [path];
    if (access.alsoAt !== undefined) {
      makeFolder(dirname(access.alsoAt));
      // No probe: whoever holds the lock on `path` is the only one to put a socket there.
      if (lstatIfThere(access.alsoAt) !== null) Deno.removeSync(access.alsoAt);
      Deno.linkSync(fresh, access.alsoAt);
      names.push(access.alsoAt);
    }
    Deno.linkSync(fresh, path);
    const held = lock;
    return {
      remove: () => {
        for (const name of names) removeIfSame(name, dev, ino);
        held.close();
      },
    };
  } catch (thrown) {
    lock?.close();
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

/** Makes the folder, which must not be a link: what is put into it would go somewhere else. */
function makeFolder(folder: string): void {
  const found = lstatIfThere(folder);
  if (found === null) Deno.mkdirSync(folder, { mode: 0o755 });
  else if (!found.isDirectory) {
    throw new OutcallError(500, "socket.bind", `${folder} exists and is not a directory`, {
      hint: "Remove it.",
    });
  }
}

function assertFits(path: string, fresh: string): void {
  const bytes = Math.max(...[path, fresh].map((name) => new TextEncoder().encode(name).length));
  if (bytes > MAX_PATH_BYTES) {
    throw new OutcallError(500, "socket.path", `socket path ${path} is too long`, {
      hint: "Use a shorter directory name.",
    });
  }
}

/**
 * Holds the place for as long as the daemon lives: two daemons that start together would each find
 * the socket of the one before stale, and the slower one would remove the faster one's.
 *
 * The lock is a file of its own because nobody else can open it; the directory is mounted into
 * containers, where anybody could lock it and keep the daemon from starting.
 */
function lockPlace(path: string): Deno.FsFile {
  const lock = tryLock(join(dirname(path), `.${basename(path)}.lock`));
  if (lock === null) throw inUse(path);
  return lock;
}

/** Clears the way when `path` is a socket that nobody listens on. */
async function removeStale(path: string): Promise<void> {
  const found = lstatIfThere(path);
  if (found === null) return;
  if (found.isSocket !== true) {
    throw new OutcallError(500, "socket.not_a_socket", `${path} exists and is not a socket`, {
      hint: "Move it away, or name another socket path.",
    });
  }
  // Only "nobody listens" is proof. Anything else, such as a full backlog, may be a live server.
  if (await probe(path) !== "ECONNREFUSED") throw inUse(path);
  Deno.removeSync(path);
}

function lstatIfThere(path: string): Deno.FileInfo | null {
  try {
    return Deno.lstatSync(path);
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return null;
    throw thrown;
  }
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
  const found = lstatIfThere(path);
  if (found?.dev === dev && found.ino === ino) Deno.removeSync(path);
}
