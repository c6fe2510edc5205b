/**
 * SVCB and HTTPS records (RFC 9460): they carry addresses beside A and AAAA, and the key for an
 * encrypted ClientHello, so they have to be read, and rewritten, parameter by parameter.
 */
import { Ip } from "../net/ip.ts";
import { readName } from "./name.ts";

/** Parameter keys that matter here (RFC 9460 §14.3.2). */
const Key = { MANDATORY: 0, IPV4HINT: 4, ECH: 5, IPV6HINT: 6 } as const;

interface Param {
  readonly key: number;
  readonly value: Uint8Array;
}

interface ServiceBinding {
  /** Priority and target name, as they stand. */
  readonly head: Uint8Array;
  readonly params: readonly Param[];
}

/** Reads a record's data; null when it breaks RFC 9460 §2.2. */
function parse(data: Uint8Array): ServiceBinding | null {
  const target = readName(data, 2);
  if (target === null) return null;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const params: Param[] = [];
  let at = target.end;
  let last = -1;
  while (at < data.length) {
    if (at + 4 > data.length) return null;
    const key = view.getUint16(at);
    const end = at + 4 + view.getUint16(at + 2);
    // Keys come in strictly increasing order, so none comes twice.
    if (key <= last || end > data.length) return null;
    params.push({ key, value: data.subarray(at + 4, end) });
    last = key;
    at = end;
  }
  return { head: data.subarray(0, target.end), params };
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** The values of a list parameter that `keep` admits; null when the list is cut off or empty. */
function filterList(
  value: Uint8Array,
  itemBytes: number,
  keep: (item: Uint8Array) => boolean,
): Uint8Array | null {
  if (value.length === 0 || value.length % itemBytes !== 0) return null;
  const kept: Uint8Array[] = [];
  for (let at = 0; at < value.length; at += itemBytes) {
    const item = value.subarray(at, at + itemBytes);
    if (keep(item)) kept.push(item);
  }
  return concat(kept);
}

/** What is left of a record. */
export interface FilteredBinding {
  readonly data: Uint8Array;
  /** Something was taken away: signatures over the record no longer hold. */
  readonly changed: boolean;
}

/**
 * Takes `ech` and every hinted address that `admits` refuses out of an SVCB or HTTPS record.
 *
 * ECH would hide the server name that the proxy compares (decision D24). A parameter that is gone is
 * also taken off the `mandatory` list: a client has to reject a record that lacks what it demands.
 * @returns null when the record is malformed; it must not be passed on then.
 */
export function filterServiceBinding(
  data: Uint8Array,
  admits: (address: Ip) => boolean,
): FilteredBinding | null {
  const binding = parse(data);
  if (binding === null) return null;
  const gone = new Set<number>();
  const kept: Param[] = [];
  for (const param of binding.params) {
    if (param.key === Key.ECH) {
      gone.add(param.key);
    } else if (param.key === Key.IPV4HINT || param.key === Key.IPV6HINT) {
      const bytes = param.key === Key.IPV4HINT ? 4 : 16;
      const value = filterList(param.value, bytes, (item) => admits(Ip.fromBytes(item)));
      if (value === null) return null;
      if (value.length === 0) gone.add(param.key);
      else kept.push({ key: param.key, value });
    } else {
      kept.push(param);
    }
  }
  const params: Param[] = [];
  for (const param of kept) {
    if (param.key !== Key.MANDATORY) {
      params.push(param);
      continue;
    }
    const value = filterList(param.value, 2, (item) => !gone.has(key16(item)));
    if (value === null) return null;
    if (value.length > 0) params.push({ key: param.key, value });
  }
  const result = concat([
    binding.head,
    ...params.flatMap(({ key, value }) => [
      Uint8Array.of(key >> 8, key & 0xff, value.length >> 8, value.length & 0xff),
      value,
    ]),
  ]);
  return { data: result, changed: result.length !== data.length };
}

function key16(item: Uint8Array): number {
  return (item[0] ?? 0) << 8 | (item[1] ?? 0);
}
