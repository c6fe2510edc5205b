/**
 * TCP by system call, never waiting: descriptors that belong to whoever made them. Layouts are those
 * of 64-bit little-endian Linux.
 */
import { Ip } from "../net/ip.ts";
import { EAGAIN, ECONNABORTED, EINPROGRESS, EINTR, EPROTO } from "./errno.ts";
import { bindLibc, checked, lastErrno, SystemError } from "./libc.ts";
import { AF_INET, AF_INET6, AGAIN, SOCK_CLOEXEC, SOCK_NONBLOCK, SOL_SOCKET } from "./sockets.ts";

// include/linux/socket.h, include/linux/net.h, include/uapi/linux/tcp.h
const SOCK_STREAM = 1;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const SHUT_WR = 1;
const SHUT_RDWR = 2;
const MSG_NOSIGNAL = 0x4000;
// include/uapi/asm-generic/socket.h
const SO_REUSEADDR = 2;
const SO_ERROR = 4;
const SO_LINGER = 13;

/** struct linger, on and with no time to linger: closing discards what was not sent, by a reset. */
const NO_LINGER = Int32Array.of(1, 0);
const ONE = Int32Array.of(1);

/** Connections that wait to be accepted; net.core.somaxconn limits it further. */
const BACKLOG = 4096;

/** struct sockaddr_in: family u16, port u16, address. */
const SOCKADDR_IN_BYTES = 16;
/** struct sockaddr_in6: family u16, port u16, flow u32, address, scope u32. */
const SOCKADDR_IN6_BYTES = 28;

const libc = bindLibc({
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  accept4: { parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // The results are ssize_t; what is asked for here fits into 32 bits, and so does -1.
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
});

const name = new Uint8Array(SOCKADDR_IN6_BYTES);
const nameView = new DataView(name.buffer);
const length = Uint32Array.of(0);
const value = Int32Array.of(0);

/** Writes `ip` and `port` into {@linkcode name}; returns its length. */
function setName(ip: Ip, port: number): number {
  name.fill(0);
  nameView.setUint16(0, ip.version === 4 ? AF_INET : AF_INET6, true);
  nameView.setUint16(2, port);
  name.set(ip.bytes, ip.version === 4 ? 4 : 8);
  return ip.version === 4 ? SOCKADDR_IN_BYTES : SOCKADDR_IN6_BYTES;
}

function newSocket(ip: Ip): number {
  const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  return checked("socket", libc.socket(ip.version === 4 ? AF_INET : AF_INET6, type, 0));
}

/** Sends small pieces at once. */
function setNoDelay(fd: number): void {
  libc.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, ONE, ONE.byteLength);
}

/**
 * A listening socket. The connections that it accepts send small pieces at once: heads, hellos and
 * their answers are waited for, and Nagle's delay would only cost.
 * @throws SystemError, such as EADDRINUSE, EADDRNOTAVAIL or EACCES.
 */
export function listenOn(ip: Ip, port: number): number {
  const fd = newSocket(ip);
  try {
    // As every server: an earlier connection that still waits for stray packets is no reason to fail.
    checked("setsockopt", libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, ONE, ONE.byteLength));
    setNoDelay(fd); // accepted connections inherit it
    const bytes = setName(ip, port);
    checked("bind", libc.bind(fd, name, bytes));
    checked("listen", libc.listen(fd, BACKLOG));
    return fd;
  } catch (thrown) {
    libc.close(fd);
    throw thrown;
  }
}

/** The local port of a socket. */
export function localPort(fd: number): number {
  length[0] = name.length;
  checked("getsockname", libc.getsockname(fd, name, length));
  return nameView.getUint16(2);
}

/**
 * Accepts one connection, or {@linkcode AGAIN}. Its peer is {@linkcode acceptedFrom}.
 * @throws SystemError, such as EMFILE.
 */
export function acceptOn(fd: number): number {
  for (;;) {
    length[0] = name.length;
    const accepted = libc.accept4(fd, name, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted >= 0) return accepted;
    const errno = lastErrno();
    if (errno === EAGAIN) return AGAIN;
    // accept(2): its peer has gone again, which concerns nobody.
    if (errno !== EINTR && errno !== ECONNABORTED && errno !== EPROTO) {
      throw new SystemError("accept", errno);
    }
  }
}

/** Address of the peer of the connection accepted last, as canonical text. */
export function acceptedFrom(): string {
  return nameView.getUint16(0, true) === AF_INET
    ? `${name[4]}.${name[5]}.${name[6]}.${name[7]}`
    : Ip.fromBytes(name.slice(8, 24)).text;
}

/**
 * Begins to connect; the connection sends small pieces at once, too. The socket becomes writable when {@linkcode connectError} knows how it went.
 * @throws SystemError, such as ENETUNREACH.
 */
export function beginConnect(ip: Ip, port: number): number {
  const fd = newSocket(ip);
  setNoDelay(fd);
  const bytes = setName(ip, port);
  if (libc.connect(fd, name, bytes) === 0) return fd;
  const errno = lastErrno();
  // EINTR: it goes on all the same (connect(2)).
  if (errno === EINPROGRESS || errno === EINTR) return fd;
  libc.close(fd);
  throw new SystemError("connect", errno);
}

/** Whether a connection that was begun stands: a peer nearby has often answered before that returned. */
export function isConnected(fd: number): boolean {
  length[0] = name.length;
  return libc.getpeername(fd, name, length) === 0;
}

/** Why connecting failed; null when it did not. */
export function connectError(fd: number): SystemError | null {
  length[0] = value.byteLength;
  const errno = libc.getsockopt(fd, SOL_SOCKET, SO_ERROR, value, length) < 0
    ? lastErrno()
    : value[0] ?? 0;
  return errno === 0 ? null : new SystemError("connect", errno);
}

/**
 * Reads into `buffer`, which is not empty: bytes, 0 at the end of the stream, or {@linkcode AGAIN}.
 * @throws SystemError, such as ECONNRESET.
 */
export function receive(fd: number, buffer: Uint8Array<ArrayBuffer>): number {
  for (;;) {
    const count = libc.recv(fd, buffer, BigInt(buffer.length), 0);
    if (count >= 0) return count;
    const errno = lastErrno();
    if (errno === EAGAIN) return AGAIN;
    if (errno !== EINTR) throw new SystemError("recv", errno);
  }
}

/**
 * Writes a part of `bytes`, which are not empty: how many, or {@linkcode AGAIN}.
 * @throws SystemError, such as EPIPE.
 */
export function send(fd: number, bytes: Uint8Array<ArrayBuffer>): number {
  for (;;) {
    const count = libc.send(fd, bytes, BigInt(bytes.length), MSG_NOSIGNAL);
    if (count >= 0) return count;
    const errno = lastErrno();
    if (errno === EAGAIN) return AGAIN;
    if (errno !== EINTR) throw new SystemError("send", errno);
  }
}

/** Tells the peer that nothing more comes; harmless when the connection has ended. */
export function endWrites(fd: number): void {
  libc.shutdown(fd, SHUT_WR);
}

/** Ends a connection in both directions at once, whoever uses it at this moment. */
export function cutConnection(fd: number): void {
  discardUnsent(fd);
  libc.shutdown(fd, SHUT_RDWR);
}

/** Closing will discard what was not sent yet, by a reset. */
export function discardUnsent(fd: number): void {
  libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, NO_LINGER, NO_LINGER.byteLength);
}

/** Gives a descriptor back. */
export function closeDescriptor(fd: number): void {
  libc.close(fd);
}
