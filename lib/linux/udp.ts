/**
 * UDP sockets by system call: many packets for each one (recvmmsg(2), sendmmsg(2)), and descriptors
 * that another thread of this process can use. Layouts are those of 64-bit little-endian Linux.
 */
import { EAGAIN, EINTR } from "./errno.ts";
import { bindLibc, checked, lastErrno, SystemError } from "./libc.ts";
import {
  AF_INET,
  MSG_DONTWAIT,
  MSG_TRUNC,
  SO_RCVBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOL_SOCKET,
} from "./sockets.ts";

// include/linux/socket.h, include/linux/net.h, include/uapi/asm-generic/socket.h
const SOCK_DGRAM = 2;

/** struct sockaddr_in: family u16, port u16 and address, both in network byte order, 8 unused. */
const SOCKADDR_BYTES = 16;
/** struct mmsghdr: a struct msghdr of 56 bytes, received length u32, padding. */
const MMSGHDR_BYTES = 64;
const NAME_LENGTH_AT = 8;
const FLAGS_AT = 48;
const LENGTH_AT = 56;
/** struct iovec: address and length, 64 bits each. */
const IOVEC_BYTES = 16;

/** Holds a burst of some ten thousand small packets while the reader is busy. */
const RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024;

const libc = bindLibc({
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
  recvmmsg: { parameters: ["i32", "buffer", "u32", "i32", "pointer"], result: "i32" },
  sendmmsg: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
});

function sockaddr(address: string, port: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SOCKADDR_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, port);
  bytes.set(address.split(".").map(Number), 4);
  return bytes;
}

/** The IPv4 address in a struct sockaddr_in, dotted decimal. */
export function addressOf(sockaddrIn: Uint8Array): string {
  return sockaddrIn.subarray(4, 8).join(".");
}

/** A bound, non-blocking IPv4 socket. Whoever made it closes it, when nobody uses it any more. */
export class UdpSocket {
  private constructor(readonly fd: number) {}

  /**
   * @param address Dotted decimal.
   * @throws SystemError, such as EADDRINUSE, EADDRNOTAVAIL or EACCES.
   */
  static bind(address: string, port: number): UdpSocket {
    const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    const socket = new UdpSocket(checked("socket", libc.socket(AF_INET, type, 0)));
    try {
      checked("bind", libc.bind(socket.fd, sockaddr(address, port), SOCKADDR_BYTES));
    } catch (thrown) {
      socket.close();
      throw thrown;
    }
    // Needs CAP_NET_ADMIN; without it the usual size has to do.
    const size = Int32Array.of(RECEIVE_BUFFER_BYTES);
    libc.setsockopt(socket.fd, SOL_SOCKET, SO_RCVBUFFORCE, size, size.byteLength);
    return socket;
  }

  /**
   * Sends one packet.
   * @param to A struct sockaddr_in, as received.
   * @throws SystemError; EAGAIN when the socket's buffer is full.
   */
  send(to: Uint8Array<ArrayBuffer>, packet: Uint8Array<ArrayBuffer>): void {
    checked(
      "sendto",
      Number(
        libc.sendto(this.fd, packet, BigInt(packet.length), MSG_DONTWAIT, to, SOCKADDR_BYTES),
      ),
    );
  }

  close(): void {
    libc.close(this.fd);
  }
}

/**
 * Space between slots beyond their bytes: at a distance of whole pages all slots would compete for
 * the same few lines of the processor's cache.
 */
const SLOT_GAP_BYTES = 64;

const SOCKADDR_WORDS = SOCKADDR_BYTES / 4;

/** Memory for `slots` packets with their addresses, and the headers that point to it. */
class Vector {
  readonly packets: Uint8Array<ArrayBuffer>;
  /** Distance from the start of one packet to the next one's. */
  readonly strideBytes: number;
  readonly names: Uint8Array<ArrayBuffer>;
  /** {@linkcode names}, to be copied without making a view for each. */
  readonly nameWords: Uint32Array<ArrayBuffer>;
  readonly headers: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
  // The kernel writes through addresses of these: a collected buffer would be somebody else's memory.
  readonly #iovecs: BigUint64Array<ArrayBuffer>;
  /** Low halves of {@linkcode #iovecs}' lengths, written without making a bigint for each. */
  readonly #iovecWords: Uint32Array<ArrayBuffer>;

  constructor(readonly slots: number, readonly slotBytes: number) {
    this.strideBytes = slotBytes + SLOT_GAP_BYTES;
    this.packets = new Uint8Array(slots * this.strideBytes);
    this.names = new Uint8Array(slots * SOCKADDR_BYTES);
    this.nameWords = new Uint32Array(this.names.buffer);
    this.headers = new Uint8Array(slots * MMSGHDR_BYTES);
    this.view = new DataView(this.headers.buffer);
    this.#iovecs = new BigUint64Array(slots * IOVEC_BYTES / 8);
    this.#iovecWords = new Uint32Array(this.#iovecs.buffer);
    const packets = addressIn(this.packets);
    const names = addressIn(this.names);
    const iovecs = addressIn(this.#iovecs);
    for (let slot = 0; slot < slots; slot++) {
      const header = slot * MMSGHDR_BYTES;
      this.#iovecs[2 * slot] = packets + BigInt(slot * this.strideBytes);
      this.#iovecs[2 * slot + 1] = BigInt(slotBytes);
      this.view.setBigUint64(header, names + BigInt(slot * SOCKADDR_BYTES), true);
      this.view.setUint32(header + NAME_LENGTH_AT, SOCKADDR_BYTES, true);
      this.view.setBigUint64(header + 16, iovecs + BigInt(slot * IOVEC_BYTES), true);
      this.view.setBigUint64(header + 24, 1n, true);
    }
  }

  setLength(slot: number, bytes: number): void {
    this.#iovecWords[4 * slot + 2] = bytes;
  }
}

function addressIn(buffer: Uint8Array<ArrayBuffer> | BigUint64Array<ArrayBuffer>): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
}

/** Receives packets many at a time, and sends the replies to them the same way. */
export class UdpBatch {
  readonly #in: Vector;
  readonly #out: Vector;
  readonly #sources: DataView;
  #replies = 0;

  /**
   * @param slots Packets for each call; a reply for each.
   * @param packetBytes Longer packets are not received.
   * @param replyBytes Longer replies cannot be sent.
   */
  constructor(readonly slots: number, packetBytes: number, replyBytes: number) {
    this.#in = new Vector(slots, packetBytes);
    this.#out = new Vector(slots, replyBytes);
    this.#sources = new DataView(this.#in.names.buffer);
  }

  /**
   * Receives what is there, without waiting; returns how many packets.
   * @throws SystemError
   */
  receive(fd: number): number {
    const count = libc.recvmmsg(fd, this.#in.headers, this.slots, MSG_DONTWAIT, null);
    if (count >= 0) return count;
    const errno = lastErrno();
    if (errno === EAGAIN || errno === EINTR) return 0;
    throw new SystemError("recvmmsg", errno);
  }

  /** Length of a received packet; 0 for one that was too long. Ends the slot's reception. */
  take(slot: number): number {
    const header = slot * MMSGHDR_BYTES;
    const { view } = this.#in;
    // The kernel left what it found there; the next call needs what it may use.
    view.setUint32(header + NAME_LENGTH_AT, SOCKADDR_BYTES, true);
    const isTooLong = (view.getInt32(header + FLAGS_AT, true) & MSG_TRUNC) !== 0;
    return isTooLong ? 0 : view.getUint32(header + LENGTH_AT, true);
  }

  /** The memory that packets are received into: see {@linkcode start}. */
  get received(): Uint8Array<ArrayBuffer> {
    return this.#in.packets;
  }

  /** Where a received packet begins in {@linkcode received}; valid until the next {@linkcode receive}. */
  start(slot: number): number {
    return slot * this.#in.strideBytes;
  }

  /** Source address of a received packet as a number, in network order. */
  sourceAddress(slot: number): number {
    return this.#sources.getUint32(slot * SOCKADDR_BYTES + 4);
  }

  /** Source of a received packet as a struct sockaddr_in; a copy. */
  source(slot: number): Uint8Array<ArrayBuffer> {
    return this.#in.names.slice(slot * SOCKADDR_BYTES, (slot + 1) * SOCKADDR_BYTES);
  }

  /**
   * Queues the reply to a received packet, at most one for each. Its first two bytes, where
   * protocols have an id, are the packet's own.
   * @throws RangeError when the reply is too long.
   */
  reply(slot: number, reply: Uint8Array): void {
    if (reply.length > this.#out.slotBytes || this.#replies >= this.slots) {
      throw new RangeError(`no room for a reply of ${reply.length} bytes`);
    }
    const out = this.#replies++;
    const start = out * this.#out.strideBytes;
    const packet = this.start(slot);
    const { packets } = this.#out;
    packets.set(reply, start);
    packets[start] = this.#in.packets[packet] ?? 0;
    packets[start + 1] = this.#in.packets[packet + 1] ?? 0;
    this.#out.setLength(out, reply.length);
    for (let word = 0; word < SOCKADDR_WORDS; word++) {
      this.#out.nameWords[out * SOCKADDR_WORDS + word] =
        this.#in.nameWords[slot * SOCKADDR_WORDS + word] ?? 0;
    }
  }

  /** Sends the queued replies; those that cannot be sent now are lost, as packets are. */
  flush(fd: number): void {
    for (let sent = 0; sent < this.#replies;) {
      const rest = sent === 0
        ? this.#out.headers
        : this.#out.headers.subarray(sent * MMSGHDR_BYTES);
      const count = libc.sendmmsg(fd, rest, this.#replies - sent, MSG_DONTWAIT);
      // A failure is about the first one alone: its receiver is gone, say.
      sent += Math.max(count, 1);
    }
    this.#replies = 0;
  }
}
