/**
 * Whose process is at the other end of the agent socket, found out when it connects: its container
 * by its control group, its addresses and its cable by its network namespace (S013-FR-003, decision
 * D5). Nothing that the process says takes part.
 */
import { OutcallError } from "../errors.ts";
import { Ip } from "../net/ip.ts";
import { type PeerCredentials, PeerProcess } from "../linux/peer.ts";
import { RouteNetlink } from "../linux/rtnetlink.ts";

/** What the kernel knows of a process that connected. */
export interface Caller {
  /** Full id of the process's container; null: it is in none. */
  readonly containerId: string | null;
  /** IPv4 addresses of its network namespace, dotted decimal. */
  readonly addresses: readonly string[];
  /**
   * Its network namespace, by the number that the kernel gave it because a link of the host leads
   * there; null: none does.
   */
  readonly namespaceId: number | null;
}

/** Control group of one container: Docker's spelling under cgroupfs, and under systemd. */
const CONTAINER_GROUP = /^(?:docker-([0-9a-f]{64})\.scope|([0-9a-f]{64}))$/;

/**
 * The container that /proc/<pid>/cgroup (cgroups(7)) names, or null.
 *
 * The outermost id counts: a container that may make groups of its own can nest one with any
 * name, but cannot get out of its own (ADV-AGENT-16). The hierarchies of version 1 must agree.
 * @param own The daemon's own text, whose groups are around everybody when it is in a container.
 * @throws OutcallError `peer.forbidden` (403) when the hierarchies name several containers.
 */
export function containerOf(cgroup: string, own = ""): string | null {
  const around = new Set(idsIn(own));
  const outermost = new Set<string>();
  for (const line of cgroup.split("\n")) {
    const id = idsIn(line).find((id) => !around.has(id));
    if (id !== undefined) outermost.add(id);
  }
  if (outermost.size > 1) throw unidentified("it is in the control groups of several containers");
  const [id] = outermost;
  return id ?? null;
}

function idsIn(text: string): string[] {
  return text.split(/[/\n]/).flatMap((part) => {
    const match = CONTAINER_GROUP.exec(part);
    const id = match?.[1] ?? match?.[2];
    return id === undefined ? [] : [id];
  });
}

/** Local IPv4 addresses in the text of /proc/<pid>/net/fib_trie, without loopback. */
export function localAddresses(fibTrie: string): string[] {
  const addresses = new Set<string>();
  let leaf = "";
  for (const line of fibTrie.split("\n")) {
    leaf = /\|-- ([0-9.]+)$/.exec(line)?.[1] ?? leaf;
    if (!line.endsWith("/32 host LOCAL")) continue;
    const address = Ip.parse(leaf)?.text;
    if (address !== undefined && !address.startsWith("127.")) addresses.add(address);
  }
  return [...addresses];
}

/**
 * Looks at the process that connected.
 * @param fd Descriptor of the accepted connection.
 * @throws OutcallError `peer.forbidden` (403) when it cannot be told who it is.
 */
export function callerOf(peer: PeerCredentials, fd: number): Caller {
  if (peer.pid === 0) {
    // Decision D21.
    throw unidentified(
      "outcalld cannot see it from its PID namespace",
      "A daemon in a container must be started with --pid host for the agent API to work.",
    );
  }
  try {
    using process = PeerProcess.of(fd);
    using netlink = new RouteNetlink();
    const caller = {
      containerId: containerOf(
        read(peer.pid, "cgroup"),
        Deno.readTextFileSync("/proc/self/cgroup"),
      ),
      addresses: localAddresses(read(peer.pid, "net/fib_trie")),
      namespaceId: netlink.namespaceOf(peer.pid),
    };
    // The number may have become somebody else's between connect and now (ADV-AGENT-15). Kernels
    // before 6.5 cannot tell, which leaves the moment from connect to accept.
    if (process?.isAlive() === false) throw unidentified("it has ended");
    return caller;
  } catch (thrown) {
    throw thrown instanceof OutcallError ? thrown : unidentified("it has ended", undefined, thrown);
  }
}

function read(pid: number, file: string): string {
  return Deno.readTextFileSync(`/proc/${pid}/${file}`);
}

function unidentified(reason: string, hint?: string, cause?: unknown): OutcallError {
  return new OutcallError(
    403,
    "peer.forbidden",
    `check-in rejected: the calling process cannot be identified: ${reason}`,
    { ...(hint === undefined ? {} : { hint }), ...(cause === undefined ? {} : { cause }) },
  );
}
