/**
 * Netlink messages (netlink(7), RFC 3549): encoding, bounds-checked parsing, and a small
 * synchronous socket for one request or dump at a time.
 *
 * All integers are in host byte order, which is little-endian on every machine Deno runs on.
 */
import { bindLibc, checked, lastErrno, SystemError } from "./libc.ts";

// include/uapi/linux/netlink.h
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_REQUEST = 0x01;
const NLM_F_ACK = 0x04;
const NLM_F_DUMP_INTR = 0x10;
const NLM_F_DUMP = 0x300;
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

function viewOf(bytes: Uint8Array): DataView {
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
interface Acknowledgement {
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

/** One message of {@linkcode NetlinkSocket.batch}. */
export interface BatchMessage {
  readonly type: number;
  /** Beside NLM_F_REQUEST. */
  readonly flags: number;
  readonly body: Uint8Array;
  /** The kernel is to acknowledge it. */
  readonly acknowledged?: boolean;
}

const AF_NETLINK = 16;
const SOCK_RAW = 3;
/** Child processes, such as nft, must not inherit the socket. */
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SOL_NETLINK = 270;
const NETLINK_EXT_ACK = 11;
/** Without it the kernel ignores what a dump asks for beyond its kind, such as another namespace. */
const NETLINK_GET_STRICT_CHK = 12;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const SO_RCVBUFFORCE = 33;
/** struct pollfd: descriptor i32, awaited events i16, events i16. */
const POLLFD_BYTES = 8;
const POLLIN = 1;
const EINTR = 4;
const EAGAIN = 11;
/** struct sockaddr_nl: family u16, padding u16, port id u32, groups u32. */
const SOCKADDR_NL_BYTES = 12;
/** Dumps come in datagrams of at most 32 KiB (NLMSG_GOODSIZE and af_netlink.c's ceiling). */
const RECEIVE_BUFFER_BYTES = 64 * 1024;
/** An answer with more messages than this is not one we asked for. */
const MAX_ANSWER_MESSAGES = 1_000_000;
/** A dump is repeated when the kernel says that the listed objects changed while it went on. */
const MAX_DUMP_ATTEMPTS = 10;

const libc = bindLibc({
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
  recvfrom: {
    parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"],
    result: "isize",
  },
  close: { parameters: ["i32"], result: "i32" },
});
// On a thread of its own: what came of it is not needed, so neither is errno.
const waiting = bindLibc({
  poll: { parameters: ["buffer", "usize", "i32"], result: "i32", nonblocking: true },
});

/** One netlink protocol's socket; each call blocks until the kernel has answered. */
export class NetlinkSocket implements Disposable {
  readonly #fd: number;
  readonly #buffer = new Uint8Array(RECEIVE_BUFFER_BYTES);
  #sequence = 0;

  /**
   * @param protocol Such as NETLINK_ROUTE (0).
   * @param timeoutMs How long one receive may take. The kernel answers at once; this bounds the
   * damage when it does not.
   * @throws SystemError when the socket cannot be made.
   */
  constructor(protocol: number, timeoutMs = 2000) {
    this.#fd = checked(
      "open a netlink socket",
      libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol),
    );
    try {
      const timeout = new BigInt64Array([
        BigInt(Math.trunc(timeoutMs / 1000)),
        BigInt(timeoutMs % 1000) * 1000n,
      ]);
      checked(
        "set the receive timeout",
        libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVTIMEO, new Uint8Array(timeout.buffer), 16),
      );
      checked(
        "ask for extended acknowledgements",
        libc.setsockopt(this.#fd, SOL_NETLINK, NETLINK_EXT_ACK, u32(1).slice(), 4),
      );
      checked(
        "ask for strict checks",
        libc.setsockopt(this.#fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, u32(1).slice(), 4),
      );
      const address = new Uint8Array(SOCKADDR_NL_BYTES);
      viewOf(address).setUint16(0, AF_NETLINK, true);
      checked("bind the netlink socket", libc.bind(this.#fd, address, SOCKADDR_NL_BYTES));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Closes the socket. Any later call fails. */
  close(): void {
    libc.close(this.#fd);
  }

  /** Closes the socket at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Sends one request and waits until the kernel has acknowledged it.
   * @param operation What it does, for the error message.
   * @throws SystemError with the kernel's error; NetlinkFormatError when the answer is malformed.
   */
  request(operation: string, type: number, flags: number, body: Uint8Array): void {
    this.#exchange(operation, type, NLM_F_REQUEST | NLM_F_ACK | flags, body);
  }

  /**
   * Sends several messages as one datagram, which the kernel takes as one transaction where its
   * protocol has such, and waits for the last one's acknowledgement.
   * @param messages Type, further flags, and body of each; `acknowledged` marks the one whose
   * success stands for all.
   * @throws SystemError with the kernel's first error; NetlinkFormatError when the answer is
   * malformed.
   */
  batch(operation: string, messages: readonly BatchMessage[]): void {
    const first = (this.#sequence + 1) >>> 0;
    let awaited = first;
    const datagram = concat(...messages.map(({ type, flags, body, acknowledged }) => {
      const sequence = this.#sequence = (this.#sequence + 1) >>> 0;
      if (acknowledged === true) awaited = sequence;
      const all = NLM_F_REQUEST | flags | (acknowledged === true ? NLM_F_ACK : 0);
      return encodeMessage({ type, flags: all, sequence, portId: 0, body });
    }));
    checked(operation, Number(libc.send(this.#fd, datagram, BigInt(datagram.length), 0)));
    const own = this.#sequence - first;
    for (let answers = 0; answers <= MAX_ANSWER_MESSAGES; answers++) {
      for (const message of this.#receive(operation)) {
        // What is left of an earlier request.
        if ((message.sequence - first) >>> 0 > own || message.type !== NLMSG_ERROR) continue;
        const { errno, detail } = parseAcknowledgement(message);
        if (errno !== 0) throw new SystemError(operation, errno, detail);
        if (message.sequence === awaited) return;
      }
    }
    throw new NetlinkFormatError(`${operation}: the answer does not end`);
  }

  /**
   * Asks for one object.
   * @throws SystemError with the kernel's error, such as ENODEV; NetlinkFormatError when the answer
   * is malformed.
   */
  get(operation: string, type: number, body: Uint8Array): NetlinkMessage | null {
    return this.#exchange(operation, type, NLM_F_REQUEST | NLM_F_ACK, body)?.[0] ?? null;
  }

  /**
   * Asks for a list of objects; repeats when the list changed meanwhile, so that what is returned
   * was true at one moment.
   * @throws SystemError with the kernel's error, EAGAIN when the list never held still;
   * NetlinkFormatError when the answer is malformed.
   */
  dump(operation: string, type: number, body: Uint8Array): NetlinkMessage[] {
    for (let attempt = 0; attempt < MAX_DUMP_ATTEMPTS; attempt++) {
      const messages = this.#exchange(operation, type, NLM_F_REQUEST | NLM_F_DUMP, body);
      if (messages !== null) return messages;
    }
    throw new SystemError(operation, EAGAIN, "the list changed during every attempt");
  }

  /** The answer's messages; null when a dump was interrupted by a change. */
  #exchange(
    operation: string,
    type: number,
    flags: number,
    body: Uint8Array,
  ): NetlinkMessage[] | null {
    const sequence = this.#sequence = (this.#sequence + 1) >>> 0;
    const request = encodeMessage({ type, flags, sequence, portId: 0, body });
    checked(operation, Number(libc.send(this.#fd, request, BigInt(request.length), 0)));
    const answer: NetlinkMessage[] = [];
    let interrupted = false;
    while (answer.length <= MAX_ANSWER_MESSAGES) {
      for (const message of this.#receive(operation)) {
        // What is left of an earlier, timed-out request.
        if (message.sequence !== sequence) continue;
        interrupted ||= (message.flags & NLM_F_DUMP_INTR) !== 0;
        if (message.type === NLMSG_ERROR) {
          const { errno, detail } = parseAcknowledgement(message);
          if (errno !== 0) throw new SystemError(operation, errno, detail);
          return answer;
        }
        if (message.type === NLMSG_DONE) {
          // The end of a dump carries the error that cut it short (netlink_dump_done).
          const errno = message.body.length < 4 ? 0 : -(readU32(message.body) | 0);
          if (errno !== 0) throw new SystemError(operation, errno);
          return interrupted ? null : answer;
        }
        answer.push({ ...message, body: message.body.slice() });
      }
    }
    throw new NetlinkFormatError(`${operation}: the answer does not end`);
  }

  /**
   * Makes room in the kernel for messages that nobody has fetched yet.
   * @throws SystemError without CAP_NET_ADMIN.
   */
  setReceiveBuffer(bytes: number): void {
    checked(
      "enlarge the receive buffer",
      libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, u32(bytes).slice(), 4),
    );
  }

  /**
   * Resolves when there is something to receive, or after `timeoutMs`; waits on a thread of its own.
   * The socket must stay open until then.
   */
  async waitForMessages(timeoutMs: number): Promise<void> {
    const poll = new Uint8Array(POLLFD_BYTES);
    viewOf(poll).setInt32(0, this.#fd, true);
    viewOf(poll).setInt16(4, POLLIN, true);
    await waiting.poll(poll, 1n, timeoutMs);
  }

  /**
   * The messages of the next datagram that has arrived, valid until the next call; null when there
   * is none.
   * @throws SystemError ENOBUFS when messages were lost for want of room, and any other failure;
   * NetlinkFormatError when the datagram is malformed.
   */
  receiveArrived(operation: string): NetlinkMessage[] | null {
    try {
      return this.#receive(operation, MSG_DONTWAIT);
    } catch (error) {
      if (error instanceof SystemError && error.errno === EAGAIN) return null;
      throw error;
    }
  }

  /** The messages of the next datagram that the kernel itself sent. */
  #receive(operation: string, flags = 0): NetlinkMessage[] {
    const sender = new Uint8Array(SOCKADDR_NL_BYTES);
    const senderLength = new Uint32Array([SOCKADDR_NL_BYTES]);
    let length: number;
    do {
      length = Number(libc.recvfrom(
        this.#fd,
        this.#buffer,
        BigInt(this.#buffer.length),
        MSG_TRUNC | flags,
        sender,
        new Uint8Array(senderLength.buffer),
      ));
      // A receive with a timeout is never restarted by the kernel after a signal (signal(7)).
    } while (length < 0 && lastErrno() === EINTR);
    if (length < 0) throw new SystemError(operation, lastErrno());
    if (length > this.#buffer.length) {
      throw new NetlinkFormatError(`${operation}: a datagram of ${length} bytes was cut off`);
    }
    // Port id 0 is the kernel; other processes may write to a netlink socket, too.
    if (readU32(sender, 4) !== 0) return [];
    return parseMessages(this.#buffer.subarray(0, length));
  }
}
