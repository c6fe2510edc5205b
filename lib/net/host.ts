/**
 * Hostnames as values. A host is parsed once, where it enters, and case, trailing dot, IDN and odd
 * IP spellings are settled here: two hosts are the same exactly when their names are.
 */
import { domainToASCII, domainToUnicode } from "node:url";
import { Ip } from "./ip.ts";

/** RFC 1035 §2.3.4 allows 255 octets on the wire, which is 253 characters of text. */
const MAX_NAME_CHARACTERS = 253;

/** Letters, digits, hyphens inside (RFC 1123 §2.1), and underscores, which service names use (RFC 8552). */
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;

/**
 * A last label that URL parsers take for a number turns the whole name into an IPv4 address
 * (URL standard, "ends in a number"): `1.2.3.4.5`, `foo.0x7f`.
 */
const NUMERIC_LABEL = /^(?:[0-9]+|0x[0-9a-f]*)$/;

const PRINTABLE_ASCII = /^[ -~]*$/;

/** A-label form of a Unicode name, or null when it stands for another name than it shows. */
function toAscii(text: string): string | null {
  const ascii = domainToASCII(text);
  // Full-width letters, soft hyphens and the like are mapped away by IDNA (UTS 46): refuse them.
  const shown = text.normalize("NFC").toLowerCase();
  return ascii !== "" && domainToUnicode(ascii) === shown ? ascii : null;
}

/** An `xn--` label that does not decode, or not back to itself, names nothing. */
function isSoundALabel(label: string): boolean {
  if (!label.startsWith("xn--")) return true;
  const unicode = domainToUnicode(label);
  return unicode !== label && domainToASCII(unicode) === label;
}

/** A DNS name in its one canonical spelling. Immutable. */
export class Hostname {
  private constructor(
    /** Lower-case A-labels, no trailing dot. */
    readonly name: string,
  ) {}

  /**
   * The name written in `text`, or null when it is not one. Not an IP address: see
   * {@linkcode parseHost}.
   */
  static parse(text: string): Hostname | null {
    if (text.length > MAX_NAME_CHARACTERS + 1) return null;
    const rooted = text.endsWith(".") ? text.slice(0, -1) : text;
    const ascii = PRINTABLE_ASCII.test(rooted) ? rooted.toLowerCase() : toAscii(rooted);
    if (ascii === null || ascii.length > MAX_NAME_CHARACTERS) return null;
    const labels = ascii.split(".");
    if (!labels.every((label) => LABEL.test(label) && isSoundALabel(label))) return null;
    if (NUMERIC_LABEL.test(labels.at(-1) ?? "")) return null;
    return new Hostname(ascii);
  }

  /** Whether this is `parent` itself or a name below it; `evilexample.com` is not under `example.com`. */
  under(parent: Hostname): boolean {
    return isUnder(this.name, parent.name);
  }

  /** Same as {@linkcode Hostname.name}. */
  toString(): string {
    return this.name;
  }
}

/** {@linkcode Hostname.under} for names that are canonical already. */
export function isUnder(name: string, parent: string): boolean {
  return name.endsWith(parent) &&
    (name.length === parent.length || name[name.length - parent.length - 1] === ".");
}

/** What a client may name as its destination. */
export type Host = Hostname | Ip;

/**
 * The host written in `text`: a name, a dotted IPv4 address, or an IPv6 address with or without
 * brackets. Null for everything else, user information and ports included.
 *
 * Connecting to `::ffff:1.2.3.4` reaches 1.2.3.4, so that is the host: a rule that blocks an address
 * must not be passed by its other spelling.
 */
export function parseHost(text: string): Host | null {
  if (text.startsWith("[") && text.endsWith("]")) {
    const ip = Ip.parse(text.slice(1, -1));
    return ip?.version === 6 ? reached(ip) : null;
  }
  const ip = Ip.parse(text);
  return ip === null ? Hostname.parse(text) : reached(ip);
}

function reached(ip: Ip): Ip {
  return ip.mappedIpv4() ?? ip;
}

/**
 * Whether a normalised name is of the local link: multicast DNS, which nobody but the link itself
 * answers, and no resolver may be asked for (RFC 6762 §3, S007-FR-033).
 */
export function isLinkLocalName(name: string): boolean {
  return name === "local" || name.endsWith(".local");
}
