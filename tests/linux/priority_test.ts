/** How urgent a thread is, as the kernel has it. */
import assert from "node:assert/strict";
import { bookkeepingUrgency, setThreadUrgency, usualUrgency } from "../../lib/linux/priority.ts";
import { labTest } from "../lab/requirements.ts";
import { nicenessOf, thisThread } from "./this_thread.ts";

labTest("setThreadUrgency() is about the calling thread and no other", {}, () => {
  const usual = usualUrgency();
  setThreadUrgency({ niceness: -7, sliceUs: 200 });
  try {
    assert.equal(nicenessOf(thisThread()), -7);
    const urgent = [...Deno.readDirSync("/proc/self/task")].filter(({ name }) =>
      nicenessOf(name) === -7
    );
    assert.equal(urgent.length, 1);
  } finally {
    setThreadUrgency(usual);
  }
});

labTest("whoever starts the daemon says how nice it is, to threads of all kinds", {}, () => {
  const usual = usualUrgency();
  setThreadUrgency({ niceness: -3, sliceUs: 0 });
  try {
    for (const urgency of [usualUrgency(), bookkeepingUrgency()]) {
      assert.equal(urgency.niceness, -3);
      setThreadUrgency(urgency);
      assert.equal(nicenessOf(thisThread()), -3);
    }
  } finally {
    setThreadUrgency(usual);
  }
});
