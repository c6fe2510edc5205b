/** The decision log: ids, the ring of the newest, and records that grow. */
import assert from "node:assert/strict";
import {
  type Change,
  type Decision,
  DECISION_SCHEMA,
  decisionId,
  DecisionLog,
  sequenceAt,
} from "../../lib/decision.ts";
import { decisionSchema } from "../../lib/record/schema.ts";
import { blockedName } from "./support.ts";

interface Seen {
  readonly decision: Decision;
  readonly change: Change;
  readonly sequence: number;
}

function watched(capacity: number): { readonly log: DecisionLog; readonly seen: Seen[] } {
  const log = new DecisionLog(capacity);
  const seen: Seen[] = [];
  log.addSink((decision, change, sequence) => void seen.push({ decision, change, sequence }));
  return { log, seen };
}

Deno.test("ids sort in the order they were made, also when the clock steps back", () => {
  const later = Date.now() + 60_000;
  const ids = [decisionId(later), decisionId(later - 5_000), decisionId(later), decisionId()];
  assert.deepEqual(ids.toSorted(), ids);
  assert.equal(new Set(ids).size, ids.length);
  for (const id of ids) assert.match(id, /^[0-9a-hjkmnp-tv-z]{17}$/);
});

Deno.test("a record says which version of the schema it has", () => {
  assert.equal(new DecisionLog().record(blockedName("a.test")).schema, DECISION_SCHEMA);
});

Deno.test("the ring keeps the newest, oldest first", () => {
  const { log } = watched(3);
  for (const name of ["a", "b", "c", "d"]) log.record(blockedName(name));
  assert.deepEqual(log.recent().map(({ attempt }) => attempt.host), ["b", "c", "d"]);
  assert.deepEqual(log.recent(1).map(({ attempt }) => attempt.host), ["d"]);
});

Deno.test("a record that grows keeps its id and place, and every receiver sees both versions", () => {
  const { log, seen } = watched(3);
  const first = log.record(blockedName("a"));
  log.record(blockedName("b"));
  const grown = log.update(first, { count: 7, targets: { distinct: 2, first: ["a:1", "a:2"] } });
  assert.deepEqual(log.recent().map(({ count }) => count), [7, undefined]);
  assert.equal(log.find(first.id), grown);
  assert.equal(grown.time, first.time);
  assert.ok(grown.updated !== undefined && grown.updated >= first.time);
  assert.deepEqual(
    seen.map(({ decision, change }) => [decision.id === first.id, change]),
    [[true, "new"], [false, "new"], [true, "update"]],
  );
});

Deno.test("a record that left the ring and grows is news again", () => {
  const { log, seen } = watched(1);
  const first = log.record(blockedName("a"));
  log.record(blockedName("b"));
  log.update(first, { durationMs: 5 });
  assert.equal(seen.at(-1)?.decision.durationMs, 5);
  assert.equal(log.find(first.id)?.durationMs, 5);
  assert.deepEqual(log.since(log.sequence - 1).map(({ decision }) => decision.id), [first.id]);
});

Deno.test("sequences go on after those of an earlier daemon whose clock was ahead", () => {
  const { log, seen } = watched(10);
  const ahead = sequenceAt(Date.now() + 3_600_000);
  log.resumeAfter(ahead);
  log.record(blockedName("a"));
  assert.equal(seen[0]?.sequence, ahead + 1);
  log.resumeAfter(5);
  assert.equal(log.sequence, ahead + 1);
});

Deno.test("sequences rise with each change, and from one daemon to the next", () => {
  const { log, seen } = watched(10);
  const first = log.record(blockedName("a"));
  log.update(first, { count: 2 });
  log.record(blockedName("b"));
  const sequences = seen.map(({ sequence }) => sequence);
  assert.deepEqual(sequences.toSorted((a, b) => a - b), sequences);
  assert.equal(new Set(sequences).size, 3);
  assert.equal(log.sequence, sequences.at(-1));
  assert.ok(sequenceAt(Date.now() + 1_000) > log.sequence);
  assert.ok(Number.isSafeInteger(log.sequence));
});

Deno.test("what changed since a sequence comes in the order of changes, as far as it is remembered", () => {
  const { log, seen } = watched(3);
  const first = log.record(blockedName("a"));
  log.record(blockedName("b"));
  log.update(first, { count: 2 });
  const hosts = (sequence: number): (string | undefined)[] =>
    log.since(sequence).map(({ decision }) => decision.attempt.host);
  assert.deepEqual(hosts(log.forgotten), ["b", "a"]);
  assert.deepEqual(hosts(seen[1]?.sequence ?? 0), ["a"]);
  assert.deepEqual(hosts(log.sequence), []);
  const before = log.forgotten;
  for (const name of ["c", "d"]) log.record(blockedName(name));
  assert.ok(log.forgotten > before, "a, changed after b, has left");
  assert.deepEqual(hosts(0), ["b", "c", "d"]);
});

Deno.test("a decision survives JSON and its check unchanged, whatever it carries", () => {
  const log = new DecisionLog();
  const record = log.record(blockedName("a"));
  const grown = log.update(record, {
    count: 3,
    durationMs: 1.5,
    targets: { distinct: 2, first: ["1.1.1.1:53", "1.1.1.1:54"] },
    tunnel: { upBytes: 1, downBytes: 2, end: "closed" },
  });
  const plain = log.record({
    ...blockedName("b"),
    agent: null,
    upstreamMs: null,
    rule: { id: "r", file: "/etc/outcall/rules.d/a.yaml", line: 3 },
  });
  for (const decision of [record, grown, plain]) {
    assert.deepEqual(decisionSchema.parse(JSON.parse(JSON.stringify(decision))), decision);
  }
});
