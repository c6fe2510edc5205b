/** Reading option values; what is wrong is a usage error (exit code 2). */
import { InvalidArgumentError } from "@commander-js/extra-typings";

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
};

/** What `--observe` is for. */
export const OBSERVE_HELP =
  "let out, and record, what no rule allows or blocks, for a time such as 30m (1h): see `suggest`";

/** Bytes, written as Docker does: `256m`, `1g`, or a plain number of bytes. */
export function memorySize(text: string): number {
  const [, digits, unit] = /^([0-9]+)([bkmg]?)$/.exec(text.toLowerCase()) ?? [];
  const bytes = Number(digits) * (UNITS[unit ?? ""] ?? NaN);
  if (!Number.isSafeInteger(bytes)) {
    throw new InvalidArgumentError("It must be a size such as 256m or 1g.");
  }
  return bytes;
}

const UNIT_SECS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600 };

/** Seconds, written `90s`, `15m` or `2h`. */
export function duration(text: string): number {
  const [, digits, unit] = /^([0-9]{1,6})([smh])$/.exec(text) ?? [];
  const secs = Number(digits) * (UNIT_SECS[unit ?? ""] ?? NaN);
  if (!Number.isInteger(secs) || secs < 1) {
    throw new InvalidArgumentError("It must be a time such as 90s, 15m or 2h.");
  }
  return secs;
}

/** Gathers an option that may be given several times. */
export function collect(value: string, earlier: readonly string[]): readonly string[] {
  return [...earlier, value];
}

/** A JSON value. */
export function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new InvalidArgumentError("It must be JSON.");
  }
}

/** Words separated by spaces. */
export function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}

/** Gathers header fields, `Name: value`. */
export function header(
  text: string,
  earlier: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const colon = text.indexOf(":");
  if (colon < 1) throw new InvalidArgumentError("It must be <name>: <value>.");
  return { ...earlier, [text.slice(0, colon).trim()]: text.slice(colon + 1).trim() };
}
