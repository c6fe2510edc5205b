/**
 * The lab's internet as data: who lives at which address. Addresses look public, because the
 * product refuses documentation ranges (decision D23); nothing here ever leaves the lab.
 */

/** The resolver that the host asks: authoritative for {@linkcode ZONE}, NXDOMAIN for the rest. */
export const UPSTREAM_RESOLVER = "9.9.9.9";

/** Resolvers that answer every question, with {@linkcode EXAMPLE_ADDRESS}: an agent's way around. */
export const HOSTILE_RESOLVERS: readonly string[] = ["1.1.1.1", "8.8.8.8"];

/** Where api.openai.com is. */
export const API_ADDRESS = "104.18.6.192";

/** Where example.com is. */
export const EXAMPLE_ADDRESS = "93.184.216.34";

/** Where a cloud keeps credentials for whoever asks (link-local, never to be reached). */
export const METADATA_ADDRESS = "169.254.169.254";

/** A private address that the host can reach and an agent must not. */
export const PRIVATE_ADDRESS = "192.168.77.7";

/** One record of the zone; `data` is an IPv4 address or, for a CNAME, a name. */
export interface ZoneRecord {
  readonly type: "A" | "CNAME";
  readonly data: string;
}

/** Every name there is. The TTL is {@linkcode ZONE_TTL_SECS}. */
export const ZONE: Readonly<Record<string, readonly ZoneRecord[]>> = {
  "api.openai.com": [{ type: "A", data: API_ADDRESS }],
  "github.com": [{ type: "A", data: "140.82.121.4" }],
  "www.github.com": [{ type: "CNAME", data: "github.com" }],
  "example.com": [{ type: "A", data: EXAMPLE_ADDRESS }],
  "example.org": [{ type: "A", data: "93.184.215.14" }],
  // Names whose owner points them inside (DNS rebinding).
  "metadata.attacker.net": [{ type: "A", data: METADATA_ADDRESS }],
  "inside.attacker.net": [{ type: "A", data: PRIVATE_ADDRESS }],
  "loopback.attacker.net": [{ type: "A", data: "127.0.0.1" }],
};

/** Lifetime of every record. */
export const ZONE_TTL_SECS = 60;

/** Ports that accept TCP and send back what they get, at every address. */
export const ECHO_TCP_PORTS: readonly number[] = [7, 22, 25, 853, 5432, 8443];

/** Ports that send back every datagram, at every address. */
export const ECHO_UDP_PORTS: readonly number[] = [7, 123, 443];

/** Every address of the internet, without those of its cables and those of loopback. */
export const ADDRESSES: readonly string[] = [
  ...new Set([
    UPSTREAM_RESOLVER,
    ...HOSTILE_RESOLVERS,
    ...Object.values(ZONE).flat()
      .filter((record) => record.type === "A" && !record.data.startsWith("127."))
      .map((record) => record.data),
  ]),
];
