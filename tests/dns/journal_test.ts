/** The worker's records: what is shared, what is counted, when it is reported, and how it is read. */
import assert from "node:assert/strict";
import { DECISION_SCHEMA, type NewDecision } from "../../lib/decision.ts";
import { Journal, JournalReader } from "../../lib/dns/worker/journal.ts";

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
const OTHER: NewDecision = { ...DECISION, attempt: { host: "b.test" } };

Deno.test("decisions cross over under their ids, in order, with what they stand for", () => {
  const journal = new Journal();
  const reader = new JournalReader();
  const first = journal.record(DECISION, 1);
  const outline = journal.newestOutline;
  const position = journal.newest;
  const second = journal.record(OTHER, 1);
  journal.repeat(position);
  journal.repeat(position);
  journal.hit("key");
  journal.hit("key");
  journal.drop();
  const activity = reader.read(structuredClone(journal.take(0)));
  assert.deepEqual(activity.decisions.map(({ time: _, ...decision }) => decision), [
    { schema: DECISION_SCHEMA, id: first, ...DECISION, count: 3 },
    { schema: DECISION_SCHEMA, id: second, ...OTHER },
  ]);
  assert(activity.decisions.every(({ time }) => /^\d{4}-\d\d-\d\dT[\d:.]{12}Z$/.test(time)));
  assert.deepEqual([activity.hits, activity.dropped], [["key"], 1]);

  const third = journal.repeatOutline(outline, 1);
  const report = journal.take(100);
  assert.deepEqual(report.outlines, [], "what is known is not said again");
  const [again] = reader.read(report).decisions;
  assert.deepEqual([again?.id, again?.attempt, again?.count], [third, DECISION.attempt, undefined]);
});

Deno.test("outlines are kept until the worker closes them, and for the report that refers to them last", () => {
  const journal = new Journal();
  const reader = new JournalReader();
  journal.record(DECISION, 1);
  reader.read(journal.take(0));
  assert.deepEqual([journal.outlines, reader.outlines], [1, 1]);
  journal.repeatOutline(0, 1);
  journal.closeOutlines();
  journal.record(OTHER, 1);
  const { decisions } = reader.read(journal.take(0));
  assert.deepEqual(decisions.map(({ attempt }) => attempt.host), ["a.test", "b.test"]);
  assert.deepEqual([journal.outlines, reader.outlines], [1, 1]);
  journal.repeatOutline(0, 1);
  assert.throws(() => reader.read(journal.take(0)), /never reported/);
});

Deno.test("a report is due at once after a quiet moment, later in busy ones, never for nothing", () => {
  const journal = new Journal();
  assert.equal(journal.dueInMs(1000), null);
  journal.record(DECISION, 1);
  assert.equal(journal.dueInMs(1000), 0);
  journal.take(1000);
  journal.drop();
  assert.equal(journal.dueInMs(1030), 70);
  for (let i = 0; i < 300; i++) journal.record(DECISION, 1);
  assert.equal(journal.dueInMs(1100), 400, "more attempts share a decision");
  for (let i = 0; i < 2000; i++) journal.record(DECISION, 1);
  assert.equal(journal.dueInMs(1100), 0, "before it is full");
  assert.equal(journal.take(1100).dropped, 1);
});

Deno.test("a journal is full some time, with room for the two decisions of a packet that fails", () => {
  const journal = new Journal();
  for (let source = 0; journal.hasRoomFor(source); source++) {
    while (journal.hasRoomFor(source)) journal.record(DECISION, source);
  }
  journal.record(DECISION, 0);
  const { decisions } = new JournalReader().read(journal.take(0));
  assert(decisions.length <= 4096);
  assert(decisions.every(({ count }) => count === undefined));
  assert(journal.hasRoomFor(0));
});
