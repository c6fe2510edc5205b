/**
 * Domain names as they stand on the wire.
 */
import { Hostname } from "../net/host.ts";
import { HEADER_BYTES } from "./codes.ts";

/**
 * A domain name in uncompressed wire form (RFC 1035 §3.1), ASCII letters in lower case, one character
 * for each byte: `\x07example\x03com\x00`. Two names are the same exactly when the strings are.
 * (Length bytes are at most 63, so lower-casing never touches them.)
 */
export type WireName = string;

/** The name of the root zone. */
export const ROOT: WireName = "\0";

const MAX_NAME_BYTES = 255;
const MAX_LABEL_BYTES = 63;

/**
 * Pointers in one name: one for each label there can be. Without a limit they could lead from one to
 * the next through 16 KB, and thousands of names in one message each go all the way: a hostile upstream
 * would stop the daemon for a quarter of a second with every reply.
 */
const MAX_POINTERS = 127;

/** A name that was read, and the offset just behind it in the message. */
export interface NameAt {
  readonly name: WireName;
  readonly end: number;
}

function lowerCase(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
}

/**
 * Reads the name at `start`, following compression pointers (RFC 1035 §4.1.4).
 *
 * Each pointer must lead to before everything read so far for this name, so that loops and forward
 * pointers cannot be written down at all, and the work is bounded by 255 bytes of name and
 * {@linkcode MAX_POINTERS}.
 * @returns null when the name is cut off, too long, or badly formed.
 */
export function readName(message: Uint8Array, start: number): NameAt | null {
  let name = "";
  let at = start;
  let lowest = start;
  let end: number | null = null;
  let pointers = 0;
  for (;;) {
    const length = message[at];
    if (length === undefined) return null;
    if (length >= 0xc0) {
      const low = message[at + 1];
      if (low === undefined) return null;
      const target = (length & 0x3f) << 8 | low;
      end ??= at + 2;
      if (target >= lowest || target < HEADER_BYTES || ++pointers > MAX_POINTERS) return null;
      lowest = target;
      at = target;
      continue;
    }
    // 0x40 and 0x80 are label types nobody uses (RFC 6891 §5 gave the last one up).
    if (length > MAX_LABEL_BYTES) return null;
    const next = at + 1 + length;
    if (next > message.length || name.length + 1 + length > MAX_NAME_BYTES) return null;
    for (let i = at; i < next; i++) name += String.fromCharCode(lowerCase(message[i] ?? 0));
    at = next;
    if (length === 0) return { name, end: end ?? at };
  }
}

/** Visits the labels of a name: offsets of the content's first byte and of the byte behind it. */
function* labels(name: WireName): Generator<readonly [start: number, end: number]> {
  for (let at = 0; at < name.length;) {
    const length = name.charCodeAt(at);
    if (length === 0) return;
    yield [at + 1, at + 1 + length];
    at += 1 + length;
  }
}

/**
 * The host a name stands for, or null when no rule could name it: the root, or a label with bytes
 * other than letters, digits, hyphen and underscore (a dot or NUL inside a label would let a name
 * look like another one once it is text).
 */
export function hostnameOf(name: WireName): Hostname | null {
  const parts: string[] = [];
  for (const [start, end] of labels(name)) {
    const label = name.slice(start, end);
    if (!/^[a-z0-9_-]+$/.test(label)) return null;
    parts.push(label);
  }
  return parts.length === 0 ? null : Hostname.parse(parts.join("."));
}

/** The wire form of a host. */
export function wireNameOf(hostname: Hostname): WireName {
  return hostname.name.split(".")
    .map((label) => String.fromCharCode(label.length) + label)
    .join("") + ROOT;
}

/** For people: presentation form without the final dot; odd bytes as `\DDD` (RFC 1035 §5.1). */
export function nameText(name: WireName): string {
  const parts: string[] = [];
  for (const [start, end] of labels(name)) {
    parts.push(
      name.slice(start, end).replace(
        /[^a-z0-9_-]/g,
        (char) => `\\${String(char.charCodeAt(0)).padStart(3, "0")}`,
      ),
    );
  }
  return parts.length === 0 ? "." : parts.join(".");
}

/** Whether `name` is `ancestor` or lies below it, compared label by label. */
export function isWithin(name: WireName, ancestor: WireName): boolean {
  if (ancestor === ROOT || name === ancestor) return true;
  for (const [start] of labels(name)) {
    if (name.length - (start - 1) < ancestor.length) return false;
    if (name.slice(start - 1) === ancestor) return true;
  }
  return false;
}
