import assert from "node:assert/strict";
import type { Answer } from "../../lib/dns/answer.ts";
import { cacheKey, DnsCache } from "../../lib/dns/cache.ts";
import { Rcode, RecordType } from "../../lib/dns/codes.ts";
import { wireNameOf } from "../../lib/dns/name.ts";
import { Hostname } from "../../lib/net/host.ts";

function question(name: string, type: number = RecordType.A): { name: string; type: number } {
  const hostname = Hostname.parse(name);
  assert(hostname !== null);
  return { name: wireNameOf(hostname), type };
}

function answer(lifetimeSecs: number, dataBytes = 4): Answer {
  const record = {
    name: "\0",
    type: RecordType.A,
    ttlSecs: lifetimeSecs,
    data: new Uint8Array(dataBytes),
  };
  return { rcode: Rcode.NOERROR, answers: [record], aliases: [], authority: [], lifetimeSecs };
}

/** A cache whose clock the test moves. */
function cacheAt(maxEntries?: number): { cache: DnsCache; clock: { ms: number } } {
  const clock = { ms: 1_000_000 };
  return { cache: new DnsCache(() => clock.ms, maxEntries), clock };
}

function put(cache: DnsCache, name: string, stored: Answer): void {
  cache.set(cacheKey(question(name), false), question(name), stored);
}

function ageOf(cache: DnsCache, name: string): number | undefined {
  return cache.get(cacheKey(question(name), false))?.ageSecs;
}

Deno.test("an answer ages and is gone at the end of its lifetime (S007-FR-017)", () => {
  const { cache, clock } = cacheAt();
  put(cache, "a.test", answer(10));
  assert.equal(ageOf(cache, "a.test"), 0);
  clock.ms += 9_999;
  assert.equal(ageOf(cache, "a.test"), 9);
  assert.deepEqual(cache.entries(), [
    { hostname: "a.test", record_type: "A", ttl_remaining_secs: 1 },
  ]);
  clock.ms += 1;
  assert.deepEqual(cache.entries(), []);
  assert.equal(ageOf(cache, "a.test"), undefined);
  assert.deepEqual(cache.stats(), {
    entries: 0,
    max_entries: 10_000,
    hits: 2,
    misses: 1,
    evictions: 0,
  });
});

Deno.test("the cache stays bounded, and the least recently used answer goes (ADV-DNS-14, S007-EC-007)", () => {
  const { cache } = cacheAt(3);
  for (const name of ["a.test", "b.test", "c.test"]) put(cache, name, answer(10));
  ageOf(cache, "a.test");
  put(cache, "d.test", answer(10));
  assert.equal(ageOf(cache, "b.test"), undefined);
  assert.equal(ageOf(cache, "a.test"), 0);
  for (let i = 0; i < 1000; i++) put(cache, `n${i}.test`, answer(10));
  assert.equal(cache.stats().entries, 3);
  assert.equal(cache.stats().evictions, 1001);
});

Deno.test("an answer that replaces an older one evicts nothing", () => {
  const { cache } = cacheAt(1);
  put(cache, "a.test", answer(10));
  put(cache, "a.test", answer(20));
  assert.equal(cache.stats().evictions, 0);
});

Deno.test("answers with TTL 0 and oversized answers are not kept", () => {
  const { cache } = cacheAt();
  put(cache, "a.test", answer(0));
  put(cache, "b.test", answer(10, 5000));
  assert.equal(cache.stats().entries, 0);
});

Deno.test("name, type and DO keep answers apart", () => {
  const keys = [
    cacheKey(question("a.test"), false),
    cacheKey(question("a.test"), true),
    cacheKey(question("a.test", RecordType.HTTPS), false),
    cacheKey(question("b.test"), false),
  ];
  assert.equal(new Set(keys).size, keys.length);
});

Deno.test("the listing tells answers with DNSSEC records from those without", () => {
  const { cache } = cacheAt();
  const asked = question("a.test");
  for (const dnssecOk of [false, true]) cache.set(cacheKey(asked, dnssecOk), asked, answer(10));
  assert.deepEqual(cache.entries().map(({ dnssec }) => dnssec), [undefined, true]);
});

Deno.test("flush() forgets everything and says how much that was", () => {
  const { cache } = cacheAt();
  put(cache, "a.test", answer(10));
  put(cache, "b.test", answer(10));
  assert.equal(cache.flush(), 2);
  assert.equal(ageOf(cache, "a.test"), undefined);
});
