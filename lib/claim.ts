/**
 * One daemon for a network namespace. There is one firewall in it, by the tables' names, and a second
 * daemon would close what the first one serves before it found a port in use.
 *
 * The file of a lock is named after the namespace, so that flags make no difference, nor does a
 * container of the host's network that has the usual directory mounted.
 */
import { OutcallError } from "./errors.ts";
import { tryLock } from "./lock_file.ts";

/** Where the operator's socket usually is; also in the container of a daemon. */
const DIRECTORY = "/run/outcall";

/**
 * Claims the firewall of this network namespace until this process ends. Where no lock can be had at all
 * it goes on: whatever is wrong with the machine is found out behind the firewall.
 * @param directory For tests.
 * @returns The lock, to be left open; null where there is none.
 * @throws OutcallError `daemon.running` (409): another daemon has it.
 */
export function claimFirewall(directory = DIRECTORY): Deno.FsFile | null {
  try {
    Deno.mkdirSync(directory, { recursive: true, mode: 0o755 });
    // Such as net:[4026531840].
    const namespace = Deno.readLinkSync("/proc/self/ns/net").replace(/[^0-9]/g, "");
    const lock = tryLock(`${directory}/.firewall-${namespace}.lock`);
    if (lock !== null) return lock;
  } catch {
    return null;
  }
  throw new OutcallError(
    409,
    "daemon.running",
    "another outcalld has the firewall of this host, or is about to end",
    { hint: "Stop it first, or wait for it: `outcall status` shows the one that serves." },
  );
}
