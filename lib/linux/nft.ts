/**
 * Runs the `nft` program, the one tool outside this process that enforcement depends on: every call
 * is bounded in time and output, and its exit status is checked.
 */
import { OutcallError } from "../errors.ts";
import { NET_ADMIN_HINT } from "./privileges.ts";

/** nft answers within milliseconds; a busy machine may need longer, a hung one must not hold us. */
const TIMEOUT_MS = 10_000;
/** A table with a grant for every container of a large host is listed in well under 4 MiB. */
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;

/** nft's families that Outcall has tables in. */
export type Family = "inet" | "bridge";

/** What nft printed, once it has ended. */
interface NftResult {
  readonly success: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

function failure(code: string, message: string, hint: string, cause?: unknown): OutcallError {
  return new OutcallError(500, code, message, { hint, cause });
}

function notFound(cause: unknown): OutcallError {
  return failure(
    "bridge.nft_missing",
    "nft command not found — is nftables installed?",
    "install nftables, such as: apt-get install nftables",
    cause,
  );
}

function permissionDenied(cause?: unknown): OutcallError {
  return failure(
    "bridge.permission",
    "permission denied running nft — are you root or have CAP_NET_ADMIN?",
    NET_ADMIN_HINT,
    cause,
  );
}

/** All text of `stream`, or null when it is longer than the limit. */
async function readBounded(stream: ReadableStream<Uint8Array>): Promise<string | null> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of stream) {
    bytes += chunk.length;
    if (bytes > MAX_OUTPUT_BYTES) return null; // leaving the loop closes the pipe
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

async function writeAll(stream: WritableStream<Uint8Array>, text: string): Promise<void> {
  const writer = stream.getWriter();
  try {
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  } catch {
    // nft ended before it had read everything; its exit status and message say why.
  }
}

function spawn(args: readonly string[]): Deno.ChildProcess {
  try {
    return new Deno.Command("nft", {
      args: [...args],
      // Messages are matched below, so they must not be translated. Administrators' programs are
      // often missing from the PATH of services.
      env: { LC_ALL: "C", PATH: `${Deno.env.get("PATH") ?? ""}:/usr/sbin:/sbin` },
      clearEnv: true,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw notFound(error);
    if (error instanceof Deno.errors.PermissionDenied) throw permissionDenied(error);
    throw error;
  }
}

async function finish(child: Deno.ChildProcess, input: string): Promise<NftResult> {
  const [stdout, stderr, status] = await Promise.all([
    readBounded(child.stdout),
    readBounded(child.stderr),
    child.status,
    writeAll(child.stdin, input),
  ]);
  if (stdout === null || stderr === null) {
    throw failure(
      "bridge.nft_output",
      `nft printed more than ${MAX_OUTPUT_BYTES / 1024 / 1024} MiB`,
      "look at the tables with: nft list table inet outcall",
    );
  }
  return { success: status.success, stdout, stderr };
}

async function runNft(args: readonly string[], input: string): Promise<NftResult> {
  const child = spawn(args);
  const timeout = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    child.kill("SIGKILL");
    timeout.reject(failure(
      "bridge.nft_timeout",
      `nft did not finish within ${TIMEOUT_MS / 1000} s`,
      "look for other programs that change nftables all the time, and for an overloaded host",
    ));
  }, TIMEOUT_MS);
  try {
    return await Promise.race([finish(child, input), timeout.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** The failure of a call that nft refused. */
function refused(stderr: string): OutcallError {
  if (stderr.includes("Operation not permitted")) return permissionDenied();
  const [line = ""] = stderr.split("\n");
  return failure(
    "bridge.nftables",
    `nft failed: ${line.trim() || "no message"}`,
    "check that the kernel has nf_tables, and look at the tables with: nft list ruleset",
  );
}

/**
 * Applies `ruleset` as one transaction: all of it or nothing.
 * @throws OutcallError `bridge.nft_missing`, `bridge.permission`, `bridge.nftables`,
 * `bridge.nft_timeout` (then it may or may not have been applied).
 */
export async function applyRuleset(ruleset: string): Promise<void> {
  const result = await runNft(["-f", "-"], ruleset);
  if (!result.success) throw refused(result.stderr);
}

/**
 * A table as `nft -j` lists it, with protocols as numbers: an array of objects with one key each
 * (`table`, `set`, `chain`, `rule` …, libnftables-json(5)); null when there is no such table.
 * @throws OutcallError as {@linkcode applyRuleset}.
 */
export async function listTable(family: Family, name: string): Promise<readonly unknown[] | null> {
  // Names of protocols come from /etc/protocols, which minimal systems lack; numbers always do.
  const result = await runNft(["-j", "--numeric-protocol", "list", "table", family, name], "");
  if (!result.success) {
    if (result.stderr.includes("No such file or directory")) return null;
    throw refused(result.stderr);
  }
  const objects = listedObjects(result.stdout);
  if (objects === null) {
    throw failure(
      "bridge.nftables",
      "nft listed a table in an unknown form",
      `look at it with: nft list table ${family} ${name}; nftables must be 1.0 or newer`,
    );
  }
  return objects;
}

/** The objects of a listing; null when it is none: nft 1.0.6 breaks off at a dormant table. */
function listedObjects(text: string): readonly unknown[] | null {
  try {
    const listing: unknown = JSON.parse(text);
    const isListing = listing !== null && typeof listing === "object" && "nftables" in listing;
    return isListing && Array.isArray(listing.nftables) ? listing.nftables : null;
  } catch {
    return null;
  }
}

/**
 * Deletes a table with all it holds.
 * @throws OutcallError as {@linkcode applyRuleset}, also when there is no such table.
 */
export async function deleteTable(family: Family, name: string): Promise<void> {
  await applyRuleset(`delete table ${family} ${name}\n`);
}

/**
 * One text for all listings of tables that enforce the same: handles and counter values, which
 * change by themselves, are taken out, so are elements that expire, and set elements, whose order
 * means nothing, are sorted.
 */
export function fingerprint(objects: readonly unknown[]): string {
  return JSON.stringify(objects.map((object) => withoutNoise(object)));
}

function withoutNoise(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNoise);
  if (value === null || typeof value !== "object") return value;
  const clean: Record<string, unknown> = {};
  const doesExpire = "flags" in value && JSON.stringify(value.flags).includes('"timeout"');
  for (const [key, child] of Object.entries(value)) {
    if (key === "handle" || key === "metainfo" || key === "packets" || key === "bytes") continue;
    if (key === "elem" && doesExpire) continue;
    const cleanChild = withoutNoise(child);
    clean[key] = key === "elem" && Array.isArray(cleanChild)
      ? cleanChild.map((element) => JSON.stringify(element)).sort()
      : cleanChild;
  }
  return clean;
}
