/** Token buckets under a clock of the test's own. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { QueryBuckets } from "../../lib/dns/rate.ts";

Deno.test("a source gets its burst, then its rate, and others are not concerned", () => {
  let nowMs = 0;
  const buckets = new QueryBuckets<string>({ count: 10, windowSecs: 2 }, () => nowMs);
  const admitted = (source: string, queries: number): number =>
    Array.from({ length: queries }, () => buckets.admits(source)).filter(Boolean).length;
  assert.equal(admitted("a", 25), 10);
  assert.equal(admitted("b", 3), 3);
  nowMs += 1000;
  assert.equal(admitted("a", 25), 5);
  nowMs += 60_000;
  assert.equal(admitted("a", 25), 10, "no more than one burst is ever saved up");
});

Deno.test("an emptied bucket fills as before, and emptying one that is not there adds none", () => {
  let nowMs = 0;
  const buckets = new QueryBuckets<string>({ count: 10, windowSecs: 1 }, () => nowMs);
  assert(buckets.admits("a"));
  buckets.empty("a");
  assert(!buckets.admits("a"));
  nowMs += 100;
  assert(buckets.admits("a"));
  assert(!buckets.admits("a"));
  buckets.empty("b");
  assert(buckets.admits("b"));
});

Deno.test("no schedule of queries gets more than burst plus rate", () => {
  fc.assert(fc.property(fc.array(fc.nat(300), { maxLength: 400 }), (pausesMs) => {
    let nowMs = 0;
    const buckets = new QueryBuckets<number>({ count: 20, windowSecs: 1 }, () => nowMs);
    let admitted = 0;
    for (const pauseMs of pausesMs) {
      nowMs += pauseMs;
      if (buckets.admits(1)) admitted++;
    }
    assert(admitted <= 20 + nowMs / 50);
  }));
});

Deno.test("made-up sources are bounded: refused when there are too many, room again when idle", () => {
  let nowMs = 0;
  const buckets = new QueryBuckets<number>({ count: 1, windowSecs: 1 }, () => nowMs);
  for (let source = 0; source < 4096; source++) assert(buckets.admits(source));
  assert(!buckets.admits(5000));
  nowMs += 2000;
  assert(buckets.admits(5000), "idle sources made room");
});
