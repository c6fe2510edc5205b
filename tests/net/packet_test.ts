import { deepEqual, equal, ok } from "node:assert/strict";
import fc from "fast-check";
import { Ip } from "../../lib/net/ip.ts";
import {
  ETHER_ARP,
  ETHER_IPV4,
  ETHER_IPV6,
  isIpv6Housekeeping,
  parsePacket,
} from "../../lib/net/packet.ts";
import { SEED } from "../random.ts";

interface Ipv4Parts {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly protocol: number;
  readonly options: number;
  readonly fragmentOffset: number;
  readonly payload: Uint8Array;
}

function ipv4(parts: Ipv4Parts): Uint8Array {
  const headerBytes = 20 + parts.options * 4;
  const bytes = new Uint8Array(headerBytes + parts.payload.length);
  const view = new DataView(bytes.buffer);
  bytes[0] = 0x40 | (headerBytes / 4);
  view.setUint16(2, bytes.length);
  view.setUint16(6, parts.fragmentOffset);
  bytes[9] = parts.protocol;
  bytes.set(parts.source, 12);
  bytes.set(parts.destination, 16);
  bytes.set(parts.payload, headerBytes);
  return bytes;
}

const address = fc.uint8Array({ minLength: 4, maxLength: 4 });
const parts = fc.record({
  source: address,
  destination: address,
  protocol: fc.constantFrom(1, 2, 6, 17, 47, 132, 255),
  options: fc.integer({ min: 0, max: 10 }),
  fragmentOffset: fc.constantFrom(0, 0, 1, 100),
  payload: fc.uint8Array({ maxLength: 40 }),
});
const NAMES = new Map([[1, "icmp"], [6, "tcp"], [17, "udp"], [132, "sctp"]]);

Deno.test("an IPv4 packet's addresses, protocol and port are read behind any options", () => {
  fc.assert(
    fc.property(parts, (written) => {
      const read = parsePacket(ETHER_IPV4, ipv4(written));
      ok(read !== null);
      deepEqual(read.source.bytes, written.source);
      deepEqual(read.destination.bytes, written.destination);
      equal(read.protocol, NAMES.get(written.protocol) ?? `${written.protocol}`);
      const hasPort = [6, 17, 132].includes(written.protocol) && written.payload.length >= 4 &&
        written.fragmentOffset === 0;
      const [, , high = 0, low = 0] = written.payload;
      equal(read.port, hasPort ? high * 256 + low : undefined);
    }),
    { seed: SEED },
  );
});

Deno.test("the port is not taken from a frame's padding behind the packet's own end", () => {
  const packet = ipv4({
    source: new Uint8Array(4),
    destination: new Uint8Array(4),
    protocol: 6,
    options: 0,
    fragmentOffset: 0,
    payload: new Uint8Array([1, 2, 3, 4]),
  });
  packet[3] = 22; // the total length says that two bytes follow the header
  deepEqual(Object.keys(parsePacket(ETHER_IPV4, packet) ?? {}), [
    "source",
    "destination",
    "protocol",
  ]);
});

Deno.test("what is cut off, or says what cannot be, is refused", () => {
  const good = ipv4({
    source: new Uint8Array(4),
    destination: new Uint8Array(4),
    protocol: 6,
    options: 1,
    fragmentOffset: 0,
    payload: new Uint8Array(8),
  });
  const changed = (at: number, value: number): Uint8Array => {
    const bytes = good.slice();
    bytes[at] = value;
    return bytes;
  };
  const bad: readonly Uint8Array[] = [
    new Uint8Array(),
    good.subarray(0, 19),
    good.subarray(0, 23),
    changed(0, 0x66),
    changed(0, 0x44),
    changed(0, 0x4f),
    changed(3, 20),
  ];
  for (const bytes of bad) equal(parsePacket(ETHER_IPV4, bytes), null);
  equal(parsePacket(ETHER_IPV6, new Uint8Array(40)), null);
  equal(parsePacket(ETHER_IPV6, new Uint8Array(39).fill(0x60)), null);
  equal(parsePacket(ETHER_ARP, new Uint8Array(28)), null);
  equal(parsePacket(0x88cc, good), null);
});

function ipv6(nextHeader: number, destination: string, payload: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(40 + payload.length);
  bytes[0] = 0x60;
  new DataView(bytes.buffer).setUint16(4, payload.length);
  bytes[6] = nextHeader;
  bytes.set(Ip.parse("fe80::1")?.bytes ?? [], 8);
  bytes.set(Ip.parse(destination)?.bytes ?? [], 24);
  bytes.set(payload, 40);
  return bytes;
}

Deno.test("IPv6 is read, and what every machine sends by itself is told from attempts", () => {
  /** Hop-by-hop options with a router alert (RFC 2711), before ICMPv6. */
  const options = [58, 0, 5, 2, 0, 0, 1, 0];
  const rows: readonly [Uint8Array, string, boolean][] = [
    [ipv6(58, "ff02::2", [133, 0, 0, 0]), "icmpv6", true],
    [ipv6(0, "ff02::16", [...options, 143, 0, 0, 0]), "icmpv6", true],
    [ipv6(58, "ff02::1", [128, 0, 0, 0]), "icmpv6", false],
    [ipv6(58, "2a00::1", [135, 0, 0, 0]), "icmpv6", false],
    [ipv6(58, "ff05::1", [143, 0, 0, 0]), "icmpv6", false],
    [ipv6(17, "ff02::fb", [0, 1, 0x14, 0xe9]), "udp", false],
    [ipv6(44, "2a00::1", [58, 0, 0, 0]), "44", false],
    [ipv6(0, "ff02::16", [58, 9, 0, 0]), "0", false],
  ];
  for (const [bytes, protocol, isHousekeeping] of rows) {
    const read = parsePacket(ETHER_IPV6, bytes);
    ok(read !== null);
    deepEqual([read.protocol, isIpv6Housekeeping(read)], [protocol, isHousekeeping]);
  }
  equal(parsePacket(ETHER_IPV6, ipv6(17, "ff02::fb", [0, 1, 0x14, 0xe9]))?.port, 5353);
});

Deno.test("an ARP question tells who asks and for whom", () => {
  const bytes = new Uint8Array(46);
  bytes.set([0, 1, 8, 0, 6, 4, 0, 1]);
  bytes.set([10, 200, 0, 2], 14);
  bytes.set([10, 200, 0, 3], 24);
  const read = parsePacket(ETHER_ARP, bytes);
  deepEqual(
    [read?.source.text, read?.destination.text, read?.protocol],
    ["10.200.0.2", "10.200.0.3", "arp"],
  );
});

Deno.test("no bytes at all make the reading of packets throw, or tell what they do not hold", () => {
  const etherType = fc.constantFrom(ETHER_IPV4, ETHER_IPV6, ETHER_ARP, 0x8100, 0);
  const version = fc.constantFrom(0x45, 0x4f, 0x60, 0x00);
  fc.assert(
    fc.property(etherType, version, fc.uint8Array({ maxLength: 128 }), (type, first, bytes) => {
      if (bytes.length > 0) bytes[0] = first;
      const read = parsePacket(type, bytes);
      if (read === null) return;
      ok(read.port === undefined || (read.port >= 0 && read.port <= 0xffff));
      const size = type === ETHER_IPV6 ? 16 : 4;
      deepEqual([read.source.bytes.length, read.destination.bytes.length], [size, size]);
    }),
    { seed: SEED, numRuns: 5000 },
  );
});
