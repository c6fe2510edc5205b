/**
 * The real `DropReader` as a program, to run inside a lab machine. For each line on standard input it
 * prints its health and counters; after the line `break` it closes the reader's socket under it first.
 */
import { createInterface } from "node:readline";
import process from "node:process";
import { DropReader } from "../../lib/bridge/drops/reader.ts";
import { DecisionLog } from "../../lib/decision.ts";
import { bindLibc } from "../../lib/linux/libc.ts";

const NETLINK_NETFILTER = "12";
const libc = bindLibc({ close: { parameters: ["i32"], result: "i32" } });

/** Closes this process's socket of the packet log. */
function breakSocket(): void {
  const inodes = Deno.readTextFileSync("/proc/self/net/netlink").split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([, protocol]) => protocol === NETLINK_NETFILTER)
    .map((fields) => fields.at(-1));
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const target = ((): string => {
      try {
        return Deno.readLinkSync(`/proc/self/fd/${name}`);
      } catch {
        return ""; // that of the listing itself
      }
    })();
    if (inodes.some((inode) => target === `socket:[${inode}]`)) libc.close(Number(name));
  }
}

const log = new DecisionLog();
const reader = new DropReader({
  pins: () => [],
  identify: () => null,
  generation: () => 1,
  record: (decision) => log.record(decision),
  update: (decision, changes) => log.update(decision, changes),
});
reader.start();
console.log("started");
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "break") breakSocket();
  console.log(JSON.stringify({ ...reader.health(), ...reader.stats() }));
}
