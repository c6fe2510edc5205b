/** Waiting for sockets in one thread, and being woken by another one: poll(2), eventfd(2). */
import { EINTR } from "./errno.ts";
import { bindLibc, checked, lastErrno, SystemError } from "./libc.ts";
import { POLLFD_BYTES, POLLIN } from "./sockets.ts";

// include/uapi/linux/eventfd.h
const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

const libc = bindLibc({
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  close: { parameters: ["i32"], result: "i32" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
});

/** A counter of the kernel's that a thread can wait for. */
export class WakeCounter {
  readonly #value = new BigUint64Array(1);

  /** @param fd Of an existing counter, made in another thread of this process. */
  constructor(readonly fd: number) {}

  /** @throws SystemError */
  static create(): WakeCounter {
    return new WakeCounter(checked("eventfd", libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)));
  }

  /** Adds one, which wakes whoever waits. */
  add(): void {
    this.#value[0] = 1n;
    libc.write(this.fd, this.#value, 8n);
  }

  /** What was added since the last call. */
  take(): number {
    return Number(libc.read(this.fd, this.#value, 8n)) === 8 ? Number(this.#value[0]) : 0;
  }

  close(): void {
    libc.close(this.fd);
  }
}

/** A fixed set of descriptors to wait for. */
export class PollSet {
  readonly #entries: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;

  constructor(readonly fds: readonly number[]) {
    this.#entries = new Uint8Array(fds.length * POLLFD_BYTES);
    this.#view = new DataView(this.#entries.buffer);
    for (const [i, fd] of fds.entries()) {
      this.#view.setInt32(i * POLLFD_BYTES, fd, true);
      this.#view.setInt16(i * POLLFD_BYTES + 4, POLLIN, true);
    }
  }

  /**
   * Waits, blocking this thread, until one can be read.
   * @throws SystemError
   */
  wait(timeoutMs: number): void {
    const count = libc.poll(this.#entries, BigInt(this.fds.length), timeoutMs);
    if (count >= 0) return;
    const errno = lastErrno();
    if (errno !== EINTR) throw new SystemError("poll", errno);
    for (let i = 0; i < this.fds.length; i++) this.#view.setInt16(i * POLLFD_BYTES + 6, 0, true);
  }

  /** Whether the descriptor at this position had something to read, or an error to report. */
  isReady(position: number): boolean {
    return this.#view.getInt16(position * POLLFD_BYTES + 6, true) !== 0;
  }
}
