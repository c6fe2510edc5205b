/** TTLs in messages that are encoded already: a kept reply is aged instead of being built anew. */
import { HEADER_BYTES, RecordType } from "./codes.ts";

/** Bytes of type, class, TTL and length, which follow a record's name (RFC 1035 §4.1.3). */
const RECORD_HEAD_BYTES = 10;
const TTL_AT = 4;
const DATA_LENGTH_AT = 8;

/** The offset behind the name at `at`: a pointer ends it, and so does the root (RFC 1035 §4.1.4). */
function behindName(message: Uint8Array, at: number): number {
  for (;;) {
    const length = message[at] ?? 0;
    if (length >= 0xc0) return at + 2;
    at += 1 + length;
    if (length === 0) return at;
  }
}

/** Where the TTLs of a well-formed message stand. That field means something else in OPT. */
export function ttlOffsets(message: Uint8Array): readonly number[] {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  const count = (at: number): number => view.getUint16(at);
  let at = HEADER_BYTES;
  for (let question = 0; question < count(4); question++) at = behindName(message, at) + 4;
  const offsets: number[] = [];
  for (let record = 0; record < count(6) + count(8) + count(10); record++) {
    const head = behindName(message, at);
    if (view.getUint16(head) !== RecordType.OPT) offsets.push(head + TTL_AT);
    at = head + RECORD_HEAD_BYTES + view.getUint16(head + DATA_LENGTH_AT);
  }
  return offsets;
}

/** Takes `secs` off the TTLs at `offsets`; none falls below 0. */
export function ageTtls(message: Uint8Array, offsets: readonly number[], secs: number): void {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  for (const at of offsets) view.setUint32(at, Math.max(0, view.getUint32(at) - secs));
}
