/**
 * Connections of Deno's by descriptor, so that another thread of this process can use them:
 * getsockname(2), getpeername(2), shutdown(2), socket(7).
 */
import { Ip } from "../net/ip.ts";
import { bindLibc } from "./libc.ts";

// include/linux/socket.h, include/linux/net.h
const AF_INET = 2;
const AF_INET6 = 10;
const SHUT_WR = 1;
const SHUT_RDWR = 2;
// include/uapi/asm-generic/socket.h
const SOL_SOCKET = 1;
const SO_LINGER = 13;
/** struct linger, on and with no time to linger: closing discards what was not sent, by a reset. */
const NO_LINGER = new Int32Array([1, 0]);
/** struct sockaddr_in6, the longer one: family u16, port u16, flow u32, address, scope u32. */
const SOCKADDR_BYTES = 28;

const libc = bindLibc({
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
});

type Asker = typeof libc.getsockname;

const address = new Uint8Array(SOCKADDR_BYTES);
const view = new DataView(address.buffer);
const length = new Uint32Array(1);

/** Whether `ask` says that `fd` has this end; false for anything that is no TCP socket. */
function hasEnd(ask: Asker, fd: number, { ip, port }: End): boolean {
  length[0] = SOCKADDR_BYTES;
  if (ask(fd, address, length) !== 0 || view.getUint16(2) !== port) return false;
  const family = view.getUint16(0, true);
  const at = family === AF_INET ? 4 : 8;
  if (family !== (ip.version === 4 ? AF_INET : AF_INET6)) return false;
  return ip.bytes.every((byte, i) => byte === address[at + i]);
}

/** One end of a connection. */
interface End {
  readonly ip: Ip;
  readonly port: number;
}

function endOf({ hostname, port }: Deno.NetAddr): End {
  const ip = Ip.parse(hostname);
  if (ip === null) throw new TypeError("an end of the connection is no address");
  return { ip, port };
}

/** Numbers that connections had before: as the lowest that are free, they come again. */
const earlier = new Set<number>();

/**
 * Descriptors that are asked before it is looked up how many there are. A connection that its peer
 * has reset has no ends any more and is never found: asking all that there could be takes half a
 * second, and an agent could have us do that over and over.
 */
const FIRST_LOOK = 256;

/** The highest descriptor that is open now. */
function highestOpen(): number {
  return Math.max(...[...Deno.readDirSync("/proc/self/fd")].map(({ name }) => Number(name)));
}

/**
 * The descriptor of a connection, good until `conn` is closed; it is non-blocking. Deno does not
 * tell it, so descriptors are asked for their two ends, lowest first, as the kernel hands them out.
 *
 * A duplicate would be of no use: closing `conn` tells the peer that nothing more comes, whoever
 * else has the connection.
 *
 * @param isTaken Tells descriptors that are other connections', to spare thousands of questions.
 * @throws Deno.errors.NotConnected when there is none: `conn` is closed, or its peer has reset it.
 */
export function descriptorOf(conn: Deno.TcpConn, isTaken: (fd: number) => boolean): number {
  const local = endOf(conn.localAddr);
  const remote = endOf(conn.remoteAddr);
  const isIt = (fd: number): boolean =>
    !isTaken(fd) && hasEnd(libc.getsockname, fd, local) && hasEnd(libc.getpeername, fd, remote);
  for (const fd of earlier) if (isIt(fd)) return fd;
  let last = Infinity;
  for (let fd = 0; fd <= last; fd++) {
    if (fd === FIRST_LOOK) last = highestOpen();
    if (!isIt(fd)) continue;
    earlier.add(fd);
    return fd;
  }
  throw new Deno.errors.NotConnected("the connection has ended");
}

/** Tells the peer that nothing more comes; harmless when the connection has ended. */
export function endWrites(fd: number): void {
  libc.shutdown(fd, SHUT_WR);
}

/**
 * Ends a connection at once, whoever uses it at this moment: reads end, writes fail, and what was
 * not sent yet is discarded when it is closed.
 */
export function cutConnection(fd: number): void {
  libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, NO_LINGER, NO_LINGER.byteLength);
  libc.shutdown(fd, SHUT_RDWR);
}
