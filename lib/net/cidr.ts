/** Blocks of addresses in CIDR notation (RFC 4632, RFC 4291 §2.3), canonical only. */
import { Ip } from "./ip.ts";

const PREFIX = /^(?:0|[1-9][0-9]{0,2})$/;

/** Whether the first `prefix` bits of two addresses of one version agree. */
function samePrefix(a: Uint8Array, b: Uint8Array, prefix: number): boolean {
  const whole = prefix >> 3;
  for (let i = 0; i < whole; i++) if (a[i] !== b[i]) return false;
  const mask = 0xff00 >> (prefix & 7) & 0xff;
  return (((a[whole] ?? 0) ^ (b[whole] ?? 0)) & mask) === 0;
}

/** `bytes` with every bit after the first `prefix` cleared. */
function clearHostBits(bytes: Uint8Array, prefix: number): Uint8Array {
  return bytes.map((byte, i) => {
    const keep = Math.min(8, Math.max(0, prefix - i * 8));
    return byte & (0xff00 >> keep) & 0xff;
  });
}

/** `bytes` as one big-endian number, plus `offset`. */
function addOffset(bytes: Uint8Array, offset: bigint): Uint8Array {
  let value = bytes.reduce((sum, byte) => sum << 8n | BigInt(byte), 0n) + offset;
  const result = new Uint8Array(bytes.length);
  for (let i = bytes.length - 1; i >= 0; i--) {
    result[i] = Number(value & 0xffn);
    value >>= 8n;
  }
  return result;
}

/** A block of addresses: a network address and how many of its bits are fixed. Immutable. */
export class Cidr {
  private constructor(readonly network: Ip, readonly prefix: number) {}

  /** The block written in `text`, or null: see {@linkcode cidrProblem} for the reason. */
  static parse(text: string): Cidr | null {
    const read = Cidr.#read(text);
    return typeof read === "string" ? null : read;
  }

  /**
   * The block of prefix length `prefix` that `ip` lies in.
   * @throws RangeError when there is no such prefix length.
   */
  static containing(ip: Ip, prefix: number): Cidr {
    const bits = ip.bytes.length * 8;
    if (!Number.isInteger(prefix) || prefix < 0 || prefix > bits) {
      throw new RangeError(`an IPv${ip.version} prefix length is 0 to ${bits}, not ${prefix}`);
    }
    return new Cidr(Ip.fromBytes(clearHostBits(ip.bytes, prefix)), prefix);
  }

  /** The smallest reason why `text` is not a block, or null when it is one. */
  static problem(text: string): string | null {
    const read = Cidr.#read(text);
    return typeof read === "string" ? read : null;
  }

  static #read(text: string): Cidr | string {
    const slash = text.indexOf("/");
    if (slash < 0) return "it has no prefix length, such as /24";
    const ip = Ip.parse(text.slice(0, slash));
    if (ip === null) return `'${text.slice(0, slash)}' is not an IP address`;
    const digits = text.slice(slash + 1);
    const bits = ip.bytes.length * 8;
    if (!PREFIX.test(digits) || Number(digits) > bits) {
      return `its prefix length must be a number from 0 to ${bits}`;
    }
    const prefix = Number(digits);
    const network = Ip.fromBytes(clearHostBits(ip.bytes, prefix));
    // An address with host bits is often a typing mistake, and its meaning is a guess.
    if (!network.equals(ip)) return `it has host bits set; the block is ${network.text}/${prefix}`;
    return new Cidr(network, prefix);
  }

  /** The bits that are fixed, such as 255.255.255.0 for a /24. */
  get mask(): Ip {
    const all = new Uint8Array(this.network.bytes.length).fill(0xff);
    return Ip.fromBytes(clearHostBits(all, this.prefix));
  }

  /** The other bits, such as 0.0.0.255 for a /24. */
  get hostMask(): Ip {
    return Ip.fromBytes(this.mask.bytes.map((byte) => ~byte));
  }

  /** The last address: of an IPv4 network, its broadcast address. */
  get last(): Ip {
    const host = this.hostMask.bytes;
    return Ip.fromBytes(this.network.bytes.map((byte, i) => byte | (host[i] ?? 0)));
  }

  /** Whether `ip` lies in the block. An address of the other version never does. */
  contains(ip: Ip): boolean {
    return ip.version === this.network.version &&
      samePrefix(ip.bytes, this.network.bytes, this.prefix);
  }

  /** Whether the blocks share an address. */
  overlaps(other: Cidr): boolean {
    return other.network.version === this.network.version &&
      samePrefix(other.network.bytes, this.network.bytes, Math.min(this.prefix, other.prefix));
  }

  /** Whether every address of this block lies in `outer`. */
  within(outer: Cidr): boolean {
    return this.prefix >= outer.prefix && outer.contains(this.network);
  }

  /** How many blocks of the longer prefix `prefix` fit, as in 256 for the /24s of a /16. */
  subnetCount(prefix: number): bigint {
    return prefix < this.prefix ? 0n : 1n << BigInt(prefix - this.prefix);
  }

  /**
   * The block number `index` (from 0, lowest address first) of prefix length `prefix` in this one.
   * @throws RangeError when there is no such block.
   */
  subnet(prefix: number, index: bigint): Cidr {
    const bits = this.network.bytes.length * 8;
    if (prefix > bits || index < 0n || index >= this.subnetCount(prefix)) {
      throw new RangeError(`${this.toString()} has no /${prefix} number ${index}`);
    }
    const offset = index << BigInt(bits - prefix);
    return new Cidr(Ip.fromBytes(addOffset(this.network.bytes, offset)), prefix);
  }

  /** All blocks of prefix length `prefix` in this one, lowest address first. */
  *subnets(prefix: number): Generator<Cidr, void> {
    const count = this.subnetCount(prefix);
    for (let index = 0n; index < count; index++) yield this.subnet(prefix, index);
  }

  /**
   * The address number `index` of the block; 0 is the network address, 1 the usual gateway.
   * @throws RangeError when the block is smaller.
   */
  address(index: bigint): Ip {
    return this.subnet(this.network.bytes.length * 8, index).network;
  }

  /** Such as `10.200.0.0/24`. */
  toString(): string {
    return `${this.network.text}/${this.prefix}`;
  }
}
