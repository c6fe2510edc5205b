/**
 * IP addresses as values: parsed once, strictly, and compared as bytes.
 *
 * Only the spellings that mean one thing everywhere are accepted. Octal, hexadecimal, decimal and
 * short IPv4 forms (`0177.0.0.1`, `2130706433`, `127.1`) are read differently by different programs,
 * which is how filters are bypassed; zone identifiers (`fe80::1%eth0`) have no meaning off the host.
 */

const IPV4_OCTET = /^(?:0|[1-9][0-9]{0,2})$/;
const IPV6_GROUP = /^[0-9a-f]{1,4}$/i;

/** Four octets of a dotted decimal address without leading zeros, or null. */
function parseIpv4(text: string): number[] | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  const octets = parts.map((part) => IPV4_OCTET.test(part) ? Number(part) : 256);
  return octets.every((octet) => octet <= 255) ? octets : null;
}

/** The bytes of colon-separated groups, the last of which may be a dotted IPv4 address; or null. */
function parseGroups(text: string, mayEndInIpv4: boolean): number[] | null {
  if (text === "") return [];
  const bytes: number[] = [];
  const groups = text.split(":");
  for (const [i, group] of groups.entries()) {
    if (IPV6_GROUP.test(group)) {
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
      continue;
    }
    const embedded = mayEndInIpv4 && i === groups.length - 1 ? parseIpv4(group) : null;
    if (embedded === null) return null;
    bytes.push(...embedded);
  }
  return bytes;
}

/** RFC 4291 §2.2: eight groups, at most one `::` for one or more zero groups, dotted tail allowed. */
function parseIpv6(text: string): number[] | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const [left = "", right] = halves;
  if (right === undefined) {
    const bytes = parseGroups(left, true);
    return bytes?.length === 16 ? bytes : null;
  }
  const head = parseGroups(left, false);
  const tail = parseGroups(right, true);
  if (head === null || tail === null) return null;
  const zeros = 16 - head.length - tail.length;
  if (zeros < 2) return null;
  return [...head, ...new Array<number>(zeros).fill(0), ...tail];
}

/** Where the longest run of two or more zero groups starts and how long it is; the first one wins. */
function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: -1, length: 1 };
  let start = 0;
  for (let i = 0; i <= groups.length; i++) {
    if (groups[i] === 0) continue;
    if (i - start > best.length) best = { start, length: i - start };
    start = i + 1;
  }
  return best;
}

/** RFC 5952 §4, with §5's dotted tail for IPv4-mapped addresses. */
function formatIpv6(ip: Ip): string {
  const mapped = ip.mappedIpv4();
  if (mapped !== null) return `::ffff:${mapped.text}`;
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((ip.bytes[i] ?? 0) << 8) | (ip.bytes[i + 1] ?? 0));
  const run = longestZeroRun(groups);
  const hex = (part: readonly number[]): string => part.map((g) => g.toString(16)).join(":");
  if (run.start < 0) return hex(groups);
  return `${hex(groups.slice(0, run.start))}::${hex(groups.slice(run.start + run.length))}`;
}

/** One IPv4 or IPv6 address. Immutable. */
export class Ip {
  readonly version: 4 | 6;
  #text: string | undefined;

  private constructor(
    /** Network byte order; 4 or 16 of them. Not to be modified. */
    readonly bytes: Uint8Array,
  ) {
    this.version = bytes.length === 4 ? 4 : 6;
  }

  /** The address written in `text`, or null when it is not exactly one strict spelling of one. */
  static parse(text: string): Ip | null {
    // The longest spelling is 45 characters; the check keeps hostile input from being split.
    if (text.length > 45) return null;
    const bytes = text.includes(":") ? parseIpv6(text) : parseIpv4(text);
    return bytes === null ? null : new Ip(Uint8Array.from(bytes));
  }

  /**
   * The address with these bytes, which are copied.
   * @throws RangeError when there are not 4 or 16 of them.
   */
  static fromBytes(bytes: Uint8Array): Ip {
    if (bytes.length !== 4 && bytes.length !== 16) {
      throw new RangeError(`an IP address has 4 or 16 bytes, not ${bytes.length}`);
    }
    return new Ip(Uint8Array.from(bytes));
  }

  /** Canonical text: dotted decimal, or RFC 5952. */
  get text(): string {
    return this.#text ??= this.version === 4 ? this.bytes.join(".") : formatIpv6(this);
  }

  /** The IPv4 address inside `::ffff:0:0/96` (RFC 4291 §2.5.5.2), or null. */
  mappedIpv4(): Ip | null {
    if (this.version === 4) return null;
    const prefix = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    return prefix.every((byte, i) => this.bytes[i] === byte) ? new Ip(this.bytes.slice(12)) : null;
  }

  /** Whether both are the same address. */
  equals(other: Ip): boolean {
    return this.version === other.version && this.bytes.every((byte, i) => byte === other.bytes[i]);
  }

  /** Same as {@linkcode Ip.text}. */
  toString(): string {
    return this.text;
  }
}
