/** Writing to the terminal or pipe, whole and in order, before the program exits. */

/**
 * Writes `text` to stdout. A reader that has gone away, as with `| head`, is not an error: false says
 * so, and that nothing more need be written.
 */
export function writeOut(text: string): boolean {
  return write(Deno.stdout, text);
}

/** Writes `text` to stderr. */
export function writeErr(text: string): void {
  write(Deno.stderr, text);
}

function write(stream: typeof Deno.stdout, text: string): boolean {
  let rest = new TextEncoder().encode(text);
  try {
    while (rest.length > 0) rest = rest.subarray(stream.writeSync(rest));
    return true;
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.BrokenPipe)) throw thrown;
    return false;
  }
}

/** Columns of the terminal that stdout is, or null when it is none. */
export function terminalColumns(): number | null {
  return columnsOf(Deno.stdout);
}

/** The same for stderr. */
export function errColumns(): number | null {
  return columnsOf(Deno.stderr);
}

function columnsOf(stream: typeof Deno.stdout): number | null {
  if (!stream.isTerminal()) return null;
  try {
    return Deno.consoleSize().columns;
  } catch {
    return null;
  }
}
