/** What agents that came and went could leave behind: in the kernel, and in the daemon. */
import { eventually } from "../eventually.ts";
import type { Daemon } from "./daemon.ts";
import type { Machine } from "./machine.ts";

/** What there was at one moment. */
export interface Leftovers {
  /** Numbers of links and of network namespaces, and all tables and sets. */
  readonly kernel: string;
  /** Open descriptors of the daemon. */
  readonly descriptors: number;
}

/** A connection that is being closed, a timer: nothing that adds up. */
const DESCRIPTORS_THAT_COME_AND_GO = 5;

/** What there is on `host` now. */
export async function leftovers(host: Machine, daemon: Daemon): Promise<Leftovers> {
  const counts = "echo links $(ip -o link | wc -l) namespaces $(lsns -n -t net | wc -l)";
  const [numbers, tables, descriptors] = await Promise.all([
    host.must(["bash", "-c", counts]),
    host.must(["nft", "-s", "list", "ruleset"]),
    host.must(["bash", "-c", `ls /proc/${daemon.pid}/fd | wc -l`]),
  ]);
  // Sources of reported drops end a minute after their last one, by the kernel's clock.
  const lasting = tables.replace(/^\tset reported \{.*?^\t\}\n/gms, "");
  return { kernel: `${numbers}${lasting}`, descriptors: Number(descriptors) };
}

/** Waits until there is no more than `before`; the kernel takes things back in its own time. */
export async function nothingLeft(
  host: Machine,
  daemon: Daemon,
  before: Leftovers,
): Promise<void> {
  let after = before;
  const most = before.descriptors + DESCRIPTORS_THAT_COME_AND_GO;
  try {
    await eventually(async () => {
      after = await leftovers(host, daemon);
      return after.kernel === before.kernel && after.descriptors <= most;
    });
  } catch {
    const lines = new Set(before.kernel.split("\n"));
    const more = after.kernel.split("\n").filter((line) => !lines.has(line));
    const counts = `${before.descriptors} descriptors before, ${after.descriptors} after`;
    throw new Error([`something was left behind; ${counts}`, ...more].join("\n"));
  }
}

/** Resident memory of the daemon, in bytes. */
export async function residentBytes(host: Machine, daemon: Daemon): Promise<number> {
  const status = await host.must(["cat", `/proc/${daemon.pid}/status`]);
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}
