/**
 * Addresses that no allowed name may resolve to unless its rule says so (decision D23): a hostile
 * DNS server must not turn a public name into a way to the host, its network or its cloud.
 */
import { Cidr } from "./cidr.ts";
import { Ip } from "./ip.ts";

/** Kinds of restricted addresses. */
export type RestrictedRange =
  | "metadata"
  | "unspecified"
  | "loopback"
  | "private"
  | "link-local"
  | "cgnat"
  | "documentation"
  | "benchmarking"
  | "multicast"
  | "broadcast"
  | "transition"
  | "reserved";

interface Entry {
  readonly block: Cidr;
  readonly name: RestrictedRange;
}

function table(rows: readonly (readonly [string, RestrictedRange])[]): readonly Entry[] {
  return rows.map(([text, name]) => {
    const block = Cidr.parse(text);
    if (block === null) throw new TypeError(`not a block: ${text}`);
    return { block, name };
  });
}

/** IANA special-purpose registries (RFC 6890 and its updates); the first match names the range. */
const IPV4 = table([
  // Where clouds serve credentials to whoever asks.
  ["169.254.169.254/32", "metadata"],
  ["169.254.170.2/32", "metadata"], // task credentials of AWS ECS
  ["100.100.100.200/32", "metadata"], // Alibaba
  ["192.0.0.192/32", "metadata"], // Oracle
  ["168.63.129.16/32", "metadata"], // Azure; a public address that never leaves the virtual host
  ["0.0.0.0/8", "unspecified"],
  ["10.0.0.0/8", "private"],
  ["100.64.0.0/10", "cgnat"],
  ["127.0.0.0/8", "loopback"],
  ["169.254.0.0/16", "link-local"],
  ["172.16.0.0/12", "private"],
  ["192.0.2.0/24", "documentation"],
  ["192.88.99.0/24", "transition"], // 6to4 relays, withdrawn (RFC 7526)
  ["192.168.0.0/16", "private"],
  ["198.18.0.0/15", "benchmarking"],
  ["198.51.100.0/24", "documentation"],
  ["203.0.113.0/24", "documentation"],
  ["224.0.0.0/4", "multicast"],
  ["255.255.255.255/32", "broadcast"],
  ["240.0.0.0/4", "reserved"],
]);

/** IETF protocol assignments; two addresses of it are anycast services of the public internet. */
const IPV4_PROTOCOL_BLOCK = table([["192.0.0.0/24", "reserved"]]);
const IPV4_PUBLIC_ANYCAST = new Set(["192.0.0.9", "192.0.0.10"]);

const IPV6 = table([
  ["fd00:ec2::254/128", "metadata"], // AWS
  ["fd20:ce::254/128", "metadata"], // Google Cloud
  ["::/128", "unspecified"],
  ["::1/128", "loopback"],
  ["64:ff9b:1::/48", "transition"], // NAT64 for local use (RFC 8215): what it reaches is private
  ["100::/64", "reserved"], // discard only (RFC 6666)
  ["2001::/32", "transition"], // Teredo, whose servers decide where packets go
  ["2001:2::/48", "benchmarking"],
  ["2001:10::/28", "reserved"], // ORCHID
  ["2001:20::/28", "reserved"], // ORCHIDv2
  ["2001:db8::/32", "documentation"],
  ["3fff::/20", "documentation"],
  ["fc00::/7", "private"],
  ["fe80::/10", "link-local"],
  ["fec0::/10", "private"], // site-local, deprecated but still routed by some
  ["ff00::/8", "multicast"],
]);

/** IPv6 blocks that carry an IPv4 address which is what will be reached, and where it stands. */
const EMBEDDING: readonly { readonly block: Cidr; readonly offsetBytes: number }[] = [
  ...table([["::ffff:0:0/96", "transition"]]).map(({ block }) => ({ block, offsetBytes: 12 })),
  ...table([["::ffff:0:0:0/96", "transition"]]).map(({ block }) => ({ block, offsetBytes: 12 })),
  ...table([["::/96", "transition"]]).map(({ block }) => ({ block, offsetBytes: 12 })),
  ...table([["64:ff9b::/96", "transition"]]).map(({ block }) => ({ block, offsetBytes: 12 })),
  ...table([["2002::/16", "transition"]]).map(({ block }) => ({ block, offsetBytes: 2 })),
];

/** The only part of IPv6 that is assigned to the public internet (RFC 4291 §2.4). */
const GLOBAL_UNICAST = table([["2000::/3", "reserved"]]);

function match(entries: readonly Entry[], ip: Ip): RestrictedRange | null {
  return entries.find(({ block }) => block.contains(ip))?.name ?? null;
}

function restrictedIpv4(ip: Ip): RestrictedRange | null {
  const name = match(IPV4, ip);
  if (name !== null) return name;
  return IPV4_PUBLIC_ANYCAST.has(ip.text) ? null : match(IPV4_PROTOCOL_BLOCK, ip);
}

/**
 * The name of the restricted range that `ip` lies in, or null when it is a public address.
 * An IPv6 address that embeds an IPv4 address (mapped, compatible, translated, NAT64, 6to4) is
 * judged by the embedded one.
 */
export function restrictedRange(ip: Ip): RestrictedRange | null {
  if (ip.version === 4) return restrictedIpv4(ip);
  const name = match(IPV6, ip);
  if (name !== null) return name;
  const embedding = EMBEDDING.find(({ block }) => block.contains(ip));
  if (embedding !== undefined) {
    const { offsetBytes } = embedding;
    return restrictedIpv4(Ip.fromBytes(ip.bytes.slice(offsetBytes, offsetBytes + 4)));
  }
  return match(GLOBAL_UNICAST, ip) === null ? "reserved" : null;
}
