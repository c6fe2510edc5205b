/**
 * Tests that need root, Linux or a tool say so here, and are counted as skipped with the reason in
 * their name where it is missing: a silent pass would be a lie.
 */

/** What a test needs from the machine. */
export interface Requirements {
  /** Programs that must be on PATH. */
  readonly tools?: readonly string[];
}

/** Whether program `name` is installed. */
export function hasTool(name: string): boolean {
  const path = (Deno.env.get("PATH") ?? "").split(":");
  // Debian keeps nft, ip and dockerd out of an ordinary user's PATH.
  return [...path, "/usr/sbin", "/sbin"].some((folder) => {
    try {
      return Deno.statSync(`${folder}/${name}`).isFile;
    } catch {
      return false;
    }
  });
}

/** What is missing here, or null when the test can run. */
export function missing(requirements: Requirements): string | null {
  if (Deno.build.os !== "linux") return "needs Linux";
  if (Deno.uid() !== 0) return "needs root";
  const absent = (requirements.tools ?? []).filter((tool) => !hasTool(tool));
  return absent.length === 0 ? null : `needs ${absent.join(", ")}`;
}

/** A test that needs root and `tools`; skipped loudly where they are missing. */
export function labTest(
  name: string,
  requirements: Requirements,
  run: (t: Deno.TestContext) => void | Promise<void>,
): void {
  const reason = missing(requirements);
  Deno.test({
    name: reason === null ? name : `${name} [skipped: ${reason}]`,
    ignore: reason !== null,
    fn: run,
  });
}
