/** The worker's records: what is shared, what is counted, and when it is reported. */
import assert from "node:assert/strict";
import type { NewDecision } from "../../lib/decision.ts";
import { Journal } from "../../lib/dns/worker/journal.ts";

const DECISION: NewDecision = {
  generation: 1,
  layer: "dns",
  agent: null,
  source: "10.200.0.2",
  attempt: { host: "a.test" },
  verdict: "block",
  reason: "default",
  rule: null,
};
const PACKET = Uint8Array.of(1, 2, 3, 4);
const REPLY = Uint8Array.of(9);

/** A journal that answered {@linkcode PACKET} at time 0. */
function answered(): Journal {
  const journal = new Journal();
  journal.record(DECISION);
  journal.remember(7, PACKET, REPLY, 0);
  return journal;
}

Deno.test("an identical packet gets the same reply, whatever its id, and is counted", () => {
  const journal = answered();
  assert.equal(journal.recall(7, Uint8Array.of(8, 8, 3, 4), 499), REPLY);
  const { decisions } = journal.take(499);
  assert.deepEqual(decisions.map(({ count }) => count), [2]);
});

Deno.test("another source, another packet, a later one get nothing", () => {
  const journal = answered();
  assert.equal(journal.recall(8, PACKET, 0), undefined);
  assert.equal(journal.recall(7, Uint8Array.of(1, 2, 3, 5), 0), undefined);
  assert.equal(journal.recall(7, Uint8Array.of(1, 2, 3), 0), undefined);
  assert.equal(journal.recall(7, PACKET, 500), undefined);
  assert.equal(journal.take(500).decisions[0]?.count, undefined, "one attempt is not counted");
});

Deno.test("a reply ends with the report of its decision, and when something changed", () => {
  const reported = answered();
  reported.take(0);
  assert.equal(reported.recall(7, PACKET, 1), undefined);
  const changed = answered();
  changed.forgetReplies();
  assert.equal(changed.recall(7, PACKET, 1), undefined);
});

Deno.test("a report is due at once after a quiet moment, later in busy ones, never for nothing", () => {
  const journal = new Journal();
  assert.equal(journal.dueInMs(1000), null);
  journal.record(DECISION);
  assert.equal(journal.dueInMs(1000), 0);
  journal.take(1000);
  journal.drop();
  assert.equal(journal.dueInMs(1030), 70);
  for (let i = 0; i < 300; i++) journal.record(DECISION);
  assert.equal(journal.dueInMs(1100), 400, "shared replies live on");
  for (let i = 0; i < 2000; i++) journal.record(DECISION);
  assert.equal(journal.dueInMs(1100), 0, "before it is full");
  assert.equal(journal.take(1100).dropped, 1);
});

Deno.test("a journal is full some time", () => {
  const journal = new Journal();
  while (!journal.isFull) journal.record(DECISION);
  assert(journal.take(0).decisions.length <= 4096);
  assert(!journal.isFull);
});
