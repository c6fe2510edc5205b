/** Waiting in one thread for another one. */
import assert from "node:assert/strict";
import { PollSet, WakeCounter } from "../../lib/linux/wake.ts";

Deno.test("WakeCounter counts what was added since it was last read, for every holder of it", () => {
  const counter = WakeCounter.create();
  try {
    const same = new WakeCounter(counter.fd);
    assert.equal(counter.take(), 0);
    counter.add();
    same.add();
    assert.equal(same.take(), 2);
    assert.equal(counter.take(), 0);
  } finally {
    counter.close();
  }
});

Deno.test("PollSet.wait() ends when one of its descriptors can be read, and says which", () => {
  const [quiet, woken] = [WakeCounter.create(), WakeCounter.create()];
  try {
    const polled = new PollSet([quiet.fd, woken.fd]);
    polled.wait(0);
    assert.deepEqual([polled.isReady(0), polled.isReady(1)], [false, false]);
    woken.add();
    polled.wait(60_000);
    assert.deepEqual([polled.isReady(0), polled.isReady(1)], [false, true]);
    woken.take();
    polled.wait(0);
    assert.equal(polled.isReady(1), false);
  } finally {
    quiet.close();
    woken.close();
  }
});
