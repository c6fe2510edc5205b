/** How urgent a thread is, as the kernel has it. */
import assert from "node:assert/strict";
import { setThreadUrgency } from "../../lib/linux/priority.ts";
import { labTest } from "../lab/requirements.ts";

/** proc_pid_stat(5): the 19th field; the second may contain blanks. */
function nicenessOf(thread: string): number {
  const stat = Deno.readTextFileSync(`/proc/self/task/${thread}/stat`);
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]);
}

labTest("setThreadUrgency() is about the calling thread and no other", {}, () => {
  setThreadUrgency({ niceness: -7, sliceUs: 200 });
  try {
    const link = Deno.readLinkSync("/proc/thread-self");
    assert.equal(nicenessOf(link.slice(link.lastIndexOf("/") + 1)), -7);
    const urgent = [...Deno.readDirSync("/proc/self/task")].filter(({ name }) =>
      nicenessOf(name) === -7
    );
    assert.equal(urgent.length, 1);
  } finally {
    setThreadUrgency({ niceness: 0, sliceUs: 3000 });
  }
});
