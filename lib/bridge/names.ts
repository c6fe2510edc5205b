/**
 * Names of managed bridges (decision D3): the default network's bridge is the one `--bridge` names,
 * further networks get the same name with the next numbers.
 */
import { OutcallError } from "../errors.ts";

/** The default network's bridge where `--bridge` names no other. */
export const DEFAULT_BRIDGE = "outcall0";

/** IFNAMSIZ is 16, with the terminating zero byte (include/uapi/linux/if.h). */
const MAX_NAME_BYTES = 15;
// The kernel allows more characters; these need no quoting in nft, sysctl paths and shells.
const NAME = /^[A-Za-z][A-Za-z0-9_.-]*$/;

/** Whether `text` can name a bridge. */
export function isInterfaceName(text: string): boolean {
  return text.length <= MAX_NAME_BYTES && NAME.test(text);
}

/** A name taken apart: `outcall0` is `outcall` and 0, `agents` is `agents` and none. */
function splitName(name: string): { readonly base: string; readonly number: number | null } {
  const digits = /(?<!\d)\d+$/.exec(name)?.[0];
  return digits === undefined
    ? { base: name, number: null }
    : { base: name.slice(0, -digits.length), number: Number(digits) };
}

/**
 * The name of bridge number `n`, counted from the default bridge: 0 is `defaultBridge` itself.
 * @throws OutcallError `bridge.names_exhausted` when that name would be too long.
 */
export function bridgeName(defaultBridge: string, n: number): string {
  if (n === 0) return defaultBridge;
  const { base, number } = splitName(defaultBridge);
  const name = `${base}${(number ?? 0) + n}`;
  if (!isInterfaceName(name)) {
    throw new OutcallError(
      409,
      "bridge.names_exhausted",
      `no bridge name is left: '${name}' is longer than ${MAX_NAME_BYTES} characters`,
      { hint: "give --bridge a shorter name, or destroy networks that are not needed" },
    );
  }
  return name;
}

/** The first `count` names that {@linkcode bridgeName} gives out; fewer where they get too long. */
export function firstNames(defaultBridge: string, count: number): string[] {
  const { base, number } = splitName(defaultBridge);
  const further = Array.from({ length: count - 1 }, (_, i) => `${base}${(number ?? 0) + 1 + i}`);
  return [defaultBridge, ...further.filter(isInterfaceName)];
}

/** Whether `name` is one that {@linkcode bridgeName} gives out. */
export function isManagedName(defaultBridge: string, name: string): boolean {
  if (name === defaultBridge) return true;
  const ours = splitName(defaultBridge);
  const { base, number } = splitName(name);
  // The comparison with the text rejects leading zeros, which are never given out.
  return base === ours.base && number !== null && number > (ours.number ?? 0) &&
    name === `${base}${number}`;
}

/**
 * Checks the value of `--bridge`.
 * @throws OutcallError `bridge.name`
 */
export function assertBridgeName(name: string): void {
  if (isInterfaceName(name) && name !== "lo") return;
  throw new OutcallError(
    422,
    "bridge.name",
    `'${name}' is not a bridge name: 1 to ${MAX_NAME_BYTES} letters, digits, '-', '_' or '.', ` +
      "beginning with a letter",
    { hint: "leave --bridge out for outcall0" },
  );
}
