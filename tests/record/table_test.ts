/** The table of decisions: what is kept, found again and given up. */
import assert from "node:assert/strict";
import { type Decision, DecisionLog } from "../../lib/decision.ts";
import { type DecisionFilter, matches } from "../../lib/record/filter.ts";
import { type Bounds, DecisionTable, lastSequence, type Row } from "../../lib/record/table.ts";
import { databasePath, openDatabase } from "../../lib/store/database.ts";
import { blockedName } from "./support.ts";

const AMPLE: Bounds = { maxBytes: 1024 ** 3, maxAgeMs: 1000 * 86_400_000 };

/** A table in a directory of its own, and a log whose decisions are rows for it. */
class World implements Disposable {
  readonly #directory = Deno.makeTempDirSync();
  readonly log = new DecisionLog();
  readonly table: DecisionTable;

  constructor() {
    openDatabase(this.#directory).close();
    this.table = new DecisionTable(this.path);
    assert.equal(lastSequence(this.path), 0);
  }

  get path(): string {
    return databasePath(this.#directory);
  }

  write(decisions: readonly Decision[]): void {
    this.table.write(decisions.map((decision) => ({
      sequence: ++this.#sequence,
      record: JSON.stringify(decision),
    })));
  }
  #sequence = 0;

  hosts(filter: DecisionFilter & { readonly limit?: number; readonly sinceMs?: number }): unknown {
    return this.table.read({ limit: 100, ...filter }).map(hostIn);
  }

  [Symbol.dispose](): void {
    this.table.close();
    Deno.removeSync(this.#directory, { recursive: true });
  }
}

function hostIn({ record }: Row): unknown {
  const { attempt } = JSON.parse(record);
  return attempt.host ?? attempt.address;
}

function record(log: DecisionLog, host: string, changes: Partial<Decision> = {}): Decision {
  return { ...log.record(blockedName(host)), ...changes };
}

Deno.test("the newest that suit are read, oldest first, with the filters of the stream", () => {
  using world = new World();
  const { log } = world;
  const all = [
    record(log, "a.example.com"),
    record(log, "b.example.com", { verdict: "allow" }),
    record(log, "example.com", { layer: "http" }),
    record(log, "notexample.com", { agent: null }),
    record(log, "x", { attempt: { address: "1.1.1.1", port: 53 } }),
    record(log, "a_b.example.com", { attempt: { host: "h", address: "2.2.2.2" } }),
  ];
  world.write(all);
  const filters: DecisionFilter[] = [
    {},
    { agent: "worker" },
    { agent: "" },
    { verdict: "allow" },
    { layer: "http" },
    { host: "example.com" },
    { host: ".example.com" },
    { host: ".EXAMPLE.com" },
    { host: "1.1.1.1" },
    { host: "2.2.2.2" },
    { host: ".1.1" },
    { host: ".", verdict: "block" },
    { host: "a%" },
  ];
  for (const filter of filters) {
    const wanted = all.filter((decision) => matches(filter, decision));
    assert.deepEqual(
      world.table.read({ ...filter, limit: 100 }).map(({ record }) => JSON.parse(record).id),
      wanted.map(({ id }) => id),
      JSON.stringify(filter),
    );
  }
  assert.deepEqual(world.hosts({ limit: 2 }), ["1.1.1.1", "h"]);
});

Deno.test("a decision is read by its id, and a newer version takes the place of the older", () => {
  using world = new World();
  const first = record(world.log, "a");
  world.write([first, record(world.log, "b")]);
  world.write([{ ...first, count: 5 }]);
  const [found, ...others] = world.table.read({ id: first.id, limit: 10 });
  assert.equal(others.length, 0);
  assert.equal(JSON.parse(found?.record ?? "").count, 5);
  assert.deepEqual(world.hosts({}), ["a", "b"]);
  assert.equal(lastSequence(world.path), 3);
  const after = world.table.read({ afterSequence: 2, limit: 10 });
  assert.deepEqual(after.map(({ sequence }) => sequence), [3]);
});

Deno.test("what was decided before a moment is left out", () => {
  using world = new World();
  world.write([record(world.log, "a")]);
  assert.deepEqual(world.hosts({ sinceMs: Date.now() - 60_000 }), ["a"]);
  assert.deepEqual(world.hosts({ sinceMs: Date.now() + 60_000 }), []);
});

Deno.test("counts are of attempts: by host, agent, rule and layer, the most blocked first", () => {
  using world = new World();
  const rule = { id: "r", file: "/r.yaml", line: 1 };
  world.write([
    record(world.log, "a", { count: 5 }),
    record(world.log, "b", { verdict: "allow", rule }),
    record(world.log, "b", { layer: "http" }),
  ]);
  assert.deepEqual(world.table.stats({}), {
    allowed: 1,
    blocked: 6,
    hosts: [{ name: "a", allowed: 0, blocked: 5 }, { name: "b", allowed: 1, blocked: 1 }],
    agents: [{ name: "worker", allowed: 1, blocked: 6 }],
    rules: [{ name: "", allowed: 0, blocked: 6 }, { name: "r", allowed: 1, blocked: 0 }],
    layers: [{ name: "dns", allowed: 1, blocked: 5 }, { name: "http", allowed: 0, blocked: 1 }],
  });
  assert.equal(world.table.stats({ sinceMs: Date.now() + 60_000 }).blocked, 0);
  assert.deepEqual(world.table.stats({ host: "b", verdict: "block" }).rules, [
    { name: "", allowed: 0, blocked: 1 },
  ]);
});

Deno.test("beyond its age a decision goes", () => {
  using world = new World();
  world.write([record(world.log, "a")]);
  const inTwoDays = Date.now() + 2 * 86_400_000;
  assert.equal(world.table.prune(AMPLE, inTwoDays), false);
  assert.deepEqual(world.hosts({}), ["a"]);
  world.table.prune({ ...AMPLE, maxAgeMs: 86_400_000 }, inTwoDays);
  assert.deepEqual(world.hosts({}), []);
});

Deno.test("beyond the size the oldest go, and their room is used again", () => {
  using world = new World();
  const bounds = { ...AMPLE, maxBytes: 4 * 1024 ** 2 };
  let largest = 0;
  for (let round = 0; round < 12; round++) {
    world.write(Array.from({ length: 2_000 }, (_, i) => record(world.log, `${round}.${i}`)));
    while (world.table.prune(bounds, Date.now()));
    largest = Math.max(largest, world.table.extent().bytes);
  }
  assert.ok(largest <= bounds.maxBytes);
  const { records, oldest } = world.table.extent();
  assert.ok(records > 2_000 && records < 12_000, `${records} records`);
  assert.ok(oldest !== null);
  assert.deepEqual(world.hosts({ limit: 1 }), ["11.1999"]);
});
