/** The root certificate and key that the operator provides for interception, checked at start-up. */
import type { CaFiles } from "./config.ts";
import { messageOf, OutcallError } from "./errors.ts";
import { logger } from "./log.ts";

const READABLE_BY_OTHERS = 0o077;

function modeOf(flag: string, path: string): number {
  try {
    using file = Deno.openSync(path); // readable, not only there
    return file.statSync().mode ?? 0;
  } catch (thrown) {
    throw new OutcallError(422, "ca.unreadable", `${flag} ${path}: ${messageOf(thrown)}`, {
      hint: "give a readable PEM file, or leave out both --ca-cert and --ca-key",
    });
  }
}

/**
 * Refuses files that cannot be read, and a key that others than its owner can.
 * @throws OutcallError `ca.unreadable`, `ca.exposed`
 */
export function checkCaFiles({ certPath, keyPath }: CaFiles): void {
  modeOf("--ca-cert", certPath);
  const mode = modeOf("--ca-key", keyPath) & 0o777;
  if ((mode & READABLE_BY_OTHERS) !== 0) {
    throw new OutcallError(
      422,
      "ca.exposed",
      `--ca-key ${keyPath} has mode ${mode.toString(8).padStart(4, "0")}: others can use the key`,
      { hint: `chmod 600 ${keyPath}` },
    );
  }
  logger("proxy").warn(
    "interception is not part of this version: rules with egress.mode intercept are refused",
  );
}
