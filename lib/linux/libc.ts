/**
 * The one place that opens the C library.
 *
 * Each part names the few calls it makes through {@linkcode bindLibc}; finding the library and
 * reading `errno` is settled here. Numbers of socket options, message types and so on stand beside
 * the code that uses them; those that several parts use, in sockets.ts and errno.ts.
 */
import { getSystemErrorName } from "node:util";

/** glibc first, then musl under the names that its loader knows on the supported machines. */
const LIBRARY_NAMES = [
  "libc.so.6",
  "libc.musl-x86_64.so.1",
  "libc.musl-aarch64.so.1",
] as const;

/**
 * Binds C library calls to typed functions.
 *
 * Calls bound here must not be `nonblocking`: those run on another thread, where `errno` is
 * another variable, so {@linkcode lastErrno} would read the wrong one.
 *
 * @throws Error when no C library can be opened (not Linux, or FFI not permitted).
 */
export function bindLibc<const S extends Deno.ForeignLibraryInterface>(
  symbols: S,
): Deno.DynamicLibrary<S>["symbols"] {
  let failure: unknown;
  for (const name of LIBRARY_NAMES) {
    try {
      return Deno.dlopen(name, symbols).symbols;
    } catch (error) {
      // The first name's error is the telling one on glibc systems: a missing symbol shows there.
      failure ??= error;
    }
  }
  throw new Error("the C library cannot be opened", { cause: failure });
}

const errors = bindLibc({
  __errno_location: { parameters: [], result: "pointer" },
  strerror: { parameters: ["i32"], result: "pointer" },
});

// The location belongs to the thread, and an isolate never changes threads: looking it up once
// leaves nothing between a failed call and the read that could change the value.
const errnoLocation = errors.__errno_location();
if (errnoLocation === null) throw new Error("the C library has no errno for this thread");
const errnoView = new Deno.UnsafePointerView(errnoLocation);

/** `errno` as the last failed call on this thread left it. */
export function lastErrno(): number {
  return errnoView.getInt32();
}

/** The C library's text for an error number, such as `Operation not permitted`. */
export function errnoText(errno: number): string {
  const text = errors.strerror(errno);
  return text === null ? `error ${errno}` : Deno.UnsafePointerView.getCString(text);
}

/** The symbolic name of an error number, such as `EPERM`. */
export function errnoName(errno: number): string {
  return getSystemErrorName(-errno);
}

/** A system call, or the kernel's answer to a request, that failed. */
export class SystemError extends Error {
  override readonly name = "SystemError";
  /** Symbolic name, such as `EPERM`. */
  readonly code: string;

  /**
   * @param operation What was tried, such as `bind` or `create bridge outcall0`.
   * @param errno Positive error number.
   * @param detail What the kernel added, if it did.
   */
  constructor(readonly operation: string, readonly errno: number, detail?: string) {
    super(`${operation}: ${errnoText(errno)}${detail === undefined ? "" : ` (${detail})`}`);
    this.code = errnoName(errno);
  }
}

/**
 * The result of a C library call that reports failure as a negative number.
 * @throws SystemError with `errno`.
 */
export function checked(operation: string, result: number): number {
  if (result < 0) throw new SystemError(operation, lastErrno());
  return result;
}
