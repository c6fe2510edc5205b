/** The thread's records: what the main isolate reads in a report is what was decided. */
import assert from "node:assert/strict";
import type { Decision, NewDecision } from "../../lib/decision.ts";
import { Journal, readJournal } from "../../lib/proxy/worker/journal.ts";

const ALLOWED: NewDecision = {
  generation: 3,
  layer: "dial",
  agent: { name: "web", address: "10.200.0.2", network: "outcall-default" },
  source: "10.200.0.2",
  attempt: { host: "a.test", port: 443, method: "CONNECT", address: "192.0.2.1" },
  verdict: "allow",
  reason: "rule",
  rule: { id: "a", file: "/rules/a.yaml", line: 1 },
};
const BLOCKED: NewDecision = {
  ...ALLOWED,
  attempt: { host: "b.test", port: 80, method: "GET", path: '/"\u2028\ud800\\' },
  verdict: "block",
  reason: "default",
  rule: null,
  durationMs: 2,
};

Deno.test("decisions are read as they were named, in their order, also those that differ in one field", () => {
  const journal = new Journal();
  const named = [
    journal.record(ALLOWED),
    journal.record(BLOCKED),
    journal.record(ALLOWED),
    journal.record({ ...ALLOWED, generation: 4 }),
    journal.record({ ...ALLOWED, agent: null }),
  ];
  assert.equal(journal.size, named.length);
  assert.deepEqual(readJournal(journal.take()), { decisions: named, growths: [] });
});

Deno.test("what becomes known before the report belongs to that record alone; later it is a growth", () => {
  const journal = new Journal();
  const changes = {
    durationMs: 12,
    tunnel: { upBytes: 517, downBytes: Number.MAX_SAFE_INTEGER, end: "closed" },
  } as const;
  const ended = journal.record(ALLOWED);
  const lasting = journal.record(ALLOWED);
  journal.grow(ended, changes);
  const expected: Decision[] = [{ ...ended, ...changes }, lasting];
  assert.deepEqual(readJournal(journal.take()), { decisions: expected, growths: [] });

  journal.grow(lasting, changes);
  assert.equal(journal.size, 1);
  const growths = [{ decision: lasting, changes }];
  assert.deepEqual(readJournal(journal.take()), { decisions: [], growths });
  assert.deepEqual(readJournal(journal.take()), { decisions: [], growths: [] });
});

Deno.test("decisions alike share what they have in common: a report says it once", () => {
  const journal = new Journal();
  for (let i = 0; i < 100; i++) journal.record(ALLOWED);
  const report = journal.take();
  assert.equal(report.split("a.test").length - 1, 1);
  const [first, ...others] = readJournal(report).decisions;
  assert(others.every(({ attempt, agent }) => attempt === first?.attempt && agent === first.agent));
});
