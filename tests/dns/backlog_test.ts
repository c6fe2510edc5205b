/** What is under way to the main isolate, and how much of it one source may have. */
import assert from "node:assert/strict";
import { Backlog } from "../../lib/dns/worker/backlog.ts";
import { Shared } from "../../lib/dns/worker/protocol.ts";

/** How many of `packets` from `source` are handed over. */
function handOver(backlog: Backlog, source: number, packets: number): number {
  let count = 0;
  for (let i = 0; i < packets; i++) count += Number(backlog.admits(source));
  return count;
}

Deno.test("one source has its share, others have theirs, and what was taken makes room", () => {
  const shared = new Shared();
  const backlog = new Backlog(shared);
  assert.equal(handOver(backlog, 1, 5000), 256);
  assert.equal(handOver(backlog, 2, 100), 100);
  // The oldest are those of the first source.
  shared.addTakenPackets(56);
  assert.equal(handOver(backlog, 1, 5000), 56);
  assert.equal(handOver(backlog, 2, 5000), 156);
});

Deno.test("its numbers may wrap around", () => {
  const shared = new Shared();
  shared.addTakenPackets(2 ** 31 - 100);
  const backlog = new Backlog(shared);
  for (let round = 0; round < 10; round++) {
    assert.equal(handOver(backlog, 1, 300), 256);
    assert.equal(handOver(backlog, 2, 10), 10);
    shared.addTakenPackets(266);
  }
  assert(shared.takenPackets < 0);
});
