/** The live view: what is counted, for how long, and that a screen is never more than the terminal. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { plainLines, screen } from "../../lib/cli/top.ts";
import { type Decision, DECISION_SCHEMA } from "../../lib/decision.ts";
import { COUNT_SECS, Top, type TopRow } from "../../lib/record/top.ts";
import { SEED } from "../random.ts";

const START_MS = Date.parse("2026-05-04T09:30:00.000Z");

function record(id: string, atSecs: number, given: Partial<Decision> = {}): Decision {
  return {
    schema: DECISION_SCHEMA,
    id,
    time: new Date(START_MS + atSecs * 1_000).toISOString(),
    generation: 1,
    layer: "connect",
    agent: { name: "worker", address: "10.200.0.2", network: "outcall-agent-net" },
    source: "10.200.0.2",
    attempt: { host: "a.org", port: 443, method: "CONNECT" },
    verdict: "block",
    reason: "default",
    rule: null,
    ...given,
  };
}

function allow(id: string, atSecs: number, given: Partial<Decision> = {}): Decision {
  return record(id, atSecs, { verdict: "allow", reason: "rule", ...given });
}

function at(secs: number): number {
  return START_MS + secs * 1_000;
}

function counts({ allowed, blocked }: TopRow): [number, number] {
  return [allowed, blocked];
}

Deno.test("rates are over ten seconds, counts over a minute, and then it is forgotten", () => {
  const top = new Top();
  for (let i = 0; i < 20; i++) top.add(allow(`a${i}`, 0));
  top.add(record("b", 5));
  assert.equal(top.view(at(5)).all.allow_rate, 2);
  assert.equal(top.view(at(12)).all.allow_rate, 0);
  assert.equal(top.view(at(12)).all.block_rate, 0.1);
  assert.deepEqual(counts(top.view(at(COUNT_SECS - 1)).all), [20, 1]);
  assert.deepEqual(counts(top.view(at(COUNT_SECS)).all), [0, 1]);
  assert.deepEqual(top.view(at(5 + COUNT_SECS)).agents, []);
});

Deno.test("on paper there are the busiest of thousands of hosts, and how many more there are", () => {
  const top = new Top();
  top.add(record("busiest", 0, { attempt: { host: "busy.org" }, count: 2 }));
  for (let i = 0; i < 2_000; i++) top.add(record(`${i}`, 0, { attempt: { host: `n${i}.org` } }));
  const lines = plainLines(top.view(at(1)));
  assert(lines.length < 100, `${lines.length} lines`);
  assert.match(lines[lines.findIndex((line) => line.startsWith("HOST")) + 1] ?? "", /^busy\.org /);
  assert.equal(lines.at(-1), "  and 1951 more: outcall --json top");
});

Deno.test("agents and hosts stand by themselves, the busiest first, with the newest block", () => {
  const top = new Top();
  const other = { name: "", address: "10.200.0.3", network: "outcall-agent-net" };
  top.add(record("1", 0));
  top.add(record("2", 0, { reason: "port", attempt: { host: "a.org", port: 22 } }));
  top.add(allow("3", 0, { agent: other, source: other.address, attempt: { host: "b.org" } }));
  const { agents, hosts } = top.view(at(1));
  assert.deepEqual(agents.map((row) => [row.name, ...counts(row)]), [
    ["worker", 0, 2],
    ["10.200.0.3", 1, 0],
  ]);
  assert.deepEqual(hosts.map((row) => [row.name, ...counts(row)]), [["a.org", 0, 2], [
    "b.org",
    1,
    0,
  ]]);
  assert.deepEqual(agents[0]?.newest, { id: "2", reason: "port", what: "a.org:22" });
});

Deno.test("what a record grew by is counted once, and bytes where they are known", () => {
  const top = new Top();
  const updated = new Date(at(3)).toISOString();
  top.add(record("1", 0, { count: 3 }));
  top.add(record("1", 0, { count: 10, updated }));
  top.add(record("1", 0, { count: 10, updated }));
  assert.deepEqual(counts(top.view(at(4)).all), [0, 10]);
  top.add(allow("2", 0));
  const tunnel = { upBytes: 100, downBytes: 2_000, end: "closed" as const };
  top.add(allow("2", 0, { tunnel, updated }));
  top.add(allow("2", 0, { tunnel, updated }));
  const [row] = top.view(at(4)).agents;
  assert.deepEqual([row?.allowed, row?.up_bytes, row?.down_bytes], [1, 100, 2_000]);
});

Deno.test("what had grown before it was seen counts from when it began", () => {
  const top = new Top();
  const tunnel = { upBytes: 100, downBytes: 2_000, end: "closed" as const };
  const updated = new Date(at(100)).toISOString();
  top.add(allow("long ago", 0, { tunnel, updated }));
  top.add(allow("just now", 95, { tunnel, updated }));
  top.add(record("drops", 96, { layer: "kernel", count: 4, updated }));
  assert.deepEqual(counts(top.view(at(101)).all), [1, 4]);
});

Deno.test("a flood of names leaves the newest, in bounded memory", () => {
  const top = new Top();
  for (let i = 0; i < 20_000; i++) top.add(record(`${i}`, 1, { attempt: { host: `h${i}.org` } }));
  const { hosts, all } = top.view(at(2));
  assert.ok(hosts.length <= 5_000);
  assert.ok(hosts.some(({ name }) => name === "h19999.org"));
  assert.equal(all.blocked, 20_000);
});

Deno.test("a screen fits its terminal, and nothing in it steers one but what draws it (CWE-150)", () => {
  const name = fc.string({ unit: fc.constantFrom("a", "\u001b", "\u202e", "\n", "[", "2", "J") });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(name, name), { maxLength: 60 }),
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 200 }),
      (pairs, rows, columns) => {
        const top = new Top();
        for (const [i, [agent, host]] of pairs.entries()) {
          const who = { name: agent, address: "10.200.0.2", network: "outcall-agent-net" };
          top.add(record(`${i}`, 0, { agent: who, attempt: { host } }));
        }
        const text = screen(top.view(at(1)), { trouble: host(pairs) }, { rows, columns }, plain);
        const lines = ["H", "K", "J"]
          .reduce((rest, code) => rest.replaceAll(`\u001b[${code}`, ""), text).split("\r\n");
        assert.ok(lines.length <= rows, text);
        for (const line of lines) {
          assert.ok([...line].length <= columns, line);
          assert.ok(!/\p{Cc}|\p{Cf}/u.test(line), JSON.stringify(line));
        }
      },
    ),
    { seed: SEED, numRuns: 200 },
  );
});

function plain(_style: string, text: string): string {
  return text;
}

function host(pairs: readonly (readonly [string, string])[]): string | null {
  return pairs[0]?.[1] ?? null;
}
