/** Waiting for many sockets at once: epoll(7), edge-triggered. */
import { EINTR } from "./errno.ts";
import { bindLibc, checked, lastErrno, SystemError } from "./libc.ts";

// include/uapi/linux/eventpoll.h
const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLLIN = 0x1;
const EPOLLOUT = 0x4;
const EPOLLERR = 0x8;
const EPOLLHUP = 0x10;
const EPOLLRDHUP = 0x2000;
const EPOLLET = 0x80000000;

/** struct epoll_event is packed on x86-64 alone; the descriptor is what we keep in its data. */
const EVENT_BYTES = Deno.build.arch === "x86_64" ? 12 : 16;
const DATA_AT = EVENT_BYTES - 8;

const MAX_EVENTS = 256;

const libc = bindLibc({
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
});

/** A set of descriptors that tells which of them changed. */
export class Epoll {
  readonly #fd = checked("epoll_create1", libc.epoll_create1(EPOLL_CLOEXEC));
  readonly #events = new Uint8Array(MAX_EVENTS * EVENT_BYTES);
  readonly #view = new DataView(this.#events.buffer);
  readonly #one = new Uint8Array(EVENT_BYTES);
  readonly #oneView = new DataView(this.#one.buffer);

  /**
   * Reports `fd` from now on whenever it becomes readable, and whether it is already.
   * @throws SystemError
   */
  add(fd: number): void {
    this.#control(EPOLL_CTL_ADD, fd, EPOLLIN);
  }

  /**
   * Reports of `fd`, which was added, also whenever it becomes writable, and what it is already.
   * @throws SystemError
   */
  addWritable(fd: number): void {
    this.#control(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
  }

  #control(operation: number, fd: number, events: number): void {
    this.#oneView.setUint32(0, (events | EPOLLRDHUP | EPOLLET) >>> 0, true);
    this.#oneView.setInt32(DATA_AT, fd, true);
    checked("epoll_ctl", libc.epoll_ctl(this.#fd, operation, fd, this.#one));
  }

  /** Reports `fd` no more; harmless when it was not there. */
  remove(fd: number): void {
    libc.epoll_ctl(this.#fd, EPOLL_CTL_DEL, fd, this.#one);
  }

  /**
   * Waits, blocking this thread; returns how many events there are.
   * @param timeoutMs -1: as long as it takes.
   * @throws SystemError
   */
  wait(timeoutMs: number): number {
    const count = libc.epoll_wait(this.#fd, this.#events, MAX_EVENTS, timeoutMs);
    if (count >= 0) return count;
    const errno = lastErrno();
    if (errno === EINTR) return 0;
    throw new SystemError("epoll_wait", errno);
  }

  /** The descriptor of event `i` of the last wait. */
  fd(i: number): number {
    return this.#view.getInt32(i * EVENT_BYTES + DATA_AT, true);
  }

  /** Whether a read has something to tell: bytes, the end, or an error. */
  isReadable(i: number): boolean {
    return (this.#flags(i) & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) !== 0;
  }

  /** Whether a write would get on, or fail. */
  isWritable(i: number): boolean {
    return (this.#flags(i) & (EPOLLOUT | EPOLLHUP | EPOLLERR)) !== 0;
  }

  /** Whether the peer has ended its stream, or the connection is broken. */
  isEnding(i: number): boolean {
    return (this.#flags(i) & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) !== 0;
  }

  close(): void {
    libc.close(this.#fd);
  }

  #flags(i: number): number {
    return this.#view.getUint32(i * EVENT_BYTES, true);
  }
}
