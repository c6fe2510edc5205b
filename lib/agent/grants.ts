/** The rule files of approved requests, beside the operator's own in the rules directory. */
import { basename, dirname, join } from "node:path";
import { OutcallError } from "../errors.ts";

const FILE_NAME = /^agent-(rr-[0-9a-f]{12})\.yaml$/;

/** The request whose approval a rule file is, or null for a file of the operator's own. */
export function requestOf(path: string): string | null {
  return FILE_NAME.exec(basename(path))?.[1] ?? null;
}

/** Where the approval of a request stands. */
export function grantPath(rulesDir: string, id: string): string {
  return `${rulesDir.replace(/\/+$/, "")}/agent-${id}.yaml`;
}

/**
 * Writes a rule file that appears whole or not at all, readable by us alone.
 * @throws OutcallError `requests.file_exists` (500): nothing is ever replaced (ADV-HOST-06).
 */
export function writeGrant(path: string, text: string): void {
  Deno.mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  // Not a rule file by its name: a reload in between does not read it.
  const draft = join(dirname(path), `.${basename(path)}.${crypto.randomUUID()}`);
  using file = Deno.openSync(draft, { write: true, createNew: true, mode: 0o600 });
  try {
    let rest = new TextEncoder().encode(text);
    while (rest.length > 0) rest = rest.subarray(file.writeSync(rest));
    file.syncSync();
    Deno.linkSync(draft, path); // link(2) never replaces
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.AlreadyExists)) throw thrown;
    throw new OutcallError(500, "requests.file_exists", `${path} exists already`, {
      hint: "Move it away, and approve again.",
      cause: thrown,
    });
  } finally {
    Deno.removeSync(draft);
  }
}

/** Removes a rule file; none to remove is fine. */
export function removeGrant(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
  }
}
