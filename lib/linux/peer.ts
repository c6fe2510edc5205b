/** Who is at the other end of a Unix socket, on the kernel's word. */
import { bindLibc, checked } from "./libc.ts";

// include/uapi/asm-generic/socket.h
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** struct ucred: three 32-bit numbers. */
const UCRED_BYTES = 12;

const libc = bindLibc({
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
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
