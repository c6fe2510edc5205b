/**
 * Netlink messages (netlink(7), RFC 3549): encoding, and bounds-checked parsing.
 *
 * All integers are in host byte order, which is little-endian on every machine Deno runs on.
 */

// include/uapi/linux/netlink.h
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
/** Answer only when no such object exists yet. */
export const NLM_F_EXCL = 0x200;
/** Create the object. */
export const NLM_F_CREATE = 0x400;
const NLA_F_NESTED = 0x8000;
/** The two upper bits of an attribute's type are flags (nested, network byte order). */
const NLA_TYPE_MASK = 0x3fff;
const NLMSGERR_ATTR_MSG = 1;

/** struct nlmsghdr: length u32, type u16, flags u16, sequence u32, port id u32. */
const MESSAGE_HEADER_BYTES = 16;
/** struct nlattr: length u16, type u16. */
const ATTRIBUTE_HEADER_BYTES = 4;
const MAX_ATTRIBUTE_BYTES = 0xffff;

/** One netlink message without the bookkeeping of its header. */
export interface NetlinkMessage {
  /** Message type of the protocol, such as RTM_NEWLINK. */
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** Address of the netlink socket this message is an answer to. */
  readonly portId: number;
  /** Everything after the header: the protocol's own header and attributes. */
  readonly body: Uint8Array;
}

/** Bytes that are not well-formed netlink. */
export class NetlinkFormatError extends Error {
  override readonly name = "NetlinkFormatError";
}

/** Messages and attributes start on 4-byte boundaries. */
function align(bytes: number): number {
  return (bytes + 3) & ~3;
}

/** The bytes as numbers. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Joins byte strings. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

/** An unsigned 32-bit integer in host byte order. */
export function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value, true);
  return bytes;
}

/** Text with the terminating zero byte that the kernel expects. */
export function cString(text: string): Uint8Array {
  return concat(new TextEncoder().encode(text), new Uint8Array(1));
}

/** An attribute, padded to the boundary of the next one. */
export function attribute(type: number, value: Uint8Array): Uint8Array {
  const length = ATTRIBUTE_HEADER_BYTES + value.length;
  if (length > MAX_ATTRIBUTE_BYTES) {
    throw new RangeError(`a netlink attribute holds at most 65531 bytes, not ${value.length}`);
  }
  const bytes = new Uint8Array(align(length));
  const view = viewOf(bytes);
  view.setUint16(0, length, true);
  view.setUint16(2, type, true);
  bytes.set(value, ATTRIBUTE_HEADER_BYTES);
  return bytes;
}

/** An attribute that holds attributes. */
export function nested(type: number, ...children: readonly Uint8Array[]): Uint8Array {
  return attribute(type | NLA_F_NESTED, concat(...children));
}

/** A whole message with its header. */
export function encodeMessage(message: NetlinkMessage): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(align(MESSAGE_HEADER_BYTES + message.body.length));
  const view = viewOf(bytes);
  view.setUint32(0, MESSAGE_HEADER_BYTES + message.body.length, true);
  view.setUint16(4, message.type, true);
  view.setUint16(6, message.flags, true);
  view.setUint32(8, message.sequence, true);
  view.setUint32(12, message.portId, true);
  bytes.set(message.body, MESSAGE_HEADER_BYTES);
  return bytes;
}

/**
 * The messages of one datagram.
 * @throws NetlinkFormatError when a length is impossible; nothing is returned then, because after
 * a wrong length no boundary can be trusted.
 */
export function parseMessages(datagram: Uint8Array): NetlinkMessage[] {
  const view = viewOf(datagram);
  const messages: NetlinkMessage[] = [];
  let offset = 0;
  while (offset < datagram.length) {
    const remaining = datagram.length - offset;
    if (remaining < MESSAGE_HEADER_BYTES) {
      throw new NetlinkFormatError(`${remaining} bytes are too few for a message header`);
    }
    const length = view.getUint32(offset, true);
    if (length < MESSAGE_HEADER_BYTES || length > remaining) {
      throw new NetlinkFormatError(`message length ${length} with ${remaining} bytes left`);
    }
    messages.push({
      type: view.getUint16(offset + 4, true),
      flags: view.getUint16(offset + 6, true),
      sequence: view.getUint32(offset + 8, true),
      portId: view.getUint32(offset + 12, true),
      body: datagram.subarray(offset + MESSAGE_HEADER_BYTES, offset + length),
    });
    // The last message of a datagram may come without padding.
    offset += Math.min(align(length), remaining);
  }
  return messages;
}

/**
 * Attributes by type, with the flag bits taken off. A type that occurs twice keeps its last value,
 * as in the kernel's own parser.
 * @throws NetlinkFormatError when a length is impossible.
 */
export function parseAttributes(bytes: Uint8Array): Map<number, Uint8Array> {
  const view = viewOf(bytes);
  const attributes = new Map<number, Uint8Array>();
  let offset = 0;
  while (offset < bytes.length) {
    const remaining = bytes.length - offset;
    if (remaining < ATTRIBUTE_HEADER_BYTES) {
      throw new NetlinkFormatError(`${remaining} bytes are too few for an attribute header`);
    }
    const length = view.getUint16(offset, true);
    if (length < ATTRIBUTE_HEADER_BYTES || length > remaining) {
      throw new NetlinkFormatError(`attribute length ${length} with ${remaining} bytes left`);
    }
    const type = view.getUint16(offset + 2, true) & NLA_TYPE_MASK;
    attributes.set(type, bytes.subarray(offset + ATTRIBUTE_HEADER_BYTES, offset + length));
    offset += Math.min(align(length), remaining);
  }
  return attributes;
}

/**
 * An unsigned 32-bit integer at the start of `bytes`.
 * @throws NetlinkFormatError when there are fewer than 4 bytes.
 */
export function readU32(bytes: Uint8Array, offset = 0): number {
  if (bytes.length < offset + 4) {
    throw new NetlinkFormatError(`no 32-bit integer at ${offset} in ${bytes.length} bytes`);
  }
  return viewOf(bytes).getUint32(offset, true);
}

/** Text up to the first zero byte. */
export function readCString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** What an NLMSG_ERROR message says: 0 acknowledges. */
export interface Acknowledgement {
  readonly errno: number;
  /** The kernel's explanation (extended acknowledgement), where it gives one. */
  readonly detail: string | undefined;
}

/**
 * Reads the body of an NLMSG_ERROR message: a negative error number, the header of the refused
 * request, its payload unless capped, then attributes.
 * @throws NetlinkFormatError when lengths are impossible.
 */
export function parseAcknowledgement(message: NetlinkMessage): Acknowledgement {
  const errno = -(readU32(message.body) | 0);
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return { errno, detail: undefined };
  const requestBytes = (message.flags & NLM_F_CAPPED) === 0
    ? align(readU32(message.body, 4))
    : MESSAGE_HEADER_BYTES;
  const text = parseAttributes(message.body.subarray(4 + requestBytes)).get(NLMSGERR_ATTR_MSG);
  return { errno, detail: text === undefined ? undefined : readCString(text) };
}
