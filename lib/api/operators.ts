/**
 * Who may use the host socket (decision D22): root, the daemon's own user, and members of the group
 * `outcall`, and nobody inside a container, whatever user it claims to be.
 *
 * The file's mode keeps others out already. This is the second lock, for a socket that was mounted
 * into a container or whose mode somebody widened.
 */
import { OutcallError } from "../errors.ts";
import type { PeerCredentials } from "../linux/peer.ts";

/** Members of this group are operators. */
const OPERATOR_GROUP = "outcall";

/** PROC_PID_INIT_INO of include/linux/proc_ns.h: the namespace in which every process is visible. */
const INITIAL_PID_NAMESPACE = "pid:[4026531836]";

/** Mode and group of the host socket: the group's members where it exists, else only the owner. */
export function operatorSocketAccess(): { readonly mode: number; readonly gid?: number } {
  const gid = groupId(Deno.readTextFileSync("/etc/group"), OPERATOR_GROUP);
  return gid === null ? { mode: 0o600 } : { mode: 0o660, gid };
}

/** The id of the group `name` in the text of group(5), or null. */
export function groupId(groupFile: string, name: string): number | null {
  for (const line of groupFile.split("\n")) {
    const [group, _password, id] = line.split(":");
    if (group === name && id !== undefined && /^[0-9]+$/.test(id)) return Number(id);
  }
  return null;
}

/** Group ids of a process, effective and supplementary, from the text of /proc/<pid>/status. */
export function groupsIn(status: string): readonly number[] {
  // The process picks its own name, which is part of the text: only the newline, which the kernel
  // escapes there, may end a line, and none of the others that a regular expression's ^ allows.
  const lines = status.split("\n");
  const numbers = (field: string): number[] => {
    const line = lines.find((line) => line.startsWith(`${field}:\t`)) ?? "";
    return line.slice(field.length + 1).trim().split(/\s+/).filter(Boolean).map(Number);
  };
  // "Gid" lists the real, effective, saved and file system id.
  return [...numbers("Gid").slice(1, 2), ...numbers("Groups")];
}

/**
 * The container that a process belongs to, from the text of /proc/<pid>/cgroup (cgroups(7)): the
 * innermost 64-digit id, as Docker, Podman and containerd write it, or null.
 */
export function containerIn(cgroup: string): string | null {
  let innermost: string | null = null;
  for (const [, id] of cgroup.matchAll(/(?<![0-9a-f])([0-9a-f]{64})(?![0-9a-f])/g)) {
    innermost = id ?? null;
  }
  return innermost;
}

/**
 * Lets an operator's connection pass.
 * @throws OutcallError `peer.forbidden` (403) for everybody else.
 */
export function admitOperator(peer: PeerCredentials): void {
  const trusted = peer.uid === 0 || peer.uid === Deno.uid();
  if (peer.pid === 0) {
    // Not visible from our PID namespace. For a daemon in a container without `--pid host` that is
    // every process of the host, and the user is all there is to go by. For a daemon that should
    // see everything, it is nobody.
    if (trusted && ownPidNamespace() !== INITIAL_PID_NAMESPACE) return;
    throw forbidden("the calling process cannot be identified");
  }
  const process = inspect(peer.pid);
  if (
    process.pidNamespace !== ownPidNamespace() ||
    process.container !== containerIn(Deno.readTextFileSync("/proc/self/cgroup"))
  ) {
    throw forbidden("the host API is not open to processes inside containers");
  }
  if (trusted) return;
  const gid = groupId(Deno.readTextFileSync("/etc/group"), OPERATOR_GROUP);
  if (gid !== null && process.groups.includes(gid)) return;
  throw forbidden(
    `user ${peer.uid} may not use the host API`,
    `Run the command as root or as a member of the group ${OPERATOR_GROUP}.`,
  );
}

interface CallingProcess {
  readonly pidNamespace: string;
  readonly container: string | null;
  readonly groups: readonly number[];
}

function inspect(pid: number): CallingProcess {
  try {
    return {
      pidNamespace: Deno.readLinkSync(`/proc/${pid}/ns/pid`),
      container: containerIn(Deno.readTextFileSync(`/proc/${pid}/cgroup`)),
      groups: groupsIn(Deno.readTextFileSync(`/proc/${pid}/status`)),
    };
  } catch (cause) {
    // Gone already, or hidden from us: not to be trusted either way.
    throw forbidden("the calling process cannot be identified", undefined, cause);
  }
}

function ownPidNamespace(): string {
  return Deno.readLinkSync("/proc/self/ns/pid");
}

function forbidden(reason: string, hint?: string, cause?: unknown): OutcallError {
  return new OutcallError(403, "peer.forbidden", `forbidden: ${reason}`, {
    ...(hint === undefined ? {} : { hint }),
    ...(cause === undefined ? {} : { cause }),
  });
}
