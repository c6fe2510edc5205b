/** What agents that came and went could leave behind: in the kernel, and in the daemon. */
import { eventually } from "../eventually.ts";
import type { Daemon } from "./daemon.ts";
import type { Machine } from "./machine.ts";

/** What there was at one moment. */
export interface Leftovers {
  /** Links, network namespaces, and open descriptors of the daemon. */
  readonly counts: readonly number[];
  /** The lines of all tables and sets. */
  readonly tables: readonly string[];
}

/** Connections that are being closed, timers: descriptors that do not add up. */
const TOLERATED = [0, 0, 5];

/** What there is on `host` now. */
export async function leftovers(host: Machine, daemon: Daemon): Promise<Leftovers> {
  const counting = `ip -o link | wc -l; lsns -n -t net | wc -l; ls /proc/${daemon.pid}/fd | wc -l`;
  const [counts, tables] = await Promise.all([
    host.must(["bash", "-c", counting]),
    host.must(["nft", "-s", "list", "ruleset"]),
  ]);
  // Sources of reported drops end a minute after their last one, by the kernel's clock.
  const lasting = tables.replace(/^\tset reported \{.*?^\t\}\n/gms, "");
  return { counts: counts.trim().split("\n").map(Number), tables: lasting.split("\n") };
}

/** Waits until there is no more than `before`; the kernel takes things back in its own time. */
export async function nothingLeft(
  host: Machine,
  daemon: Daemon,
  before: Leftovers,
): Promise<void> {
  const known = new Set(before.tables);
  let after = before;
  let more: readonly string[] = [];
  try {
    await eventually(async () => {
      after = await leftovers(host, daemon);
      more = after.tables.filter((line) => !known.has(line));
      const isNoMore = after.counts.every((count, i) =>
        count <= (before.counts[i] ?? 0) + (TOLERATED[i] ?? 0)
      );
      return isNoMore && more.length === 0;
    });
  } catch {
    const counts = `links, namespaces, descriptors: ${before.counts} before, ${after.counts} after`;
    throw new Error([`something was left behind; ${counts}`, ...more].join("\n"));
  }
}

/** Resident memory of the daemon, in bytes. */
export async function residentBytes(host: Machine, daemon: Daemon): Promise<number> {
  const status = await host.must(["cat", `/proc/${daemon.pid}/status`]);
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}
