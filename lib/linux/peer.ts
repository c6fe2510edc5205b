/** Who is at the other end of a Unix socket, on the kernel's word. */
import { ENOPROTOOPT } from "./errno.ts";
import { bindLibc, checked, lastErrno, SystemError } from "./libc.ts";
import { POLLIN, SOL_SOCKET } from "./sockets.ts";

// include/uapi/asm-generic/socket.h
const SO_PEERCRED = 17;
const SO_PEERPIDFD = 77;
/** struct ucred: three 32-bit numbers. */
const UCRED_BYTES = 12;

const libc = bindLibc({
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
});

/**
 * Credentials of the process that called `connect`, taken at that moment. A socket without a
 * recorded peer has pid 0 and both ids 4294967295, which is nobody.
 */
export interface PeerCredentials {
  /** Process id in *our* PID namespace; 0 when the peer is not visible from it (decision D21). */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/**
 * The credentials of the peer of a connected Unix stream socket (unix(7), SO_PEERCRED).
 * @throws SystemError, such as ENOTSOCK or EBADF.
 */
export function peerCredentials(fd: number): PeerCredentials {
  const ucred = new Uint32Array(UCRED_BYTES / 4);
  const length = new Uint32Array([UCRED_BYTES]);
  checked("getsockopt SO_PEERCRED", libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ucred, length));
  const [pid, uid, gid] = ucred;
  if (length[0] !== UCRED_BYTES || pid === undefined || uid === undefined || gid === undefined) {
    throw new Error("SO_PEERCRED answered with another structure than struct ucred");
  }
  return { pid, uid, gid };
}

/** The very process that called `connect`, which no reuse of its number can turn into another. */
export class PeerProcess implements Disposable {
  private constructor(readonly fd: number) {}

  /**
   * Takes hold of the peer of a connected Unix stream socket (SO_PEERPIDFD, Linux 6.5).
   * @returns null where the kernel does not know the option.
   * @throws SystemError, such as ESRCH when the process has ended.
   */
  static of(fd: number): PeerProcess | null {
    const pidfd = new Int32Array(1);
    const length = new Uint32Array([pidfd.byteLength]);
    if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, pidfd, length) < 0) {
      const errno = lastErrno();
      if (errno === ENOPROTOOPT) return null;
      throw new SystemError("getsockopt SO_PEERPIDFD", errno);
    }
    return new PeerProcess(pidfd[0] ?? -1);
  }

  /** Whether it has not ended: what was read under its number until now was its own. */
  isAlive(): boolean {
    // struct pollfd: fd, then events and revents as 16-bit numbers.
    const pollfd = new Int32Array([this.fd, POLLIN]);
    // A pidfd becomes readable when its process ends (pidfd_open(2)).
    return checked("poll", libc.poll(pollfd, 1n, 0)) === 0;
  }

  [Symbol.dispose](): void {
    libc.close(this.fd);
  }
}
