/** When the thread naps, and when it goes before others. */
import assert from "node:assert/strict";
import { Pace } from "../../lib/dns/worker/pace.ts";
import { setThreadUrgency, usualUrgency } from "../../lib/linux/priority.ts";
import { labTest } from "../lab/requirements.ts";
import { nicenessOf, thisThread } from "../linux/this_thread.ts";

/** A thread that looks once in a millisecond; returns how often it napped. */
function look(pace: Pace, fromMs: number, looks: number, packets: number): number {
  let naps = 0;
  for (let i = 0; i < looks; i++) {
    if (pace.nap()) naps++;
    pace.looked(packets, fromMs + i);
  }
  return naps;
}

labTest("it naps after a look that found several packets, and only then", {}, () => {
  const pace = new Pace();
  assert.equal(look(pace, 0, 10, 3), 0);
  assert.equal(look(pace, 10, 10, 4), 9);
  assert.equal(look(pace, 20, 10, 0), 1);
});

labTest("it goes before others in a rush, and gives that up two seconds after it", {}, () => {
  const usual = usualUrgency();
  setThreadUrgency({ niceness: 1, sliceUs: 20_000 });
  const niceness = (): number => nicenessOf(thisThread());
  try {
    const pace = new Pace();
    look(pace, 0, 101, 1);
    assert.equal(niceness(), 1, "as whoever started it wants");
    look(pace, 101, 19, 4);
    look(pace, 120, 81, 1);
    assert.equal(niceness(), 1, "a pause of ours lets a few packets gather");
    look(pace, 201, 100, 4);
    assert.equal(niceness(), -10);
    look(pace, 301, 1900, 1);
    assert.equal(niceness(), -10);
    look(pace, 2201, 200, 1);
    assert.equal(niceness(), 1);
  } finally {
    setThreadUrgency(usual);
  }
});
