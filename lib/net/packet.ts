/**
 * Where a packet was going: the little that a record tells of it, read from its first bytes. They
 * are the sender's own, so nothing in them is believed to be more than a claim.
 */
import { Ip } from "./ip.ts";

/** What the head of a packet says. */
export interface PacketHead {
  /** Sender's address as the packet has it. */
  readonly source: Ip;
  readonly destination: Ip;
  /** `tcp`, `udp`, `icmp`, `icmpv6`, `arp`, or the protocol's number. */
  readonly protocol: string;
  /** Destination port; absent for protocols without ports, and for later fragments. */
  readonly port?: number;
  /** Of ICMP for IPv6: its type. */
  readonly icmpType?: number;
}

/** Ethertypes (IEEE 802 numbers). */
export const ETHER_IPV4 = 0x0800;
/** @see {@linkcode ETHER_IPV4} */
export const ETHER_ARP = 0x0806;
/** @see {@linkcode ETHER_IPV4} */
export const ETHER_IPV6 = 0x86dd;

// IANA's protocol numbers.
const HOP_BY_HOP = 0;
const ICMP = 1;
const TCP = 6;
const UDP = 17;
const ICMPV6 = 58;
const SCTP = 132;
const NAMES: Readonly<Record<number, string>> = {
  [ICMP]: "icmp",
  [TCP]: "tcp",
  [UDP]: "udp",
  [ICMPV6]: "icmpv6",
  [SCTP]: "sctp",
};
const WITH_PORTS: readonly number[] = [TCP, UDP, SCTP];

const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;
/** RFC 826 for Ethernet and IPv4. */
const ARP_BYTES = 28;
const ARP_ETHERNET_IPV4 = [0, 1, 0x08, 0x00, 6, 4];

function u16(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset] ?? 0) << 8) | (bytes[offset + 1] ?? 0);
}

/** The destination port of what follows the network header, where it has one and it was copied. */
function portOf(protocol: number, rest: Uint8Array): { port?: number } {
  return WITH_PORTS.includes(protocol) && rest.length >= 4 ? { port: u16(rest, 2) } : {};
}

/** RFC 791 §3.1. */
function parseIpv4(bytes: Uint8Array): PacketHead | null {
  const first = bytes[0] ?? 0;
  const headerBytes = (first & 0xf) * 4;
  if (first >> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES || bytes.length < headerBytes) {
    return null;
  }
  const totalBytes = u16(bytes, 2);
  if (totalBytes < headerBytes) return null;
  const number = bytes[9] ?? 0;
  const isFirstFragment = (u16(bytes, 6) & 0x1fff) === 0;
  // What is behind the packet's own end is padding of the frame.
  const rest = bytes.subarray(headerBytes, Math.min(bytes.length, totalBytes));
  return {
    source: Ip.fromBytes(bytes.subarray(12, 16)),
    destination: Ip.fromBytes(bytes.subarray(16, 20)),
    protocol: NAMES[number] ?? `${number}`,
    ...isFirstFragment ? portOf(number, rest) : {},
  };
}

/**
 * RFC 8200 §3. One extension header is followed, the hop-by-hop options, because membership reports
 * carry it (RFC 3810 §5); of any other its number is what is told.
 */
function parseIpv6(bytes: Uint8Array): PacketHead | null {
  if ((bytes[0] ?? 0) >> 4 !== 6 || bytes.length < IPV6_HEADER_BYTES) return null;
  let number = bytes[6] ?? 0;
  let rest = bytes.subarray(
    IPV6_HEADER_BYTES,
    Math.min(bytes.length, IPV6_HEADER_BYTES + u16(bytes, 4)),
  );
  const optionsBytes = ((rest[1] ?? 0) + 1) * 8;
  if (number === HOP_BY_HOP && rest.length >= optionsBytes) {
    number = rest[0] ?? 0;
    rest = rest.subarray(optionsBytes);
  }
  const icmpType = number === ICMPV6 ? rest[0] : undefined;
  return {
    source: Ip.fromBytes(bytes.subarray(8, 24)),
    destination: Ip.fromBytes(bytes.subarray(24, 40)),
    protocol: NAMES[number] ?? `${number}`,
    ...portOf(number, rest),
    ...icmpType === undefined ? {} : { icmpType },
  };
}

/** RFC 826: sender and target are the protocol addresses. */
function parseArp(bytes: Uint8Array): PacketHead | null {
  if (bytes.length < ARP_BYTES || !ARP_ETHERNET_IPV4.every((byte, i) => bytes[i] === byte)) {
    return null;
  }
  return {
    source: Ip.fromBytes(bytes.subarray(14, 18)),
    destination: Ip.fromBytes(bytes.subarray(24, 28)),
    protocol: "arp",
  };
}

/**
 * Reads a packet from its network header on; it may be cut off behind its ports.
 * @returns null for what is neither IP nor ARP for IPv4, or is malformed.
 */
export function parsePacket(etherType: number, bytes: Uint8Array): PacketHead | null {
  switch (etherType) {
    case ETHER_IPV4:
      return parseIpv4(bytes);
    case ETHER_IPV6:
      return parseIpv6(bytes);
    case ETHER_ARP:
      return parseArp(bytes);
    default:
      return null;
  }
}

/** ICMPv6 types 130–136 and 143: membership reports and neighbour discovery (RFC 4861, RFC 3810). */
const HOUSEKEEPING: readonly number[] = [130, 131, 132, 133, 134, 135, 136, 143];

/**
 * Whether this is what the kernel of every machine with IPv6 sends on a link when it comes up, to a
 * group on that link (RFC 4291 §2.7.1): nobody attempted anything.
 */
export function isIpv6Housekeeping({ destination, icmpType }: PacketHead): boolean {
  const [first, second] = destination.bytes;
  return icmpType !== undefined && HOUSEKEEPING.includes(icmpType) && first === 0xff &&
    second === 0x02;
}
