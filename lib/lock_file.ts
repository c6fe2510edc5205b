/** Locks that a process holds until it ends, however it ends (flock(2) on a file of its own). */

/**
 * Takes the lock at `path`, making its file, which nobody else may open: whoever can open it can hold it.
 * @returns null when another process holds it. The lock ends when the file is closed.
 * @throws Error for something else at `path`, such as a link, and the system's errors.
 */
export function tryLock(path: string): Deno.FsFile | null {
  if (!isFileOrNothing(path)) throw new Error(`${path} exists and is not a file: remove it`);
  const file = Deno.openSync(path, { write: true, create: true, mode: 0o600 });
  if (file.tryLockSync(true)) return file;
  file.close();
  return null;
}

function isFileOrNothing(path: string): boolean {
  try {
    return Deno.lstatSync(path).isFile;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return true;
    throw thrown;
  }
}
