import assert from "node:assert/strict";
import { race } from "./race.ts";
import { compare } from "./result.ts";

const RATE = { suite: "s", case: "c", unit: "answers/s", better: "higher" } as const;
const LATENCY = { suite: "s", case: "c", unit: "ms", better: "lower" } as const;

Deno.test("compare() is above 1 when ours beats the best peer, whichever way is better", () => {
  assert.equal(compare({ ...RATE, ours: 300, peers: { slow: 100, fast: 200 } }).ratio, 1.5);
  assert.equal(compare({ ...RATE, ours: 100, peers: { slow: 100, fast: 200 } }).ratio, 0.5);
  assert.equal(compare({ ...LATENCY, ours: 2, peers: { slow: 4, fast: 3 } }).ratio, 1.5);
  assert.equal(compare({ ...LATENCY, ours: 6, peers: { slow: 4, fast: 3 } }).ratio, 0.5);
});

Deno.test("compare() has no ratio without a peer, and keeps what it was given", () => {
  const parts = { ...RATE, ours: 1, peers: {} };
  assert.deepEqual(compare(parts), { ...parts, ratio: null });
});

Deno.test("compare() takes no failed measurement for a result, and names who failed", () => {
  for (const failed of [0, -1, NaN, Infinity]) {
    assert.throws(() => compare({ ...RATE, ours: failed, peers: { peer: 1 } }), /s\/c: ours/);
    assert.throws(() => compare({ ...RATE, ours: 1, peers: { a: 1, peer: failed } }), /s\/c: peer/);
  }
});

Deno.test("race() lets all take turns and compares the medians", async () => {
  const order: string[] = [];
  const figures: Record<string, number[]> = { ours: [90, 30, 60], a: [1, 20, 400], b: [7, 9, 8] };
  const measure = (name: string): Promise<number> => {
    order.push(name);
    return Promise.resolve(figures[name]?.shift() ?? NaN);
  };
  const result = await race(RATE, measure, "ours", { a: "a", b: "b" });
  assert.deepEqual(result, { ...RATE, ours: 60, peers: { a: 20, b: 8 }, ratio: 3 });
  assert.deepEqual(order, ["ours", "a", "b", "ours", "a", "b", "ours", "a", "b"]);
});

Deno.test("race() fails with the name of the contender that failed", async () => {
  const measure = (name: string): Promise<number> =>
    name === "a" ? Promise.reject(new Error("refused")) : Promise.resolve(1);
  await assert.rejects(race(RATE, measure, "ours", { a: "a" }), /^Error: s\/c: a: refused$/);
});
