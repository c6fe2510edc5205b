/** Who listens on a port: for the message of a daemon that found it taken. */
import { Ip } from "../net/ip.ts";

/** A process that owns a socket. */
export interface PortOwner {
  readonly pid: number;
  /** The kernel's short name of the program, at most 15 characters (proc(5), `comm`). */
  readonly command: string;
}

/** The socket states that keep a port (include/net/tcp_states.h): LISTEN for TCP, CLOSE for UDP. */
const OWNING_STATE = { tcp: "0A", udp: "07" } as const;

/** An address as /proc/net prints it: 32-bit words in the byte order of the machine. */
function procAddress(ip: Ip): string {
  let hex = "";
  for (let word = 0; word < ip.bytes.length; word += 4) {
    for (let i = word + 3; i >= word; i--) {
      hex += (ip.bytes[i] ?? 0).toString(16).padStart(2, "0").toUpperCase();
    }
  }
  return hex;
}

/**
 * The inodes of sockets that keep `address`:`port`, in a table of /proc/net (`tcp`, `udp6` …). The
 * wildcard, of either family, keeps the port on every address.
 */
export function owningInodes(
  table: string,
  protocol: "tcp" | "udp",
  address: Ip,
  port: number,
): readonly string[] {
  const wildcards = ["0".repeat(8), "0".repeat(32)];
  const own = procAddress(address);
  const portHex = port.toString(16).padStart(4, "0").toUpperCase();
  const inodes: string[] = [];
  for (const line of table.split("\n")) {
    // sl, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode …
    const fields = line.trim().split(/\s+/);
    const [localAddress, localPort] = (fields[1] ?? "").split(":");
    const inode = fields[9];
    if (
      inode === undefined || localAddress === undefined || localPort !== portHex ||
      fields[3] !== OWNING_STATE[protocol]
    ) continue;
    if (localAddress === own || wildcards.includes(localAddress) || wildcards.includes(own)) {
      inodes.push(inode);
    }
  }
  return inodes;
}

function readOr(path: string, otherwise: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return otherwise;
  }
}

function holdsSocket(pid: string, inodes: ReadonlySet<string>): boolean {
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
      const match = /^socket:\[([0-9]+)\]$/.exec(Deno.readLinkSync(`/proc/${pid}/fd/${name}`));
      if (match?.[1] !== undefined && inodes.has(match[1])) return true;
    }
  } catch {
    // The process ended, or belongs to somebody else.
  }
  return false;
}

/**
 * The process that keeps `address`:`port`, or null when it cannot be found: no permission to look,
 * a process in another PID namespace, or a socket of the kernel itself. Never throws.
 */
export function portOwner(
  protocol: "tcp" | "udp",
  address: string,
  port: number,
): PortOwner | null {
  const ip = Ip.parse(address);
  if (ip === null) return null;
  const tables = [protocol, `${protocol}6`].map((name) => readOr(`/proc/net/${name}`, ""));
  const inodes = new Set(tables.flatMap((table) => owningInodes(table, protocol, ip, port)));
  if (inodes.size === 0) return null;
  try {
    for (const { name: pid } of Deno.readDirSync("/proc")) {
      if (!/^[0-9]+$/.test(pid) || !holdsSocket(pid, inodes)) continue;
      return { pid: Number(pid), command: readOr(`/proc/${pid}/comm`, "unknown program\n").trim() };
    }
  } catch {
    // No /proc to list.
  }
  return null;
}
