/** Which sources are muted, from when on and until when. */
import assert from "node:assert/strict";
import { Floods } from "../../lib/dns/worker/floods.ts";

const RATE = { count: 2000, windowSecs: 1 };

/** Takes stock every 25 ms while `perLook` packets of source 7 exceed the rate. */
function flood(floods: Floods, fromMs: number, perLook: readonly number[]): void {
  for (const [i, packets] of perLook.entries()) {
    for (let k = 0; k < packets; k++) floods.exceeded(7);
    floods.look(fromMs + 25 * i);
  }
}

Deno.test("a source is muted for sending several times its rate, for a moment", () => {
  const floods = new Floods(RATE);
  flood(floods, 0, [5000]);
  assert.deepEqual(floods.muted, [], "nobody knows yet in what time");
  flood(floods, 25, [200, 200]);
  assert.deepEqual(floods.muted, [], "little more than it may");
  floods.exceeded(8);
  flood(floods, 75, [201]);
  assert.deepEqual(floods.muted, [7], "and nobody else");
  assert.equal(floods.look(125), false);
  assert.equal(floods.look(150), true);
  assert.deepEqual(floods.muted, []);
});

Deno.test("with a small rate it takes more than its multiple: that many cost nothing", () => {
  const floods = new Floods({ count: 1, windowSecs: 60 });
  flood(floods, 0, [0, 100]);
  assert.deepEqual(floods.muted, []);
  flood(floods, 50, [101]);
  assert.deepEqual(floods.muted, [7]);
});

Deno.test("stock is taken only while somebody exceeds the rate, or is muted", () => {
  const floods = new Floods(RATE);
  assert.equal(floods.dueInMs(0), null);
  floods.exceeded(7);
  assert.equal(floods.dueInMs(0), 0);
  floods.look(0);
  assert.equal(floods.dueInMs(10), null);
  floods.exceeded(7);
  assert.equal(floods.dueInMs(10), 15);
  flood(floods, 25, [1000]);
  assert.equal(floods.dueInMs(35), 15);
});
