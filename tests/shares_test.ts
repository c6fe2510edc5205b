/** Places that holders compete for. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Shares } from "../lib/shares.ts";

/** Lets `holder` take what it can get; returns how many places that are. */
function takeAll(shares: Shares<string>, holder: string): number {
  let count = 0;
  for (; shares.hasRoomFor(holder); count++) shares.take(holder);
  return count;
}

Deno.test("nobody holds more than its bound, nor more than are free", () => {
  const shares = new Shares<string>(100, 30);
  assert.deepEqual(["a", "b", "c"].map((holder) => takeAll(shares, holder)), [30, 30, 20]);
  assert(shares.hasRoomFor("d"));
  for (let i = 0; i < 30; i++) shares.release("a");
  assert.equal(takeAll(shares, "d"), 25);
  assert.equal(takeAll(shares, "a"), 13);
});

Deno.test("who may hold half of what is free leaves room for what matters more", () => {
  const shares = new Shares<string>(90, 90);
  for (let i = 0; i < 30; i++, shares.take("a")) assert(shares.hasRoomFor("a", 0.5));
  assert(!shares.hasRoomFor("a", 0.5));
  assert.equal(takeAll(shares, "a"), 15);
});

Deno.test("however many take what they can get, who comes later has as much in the end", () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 20 }), (greedy) => {
    const shares = new Shares<number>(200, 200);
    const queue: number[] = [];
    const holders = Array.from({ length: greedy }, (_, holder) => holder);
    const takeWhatThereIs = (): void => {
      for (const holder of holders) {
        for (; shares.hasRoomFor(holder); queue.push(holder)) shares.take(holder);
      }
    };
    // Whoever waited longest gives its place back, as look-ups end.
    for (let turn = 0; turn < 10 * shares.places; turn++) {
      takeWhatThereIs();
      const first = queue.shift();
      if (first !== undefined) shares.release(first);
    }
    const held = holders.map((holder) => queue.filter((one) => one === holder).length);
    const fair = shares.places / (greedy + 1);
    const free = shares.places - queue.length;
    for (const count of [...held, free]) {
      assert(Math.abs(count - fair) <= 2, `${count} of ${shares.places} among ${greedy}`);
    }
  }));
});

Deno.test("never are more places taken than there are, and all of them come back", () => {
  const step = fc.record({ holder: fc.nat(5), isTaking: fc.boolean() });
  fc.assert(fc.property(fc.nat(20), fc.nat(20), fc.array(step), (places, maxEach, steps) => {
    const shares = new Shares<number>(places, maxEach);
    const held: number[] = [];
    for (const { holder, isTaking } of steps) {
      if (isTaking && shares.hasRoomFor(holder)) {
        shares.take(holder);
        held.push(holder);
      } else if (!isTaking && held.includes(holder)) {
        shares.release(holder);
        held.splice(held.indexOf(holder), 1);
      }
      assert(held.length <= places);
      assert(held.filter((one) => one === holder).length <= maxEach);
    }
    for (const holder of held) shares.release(holder);
    const room = new Shares<number>(places, maxEach);
    for (let i = 0; i < places; i++) {
      assert.equal(shares.hasRoomFor(0), room.hasRoomFor(0));
      if (!room.hasRoomFor(0)) break;
      shares.take(0);
      room.take(0);
    }
  }));
});
