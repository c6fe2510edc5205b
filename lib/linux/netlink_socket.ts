/**
 * Netlink sockets (netlink(7)): one request, transaction or dump at a time, answered before the call
 * returns; and messages that come by themselves.
 */
import { EAGAIN, EINTR } from "./errno.ts";
import { bindLibc, checked, lastErrno, SystemError } from "./libc.ts";
import {
  concat,
  encodeMessage,
  NetlinkFormatError,
  type NetlinkMessage,
  parseAcknowledgement,
  parseMessages,
  readU32,
  u32,
  viewOf,
} from "./netlink.ts";
import {
  MSG_DONTWAIT,
  MSG_TRUNC,
  POLLFD_BYTES,
  POLLIN,
  SO_RCVBUFFORCE,
  SOCK_CLOEXEC,
  SOL_SOCKET,
} from "./sockets.ts";

/** The protocol of links, addresses and routes. */
export const NETLINK_ROUTE = 0;
/** The protocol of netfilter. */
export const NETLINK_NETFILTER = 12;

// include/uapi/linux/netlink.h
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_REQUEST = 0x01;
const NLM_F_ACK = 0x04;
const NLM_F_DUMP_INTR = 0x10;
const NLM_F_DUMP = 0x300;
const NETLINK_EXT_ACK = 11;
/** Without it the kernel ignores what a dump asks for beyond its kind, such as another namespace. */
const NETLINK_GET_STRICT_CHK = 12;

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SO_RCVTIMEO = 20;
const SOL_NETLINK = 270;
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

/** One message of {@linkcode NetlinkSocket.batch}. */
export interface BatchMessage {
  readonly type: number;
  /** Beside NLM_F_REQUEST. */
  readonly flags: number;
  readonly body: Uint8Array;
  /** The kernel is to acknowledge it. */
  readonly acknowledged?: boolean;
}

/** How {@linkcode openNetlink} is to open a socket. */
interface NetlinkOptions {
  /** How long one receive may take. */
  readonly timeoutMs: number;
  /** Options of SOL_NETLINK to switch on, by what that is for. */
  readonly options: Readonly<Record<string, number>>;
  /** Multicast groups to listen to, as bits; none when absent. */
  readonly groups?: number;
}

/** Opens a socket of `protocol`; whoever calls closes the descriptor. @throws SystemError */
export function openNetlink(
  protocol: number,
  { timeoutMs, options, groups = 0 }: NetlinkOptions,
): number {
  const type = SOCK_RAW | SOCK_CLOEXEC;
  const fd = checked("open a netlink socket", libc.socket(AF_NETLINK, type, protocol));
  try {
    const timeout = new BigInt64Array([
      BigInt(Math.trunc(timeoutMs / 1000)),
      BigInt(timeoutMs % 1000) * 1000n,
    ]);
    checked(
      "set the receive timeout",
      libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, new Uint8Array(timeout.buffer), 16),
    );
    for (const [operation, option] of Object.entries(options)) {
      checked(operation, libc.setsockopt(fd, SOL_NETLINK, option, u32(1).slice(), 4));
    }
    const address = new Uint8Array(SOCKADDR_NL_BYTES);
    viewOf(address).setUint16(0, AF_NETLINK, true);
    viewOf(address).setUint32(8, groups, true);
    checked("bind the netlink socket", libc.bind(fd, address, SOCKADDR_NL_BYTES));
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

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
    this.#fd = openNetlink(protocol, {
      timeoutMs,
      options: {
        "ask for extended acknowledgements": NETLINK_EXT_ACK,
        "ask for strict checks": NETLINK_GET_STRICT_CHK,
      },
    });
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
