/** Which sources are muted, from when on and until when. */
import assert from "node:assert/strict";
import { Floods } from "../../lib/dns/worker/floods.ts";

const SOURCE = 7;

/** A world in which the thread looks for packets once in a millisecond. */
class World {
  readonly floods: Floods;
  nowMs = 0;

  constructor(count = 2000, windowSecs = 1) {
    this.floods = new Floods({ count, windowSecs });
    this.pass(1);
  }

  pass(ms: number): void {
    for (let i = 0; i < ms; i++) this.floods.tick(++this.nowMs);
  }

  /** Has SOURCE exceed its rate by so many packets a millisecond; returns after how many it is muted. */
  flood(packetsPerMs: number, ms: number): number | null {
    for (let sent = 0; sent < ms * packetsPerMs;) {
      for (let i = 0; i < packetsPerMs; i++) this.floods.exceeded(SOURCE);
      sent += packetsPerMs;
      if (this.floods.muted.length > 0) return sent;
      this.pass(1);
    }
    return null;
  }

  /** How long SOURCE is muted, from now on. */
  muteMs(): number {
    const { floods } = this;
    assert.deepEqual(floods.muted, [SOURCE]);
    assert.equal(floods.dueInMs(this.nowMs), 0, "the kernel is to be told at once");
    assert.deepEqual(floods.look(this.nowMs), []);
    const dueInMs = floods.dueInMs(this.nowMs) ?? NaN;
    this.pass(dueInMs - 1);
    assert.deepEqual([floods.look(this.nowMs), floods.muted], [[], [SOURCE]]);
    this.pass(1);
    assert.deepEqual([floods.look(this.nowMs), floods.muted], [[SOURCE], []]);
    assert.equal(floods.dueInMs(this.nowMs), null);
    return dueInMs;
  }
}

Deno.test("a source is muted for sending several times its rate, and nobody else", () => {
  const world = new World();
  assert.equal(world.flood(8, 1000), null, "four times what it may");
  world.pass(100);
  world.floods.exceeded(8);
  assert.equal(world.flood(20, 1000), 220, "as soon as it is known");
  assert.deepEqual(world.floods.muted, [SOURCE]);
});

Deno.test("with a small rate it takes more than its multiple: that many cost nothing", () => {
  const world = new World(1, 60);
  assert.equal(world.flood(4, 1000), null);
  world.pass(100);
  assert.equal(world.flood(5, 1000), 105);
});

Deno.test("what gathered while the thread paused is not taken for a flood", () => {
  const world = new World();
  world.nowMs += 200;
  world.pass(1);
  assert.equal(world.flood(1600, 1), null, "four times the rate, in 201 ms");
  world.nowMs += 200;
  world.pass(1);
  assert.equal(world.flood(1700, 1), 1700);
});

Deno.test("who goes on when it is heard again is muted for longer, up to a second or so", () => {
  const world = new World();
  const mutes = Array.from({ length: 4 }, () => {
    world.flood(100, 50);
    return world.muteMs();
  });
  assert.deepEqual(mutes, [75, 300, 1200, 1200]);
  world.pass(1200);
  world.flood(100, 50);
  assert.equal(world.muteMs(), 75, "after as long a time without, it is forgiven");
});

Deno.test("what the kernel had let through before does not count again", () => {
  const world = new World();
  world.flood(100, 50);
  for (let i = 0; i < 1000; i++) world.floods.exceeded(SOURCE);
  assert.equal(world.muteMs(), 75);
  assert.deepEqual(world.floods.muted, []);
});

Deno.test("whoever comes to an address after somebody who flooded from it is heard at once", () => {
  const world = new World();
  world.flood(100, 50);
  world.floods.forget();
  assert.deepEqual(world.floods.muted, []);
  assert.equal(world.floods.dueInMs(world.nowMs), 0, "the kernel is to be told");
  world.floods.look(world.nowMs);
  world.flood(100, 50);
  assert.equal(world.muteMs(), 75, "and has no past");
});
