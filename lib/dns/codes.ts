/** Numbers of the DNS protocol that this filter knows by name (IANA "DNS Parameters"). */

/** Record types (RFC 1035, 3596, 2782, 4034, 5155, 6891, 9460 …), by mnemonic. */
export const RecordType = {
  A: 1,
  NS: 2,
  MD: 3,
  MF: 4,
  CNAME: 5,
  SOA: 6,
  MB: 7,
  MG: 8,
  MR: 9,
  NULL: 10,
  WKS: 11,
  PTR: 12,
  HINFO: 13,
  MINFO: 14,
  MX: 15,
  TXT: 16,
  RP: 17,
  AFSDB: 18,
  RT: 21,
  PX: 26,
  AAAA: 28,
  LOC: 29,
  SRV: 33,
  NAPTR: 35,
  KX: 36,
  CERT: 37,
  DNAME: 39,
  OPT: 41,
  APL: 42,
  DS: 43,
  SSHFP: 44,
  RRSIG: 46,
  NSEC: 47,
  DNSKEY: 48,
  NSEC3: 50,
  NSEC3PARAM: 51,
  TLSA: 52,
  SMIMEA: 53,
  CDS: 59,
  CDNSKEY: 60,
  OPENPGPKEY: 61,
  SVCB: 64,
  HTTPS: 65,
  SPF: 99,
  ANY: 255,
  URI: 256,
  CAA: 257,
} as const;

const NUMBERS = new Map<string, number>(Object.entries(RecordType));
const NAMES = new Map([...NUMBERS].map(([name, number]) => [number, name]));

/** The mnemonic rules compare with (`dns.record_type`); `TYPE<n>` where there is none (RFC 3597 §5). */
export function typeName(type: number): string {
  return NAMES.get(type) ?? `TYPE${type}`;
}

/** The type that {@linkcode typeName} gives this name; null: none has it. */
export function typeNumber(name: string): number | null {
  const number = /^TYPE([0-9]{1,5})$/.exec(name)?.[1];
  if (number !== undefined && Number(number) <= 65_535) return Number(number);
  return NUMBERS.get(name) ?? null;
}

/** Class of the internet: the only one that is answered. */
export const CLASS_IN = 1;

/** Response codes (RFC 1035 §4.1.1, RFC 6891 §9). */
export const Rcode = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  BADVERS: 16,
} as const;

/** One of {@linkcode Rcode}. */
export type Rcode = typeof Rcode[keyof typeof Rcode];

/** Extended DNS Error codes (RFC 8914 §4). */
export const ExtendedError = {
  BLOCKED: 15,
  PROHIBITED: 18,
  NO_REACHABLE_AUTHORITY: 22,
} as const;

/** Bytes of the fixed message header (RFC 1035 §4.1.1). */
export const HEADER_BYTES = 12;

/**
 * The largest UDP payload we announce and send: fits the 1280-byte minimum MTU of IPv6 with its
 * headers, so that no answer depends on fragments, which can be forged (DNS flag day 2020).
 */
export const UDP_PAYLOAD_BYTES = 1232;

/** The largest UDP payload of a client that does not speak EDNS (RFC 1035 §2.3.4). */
export const PLAIN_UDP_PAYLOAD_BYTES = 512;

/** The largest message: TCP's length prefix has 16 bits (RFC 1035 §4.2.2). */
export const MAX_MESSAGE_BYTES = 65_535;
