/**
 * What of an upstream's reply may be passed on: the records that answer the question, nothing that
 * came along with them, and no address that the policy does not admit.
 */
import { Ip } from "../net/ip.ts";
import { Rcode, RecordType } from "./codes.ts";
import type { Question, ResourceRecord, Response } from "./message.ts";
import { isWithin, readName, type WireName } from "./name.ts";
import { filterServiceBinding } from "./svcb.ts";

/** No TTL is longer than this, in the cache or in an answer (S007-FR-017). */
const MAX_TTL_SECS = 300;

/** Real chains have three or four links; a chain without end must not make an answer without end. */
const MAX_CHAIN_LINKS = 16;

/**
 * Records of one name and type. Real sets have some dozens; thousands fit into a reply, and each of
 * them would cost time with every query of an agent that made them up.
 */
const MAX_SET_RECORDS = 256;

/** An upstream's reply, rebuilt from what answers the question. Addresses are not filtered yet. */
export interface Answer {
  readonly rcode: typeof Rcode.NOERROR | typeof Rcode.NXDOMAIN;
  /** The CNAMEs from the queried name on, in order, then the records of the asked type at its end. */
  readonly answers: readonly ResourceRecord[];
  /** The names the chain leads to, in order; empty without CNAMEs. */
  readonly aliases: readonly WireName[];
  /** A negative answer's SOA, with the TTL that RFC 2308 §5 gives it, and its DNSSEC proof. */
  readonly authority: readonly ResourceRecord[];
  /** How long the answer may be kept, at most {@linkcode MAX_TTL_SECS}; 0 for not at all. */
  readonly lifetimeSecs: number;
}

/** The type a record belongs to: for an RRSIG record the one it signs (RFC 4034 §3.1.1). */
export function signedType({ type, data }: ResourceRecord): number {
  return type === RecordType.RRSIG ? (data[0] ?? 0) << 8 | (data[1] ?? 0) : type;
}

function clampTtl(record: ResourceRecord, most: number = MAX_TTL_SECS): ResourceRecord {
  return record.ttlSecs > most ? { ...record, ttlSecs: most } : record;
}

/** The records of one type at one name, with their signatures when those are wanted. */
function recordSet(
  records: readonly ResourceRecord[],
  name: WireName,
  type: number,
  dnssecOk: boolean,
): ResourceRecord[] {
  return records.filter((record) =>
    record.name === name && signedType(record) === type &&
    (dnssecOk || record.type !== RecordType.RRSIG)
  );
}

/** The last field of an SOA record: how long a negative answer holds (RFC 2308 §4). */
function soaMinimumSecs(soa: ResourceRecord): number {
  const { buffer, byteOffset, length } = soa.data;
  return new DataView(buffer, byteOffset, length).getUint32(length - 4);
}

/** The authority section that belongs to a negative answer for `name`. */
function negativeAuthority(
  response: Response,
  name: WireName,
  dnssecOk: boolean,
): ResourceRecord[] {
  const soa = response.authority.find((record) =>
    record.type === RecordType.SOA && isWithin(name, record.name)
  );
  if (soa === undefined) return [];
  const authority = [clampTtl(soa, Math.min(soaMinimumSecs(soa), MAX_TTL_SECS))];
  if (!dnssecOk) return authority;
  for (const record of response.authority) {
    const proves = record.type === RecordType.NSEC || record.type === RecordType.NSEC3 ||
      record.type === RecordType.RRSIG;
    if (proves && isWithin(record.name, soa.name)) authority.push(clampTtl(record));
  }
  return authority;
}

function leastTtlSecs(records: readonly ResourceRecord[]): number {
  return records.reduce((least, record) => Math.min(least, record.ttlSecs), MAX_TTL_SECS);
}

/**
 * Rebuilds the answer to `question` from an upstream's reply.
 * @returns null when the reply answers nothing: neither NOERROR nor NXDOMAIN, a CNAME loop, or more
 * records than anybody means.
 */
export function rebuildAnswer(
  question: Question,
  response: Response,
  dnssecOk: boolean,
): Answer | null {
  const { rcode } = response;
  if (rcode !== Rcode.NOERROR && rcode !== Rcode.NXDOMAIN) return null;
  const answers: ResourceRecord[] = [];
  const aliases: WireName[] = [];
  const seen = new Set<WireName>([question.name]);
  let name = question.name;
  while (question.type !== RecordType.CNAME) {
    const links = recordSet(response.answers, name, RecordType.CNAME, dnssecOk);
    // A second CNAME at one name is a contradiction (RFC 2181 §10.1): the first one counts.
    const cname = links.find((record) => record.type === RecordType.CNAME);
    if (cname === undefined) break;
    const target = readName(cname.data, 0)?.name;
    if (target === undefined || seen.has(target) || aliases.length === MAX_CHAIN_LINKS) return null;
    const signatures = links.filter((record) => record.type === RecordType.RRSIG);
    answers.push(clampTtl(cname), ...signatures.map((record) => clampTtl(record)));
    aliases.push(target);
    seen.add(target);
    name = target;
  }
  const found = rcode === Rcode.NOERROR
    ? recordSet(response.answers, name, question.type, dnssecOk).map((record) => clampTtl(record))
    : [];
  if (found.length > MAX_SET_RECORDS) return null;
  if (found.some((record) => record.type === question.type)) {
    answers.push(...found);
    return { rcode, answers, aliases, authority: [], lifetimeSecs: leastTtlSecs(answers) };
  }
  const authority = negativeAuthority(response, name, dnssecOk);
  // Without an SOA nobody said for how long there is nothing (RFC 2308 §5).
  const lifetimeSecs = authority.length === 0 ? 0 : leastTtlSecs([...answers, ...authority]);
  return { rcode, answers, aliases, authority, lifetimeSecs };
}

/** An answer's records after the address policy. */
export interface AdmittedRecords {
  readonly records: readonly ResourceRecord[];
  /** Addresses of A and AAAA records that were taken out. */
  readonly addressesRemoved: number;
}

/**
 * Takes out every address that `admits` refuses: A and AAAA records, and the hints of SVCB and HTTPS
 * records, whose `ech` goes as well. Signatures over what was changed are taken out too, since they
 * could only fail.
 */
export function admitRecords(
  records: readonly ResourceRecord[],
  admits: (address: Ip) => boolean,
): AdmittedRecords {
  const kept: ResourceRecord[] = [];
  const changed = new Set<number>();
  let addressesRemoved = 0;
  for (const record of records) {
    switch (record.type) {
      case RecordType.A:
      case RecordType.AAAA:
        if (admits(Ip.fromBytes(record.data))) {
          kept.push(record);
        } else {
          addressesRemoved++;
          changed.add(record.type);
        }
        break;
      case RecordType.SVCB:
      case RecordType.HTTPS: {
        const binding = filterServiceBinding(record.data, admits);
        if (binding !== null) kept.push({ ...record, data: binding.data });
        if (binding === null || binding.changed) changed.add(record.type);
        break;
      }
      default:
        kept.push(record);
    }
  }
  const intact = kept.filter((record) =>
    record.type !== RecordType.RRSIG || !changed.has(signedType(record))
  );
  return { records: changed.size === 0 ? kept : intact, addressesRemoved };
}
