/** The queue in front of the history: bounded, and honest about what did not fit. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { type Decision, DecisionLog, type NewDecision } from "../../lib/decision.ts";
import {
  Backlog,
  BATCH_DECISIONS,
  BURST_DECISIONS,
  ROOM_PER_BATCH,
} from "../../lib/record/backlog.ts";
import { blockedName } from "./support.ts";

function feeding(): { readonly log: DecisionLog; readonly backlog: Backlog } {
  const log = new DecisionLog(10);
  const backlog = new Backlog();
  log.addSink(backlog.add);
  return { log, backlog };
}

/** A blocked question of one of many agents. */
function blockedOf(number: number, host: string): NewDecision {
  const decision = blockedName(host);
  assert.ok(decision.agent !== null);
  const address = `10.200.0.${number}`;
  const containerId = `${number}`.padStart(64, "0");
  return { ...decision, agent: { ...decision.agent, address, containerId }, source: address };
}

function takeAll(backlog: Backlog): Decision[] {
  const all: Decision[] = [];
  while (backlog.size > 0) all.push(...backlog.take().map(({ decision }) => decision));
  return all;
}

Deno.test("what fits is kept as it is, in order", () => {
  const { log, backlog } = feeding();
  const records = ["a", "a", "b"].map((name) => log.record(blockedName(name)));
  assert.deepEqual(backlog.take().map(({ decision }) => decision), records);
  assert.deepEqual(backlog.take(), []);
  assert.deepEqual(backlog.overflow, { merged: 0, lost: 0 });
});

Deno.test("a record that grows while it waits is kept once, as it is now", () => {
  const { log, backlog } = feeding();
  const record = log.record(blockedName("a"));
  const grown = log.update(record, { count: 9 });
  assert.deepEqual(backlog.take(), [{ decision: grown, sequence: log.sequence }]);
});

Deno.test("a batch has a bound, so that nobody waits long for one", () => {
  const { log, backlog } = feeding();
  for (let i = 0; i < BATCH_DECISIONS + 1; i++) log.record(blockedName(`h${i}`));
  assert.equal(backlog.take().length, BATCH_DECISIONS);
  assert.equal(backlog.take().length, 1);
});

Deno.test("beyond the bound repeated attempts are counted, and new ones are lost and counted", () => {
  const { log, backlog } = feeding();
  for (let i = 0; i < BURST_DECISIONS / 2; i++) log.record(blockedName(`h${i}`));
  for (let i = 0; i < 5; i++) log.record(blockedName("h7"));
  log.record({ ...blockedName("h7"), count: 3 });
  for (let i = 0; i < 4; i++) log.record(blockedName(`new${i}`));
  assert.equal(backlog.size, BURST_DECISIONS / 2);
  assert.deepEqual(backlog.overflow, { merged: 8, lost: 4 });
  const repeated = takeAll(backlog).filter(({ attempt }) => attempt.host === "h7");
  assert.deepEqual(repeated.map(({ count }) => count), [9]);
});

Deno.test("allowed attempts leave room for those that are blocked", () => {
  const { log, backlog } = feeding();
  for (let i = 0; i < 2 * BURST_DECISIONS; i++) {
    log.record({ ...blockedName(`h${i}`), verdict: "allow", reason: "rule" });
  }
  assert.ok(backlog.overflow.lost > BURST_DECISIONS);
  const { lost } = backlog.overflow;
  for (let i = 0; i < 1_000; i++) log.record(blockedName(`blocked${i}`));
  assert.equal(backlog.overflow.lost, lost);
});

Deno.test("a lasting flood is kept at the rate of the batches", () => {
  const { log, backlog } = feeding();
  let kept = 0;
  for (let batch = 0; batch < 40; batch++) {
    for (let i = 0; i < 5_000; i++) log.record(blockedName(`h${batch}.${i}`));
    kept += backlog.take().length;
  }
  kept += takeAll(backlog).length;
  assert.ok(kept <= BURST_DECISIONS + 40 * ROOM_PER_BATCH, `${kept} kept`);
  assert.equal(kept + backlog.overflow.lost, 200_000);
});

Deno.test("however many agents flood, one that does not loses nothing", () => {
  for (const flooders of [1, 2, 5, 10, 50]) {
    const { log, backlog } = feeding();
    const kept: Decision[] = [];
    for (let batch = 0; batch < 20; batch++) {
      for (let i = 0; i < 6_000; i++) {
        log.record(blockedOf(2 + i % flooders, `flood${batch}.${i}`));
      }
      for (let i = 0; i < 5; i++) {
        const blocked = blockedOf(200, `calm${batch}.${i}`);
        log.record(blocked);
        log.record({ ...blocked, verdict: "allow", reason: "rule" });
      }
      kept.push(...backlog.take().map(({ decision }) => decision));
    }
    kept.push(...takeAll(backlog));
    const calm = kept.filter(({ source }) => source === "10.200.0.200");
    assert.equal(calm.length, 20 * 10, `of one beside ${flooders}`);
    const { merged, lost } = backlog.overflow;
    assert.deepEqual([merged, kept.length + lost], [0, 20 * 6_010], "the rest counts as lost");
    assert.ok(kept.length <= BURST_DECISIONS + 20 * ROOM_PER_BATCH, `${kept.length} kept`);
    const room = BURST_DECISIONS * flooders / (flooders + 1) + 19 * ROOM_PER_BATCH;
    assert.ok(kept.length >= room - flooders, `${kept.length} kept of ${room}`);
  }
});

Deno.test("strangers have one share together, whatever addresses they have", () => {
  const { log, backlog } = feeding();
  for (let i = 0; i < 2 * BURST_DECISIONS; i++) {
    log.record({ ...blockedName(`h${i}`), agent: null, source: `192.0.2.${i % 250}` });
  }
  assert.equal(backlog.size, BURST_DECISIONS / 2);
});

Deno.test("what repeats an attempt is counted by it, also when others had no room before", () => {
  const { log, backlog } = feeding();
  for (let i = 0; i < BURST_DECISIONS; i++) log.record(blockedOf(2, `h${i}`));
  const { lost } = backlog.overflow;
  assert.ok(lost > 0);
  for (let i = 0; i < BURST_DECISIONS; i++) log.record(blockedOf(3, `h${i % 100}`));
  assert.equal(backlog.overflow.lost, lost);
});

Deno.test("whatever comes, every attempt is kept, counted or lost, and the queue is bounded", () => {
  const step = fc.oneof(
    {
      weight: 20,
      arbitrary: fc.record({ name: fc.nat(40), agent: fc.nat(3), burst: fc.nat(900) }),
    },
    { weight: 1, arbitrary: fc.constant("take" as const) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { log, backlog } = feeding();
      let attempts = 0;
      let taken = 0;
      const sum = (decisions: readonly Decision[]): number =>
        decisions.reduce((total, { count }) => total + (count ?? 1), 0);
      for (const step of steps) {
        if (step === "take") {
          taken += sum(backlog.take().map(({ decision }) => decision));
          continue;
        }
        for (let i = 0; i < step.burst; i++) {
          log.record(blockedOf(step.agent, `h${step.name}.${i % 300}`));
        }
        attempts += step.burst;
        assert.ok(backlog.size <= BURST_DECISIONS);
      }
      taken += sum(takeAll(backlog));
      assert.equal(taken + backlog.overflow.lost, attempts);
    }),
    { numRuns: 30 },
  );
});
