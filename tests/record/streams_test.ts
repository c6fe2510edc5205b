/** Streams of decisions: resumed without a gap, bounded for readers that are slow. */
import assert from "node:assert/strict";
import { DecisionLog, type Recorded } from "../../lib/decision.ts";
import { DecisionStreams, type StreamEvent } from "../../lib/record/streams.ts";
import type { HistoryQuery } from "../../lib/record/table.ts";
import { blockedName } from "./support.ts";

/** A history that has everything, as a list. */
class Everything {
  readonly kept: Recorded[] = [];
  readonly asked: HistoryQuery[] = [];
  fails = false;
  lost = 0;

  read(query: HistoryQuery): Promise<readonly Recorded[]> {
    this.asked.push(query);
    if (this.fails) return Promise.reject(new Error("no disk"));
    return Promise.resolve(
      this.kept.filter(({ sequence }) => sequence > (query.afterSequence ?? 0))
        .slice(0, query.limit),
    );
  }

  lastLost(): number {
    return this.lost;
  }
}

function world(capacity: number): {
  readonly log: DecisionLog;
  readonly history: Everything;
  readonly streams: DecisionStreams;
} {
  const log = new DecisionLog(capacity);
  const history = new Everything();
  log.addSink((decision, _change, sequence) => void history.kept.push({ decision, sequence }));
  return { log, history, streams: new DecisionStreams(log, history) };
}

function shown(events: readonly StreamEvent[] | null): unknown {
  return events?.map((event) =>
    event.kind === "lost"
      ? `lost ${event.count}`
      : `${event.change} ${event.decision.attempt.host ?? ""}`
  );
}

Deno.test("a reader gets what comes after it subscribed, if it suits", async () => {
  const { log, streams } = world(10);
  log.record(blockedName("before"));
  const reader = streams.subscribe({ host: ".test" }, null);
  const next = reader.next();
  const made = log.record(blockedName("a.test"));
  log.record(blockedName("b.org"));
  assert.deepEqual(shown(await next), ["new a.test"]);
  log.update(made, { count: 2 });
  assert.deepEqual(shown(await reader.next()), ["update a.test"]);
  reader.close();
  assert.equal(await reader.next(), null);
  assert.equal(streams.counters.readers, 0);
});

Deno.test("a reader that comes back gets what it missed, from memory, without a gap or a repetition", async () => {
  const { log, history, streams } = world(10);
  const first = log.record(blockedName("a"));
  const { sequence } = log;
  log.record(blockedName("b"));
  log.update(first, { count: 2 });
  const reader = streams.subscribe({}, sequence);
  log.record(blockedName("c"));
  assert.deepEqual(shown(await reader.next()), ["new b", "update a"]);
  assert.deepEqual(shown(await reader.next()), ["new c"]);
  assert.deepEqual(history.asked, []);
  reader.close();
});

Deno.test("what memory has forgotten comes from the history, page by page", async () => {
  const { log, streams } = world(3);
  const { sequence } = log;
  for (let i = 0; i < 1_234; i++) log.record(blockedName(`h${i}`));
  const reader = streams.subscribe({}, sequence);
  log.record(blockedName("live"));
  const hosts: unknown[] = [];
  while (hosts.at(-1) !== "live") {
    for (const event of await reader.next() ?? []) {
      hosts.push(event.kind === "decision" ? event.decision.attempt.host : "lost");
    }
  }
  assert.deepEqual(hosts, [...Array.from({ length: 1_234 }, (_, i) => `h${i}`), "live"]);
  reader.close();
});

Deno.test("a history that fails, or had to lose some, is told to the reader", async () => {
  const { log, history, streams } = world(2);
  const { sequence } = log;
  for (let i = 0; i < 5; i++) log.record(blockedName(`h${i}`));
  history.fails = true;
  const failing = streams.subscribe({}, sequence);
  assert.deepEqual(shown(await failing.next()), ["lost null"]);
  assert.deepEqual(shown(await failing.next()), ["new h3", "new h4"]);
  history.fails = false;
  history.lost = log.sequence;
  const lossy = streams.subscribe({}, sequence);
  assert.deepEqual(shown(await lossy.next()), ["new h0", "new h1", "new h2", "new h3", "new h4"]);
  assert.deepEqual(shown(await lossy.next()), ["lost null"]);
  streams.stop();
});

Deno.test("a reader that is too slow is told how many it missed; the others are not held up", async () => {
  const { log, streams } = world(10);
  const slow = streams.subscribe({}, null);
  const quick = streams.subscribe({ host: "h1999" }, null);
  for (let i = 0; i < 2_000; i++) log.record(blockedName(`h${i}`));
  const events = await slow.next() ?? [];
  assert.equal(events.length, 1_001);
  assert.deepEqual(shown(events.slice(-2)), ["new h999", "lost 1000"]);
  assert.equal(streams.counters.lost, 1_000);
  assert.deepEqual(shown(await quick.next()), ["new h1999"]);
  log.record(blockedName("again"));
  assert.deepEqual(shown(await slow.next()), ["new again"]);
  streams.stop();
});

Deno.test("readers are limited in number, and all end when the daemon stops", async () => {
  const { streams } = world(10);
  const readers = Array.from({ length: 32 }, () => streams.subscribe({}, null));
  assert.throws(() => streams.subscribe({}, null), { code: "events.too_many", status: 429 });
  streams.stop();
  for (const reader of readers) assert.equal(await reader.next(), null);
  streams.subscribe({}, null).close();
});
