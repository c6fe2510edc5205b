/** Bytes from socket to socket without a copy into this process: splice(2) by way of a pipe. */
import { EAGAIN, EINTR } from "./errno.ts";
import { bindLibc, checked, lastErrno, SystemError } from "./libc.ts";
import { AGAIN } from "./sockets.ts";

// include/uapi/asm-generic/fcntl.h, include/uapi/linux/fcntl.h
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const F_SETPIPE_SZ = 1031;
// include/linux/splice.h
const SPLICE_F_MOVE = 1;
const SPLICE_F_NONBLOCK = 2;

/**
 * What one pipe holds at most. Larger ones move few more bytes a second, and a reader that stalls
 * makes the kernel keep this much for it.
 */
const PIPE_BYTES = 256 * 1024;

const libc = bindLibc({
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // The result is a ssize_t; what fits into a pipe fits into 32 bits, and so does -1.
  splice: { parameters: ["i32", "pointer", "i32", "pointer", "usize", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
});

/** A pipe between two sockets. */
export class Pipe {
  readonly #readFd: number;
  readonly #writeFd: number;

  /** @throws SystemError, such as EMFILE. */
  constructor() {
    const fds = new Int32Array(2);
    checked("pipe2", libc.pipe2(fds, O_NONBLOCK | O_CLOEXEC));
    this.#readFd = fds[0] ?? -1;
    this.#writeFd = fds[1] ?? -1;
    // Refused beyond the user's share of pipe memory: a small pipe works, too.
    libc.fcntl(this.#writeFd, F_SETPIPE_SZ, PIPE_BYTES);
  }

  /**
   * Moves what socket `fd` has into the pipe, which must be empty.
   * @returns bytes, 0 at the end of the peer's stream, or {@linkcode AGAIN}.
   * @throws SystemError
   */
  fillFrom(fd: number): number {
    return move(fd, this.#writeFd, PIPE_BYTES);
  }

  /**
   * Moves up to `bytes` bytes out of the pipe into socket `fd`.
   * @returns bytes, or {@linkcode AGAIN}.
   * @throws SystemError
   */
  drainTo(fd: number, bytes: number): number {
    return move(this.#readFd, fd, bytes);
  }

  close(): void {
    libc.close(this.#readFd);
    libc.close(this.#writeFd);
  }
}

function move(from: number, to: number, bytes: number): number {
  for (;;) {
    const flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
    const moved = libc.splice(from, null, to, null, BigInt(bytes), flags);
    if (moved >= 0) return moved;
    const errno = lastErrno();
    if (errno === EAGAIN) return AGAIN;
    if (errno !== EINTR) throw new SystemError("splice", errno);
  }
}
