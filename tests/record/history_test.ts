/** The history's threads: what is on disk after a crash, and what a bad disk costs. */
import assert from "node:assert/strict";
import { DecisionLog } from "../../lib/decision.ts";
import { OutcallError } from "../../lib/errors.ts";
import { History } from "../../lib/record/history.ts";
import { HistoryLookup } from "../../lib/record/lookup.ts";
import { DecisionRecords } from "../../lib/record/records.ts";
import { DecisionTable } from "../../lib/record/table.ts";
import { databasePath, openDatabase } from "../../lib/store/database.ts";
import { GrantStore } from "../../lib/store/grants.ts";
import { openState } from "../../lib/store/state.ts";
import { eventually } from "../eventually.ts";
import { labTest } from "../lab/requirements.ts";
import { blockedName } from "./support.ts";

const BOUNDS = { maxBytes: 256 * 1024 ** 2, maxAgeMs: 86_400_000 };

const GRANT = {
  id: "4f0c2a91",
  container_id: "a1b2",
  address: "10.200.0.2",
  destination: "93.184.216.34",
  protocol: "tcp",
  port: 443,
  host: null,
  expires_ms: null,
} as const;

/** A decision log with its history in a directory. */
class World implements AsyncDisposable {
  readonly log: DecisionLog;
  readonly history: History;
  readonly records: DecisionRecords;

  constructor(readonly directory: string, capacity = 10_000) {
    const path = databasePath(directory);
    this.log = new DecisionLog(capacity);
    this.history = new History({ path, bounds: BOUNDS });
    this.log.addSink(this.history.add);
    this.records = new DecisionRecords(
      this.log,
      new HistoryLookup(path),
      () => this.history.lastLost,
    );
    this.history.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.records.stop();
    await this.history.stop();
  }
}

async function withDirectory(test: (directory: string) => Promise<void> | void): Promise<void> {
  const directory = Deno.makeTempDirSync();
  try {
    openDatabase(directory).close();
    await test(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("what left memory is found in the history, one by its id and many by filters", () =>
  withDirectory(async (directory) => {
    await using world = new World(directory, 2);
    const { log, history, records } = world;
    const made = ["a", "b", "c", "d"].map((name) => log.record(blockedName(name)));
    const [first] = made;
    assert.ok(first !== undefined);
    await eventually(() => history.counters.written === 4);
    assert.deepEqual(await records.find(first.id), first);
    assert.equal(await records.find("0000000000000"), undefined);
    const grown = log.update(first, { durationMs: 12 });
    const { decisions, incomplete } = await records.query({ limit: 10 });
    assert.equal(incomplete, null);
    assert.deepEqual(decisions.map(({ attempt }) => attempt.host), ["a", "b", "c", "d"]);
    await eventually(async () => (await records.find(first.id))?.durationMs === 12);
    assert.deepEqual((await records.query({ limit: 1, host: "a" })).decisions, [grown]);
    assert.equal((await records.stats({})).blocked, 4);
    assert.equal(history.health().state, "ok");
  }));

Deno.test("the history goes on where it was after a restart", () =>
  withDirectory(async (directory) => {
    let first = "";
    {
      await using world = new World(directory);
      first = world.log.record(blockedName("before")).id;
    }
    await using world = new World(directory);
    world.log.record(blockedName("after"));
    const { decisions } = await world.records.query({ limit: 10 });
    assert.deepEqual(decisions.map(({ attempt }) => attempt.host), ["before", "after"]);
    assert.equal(decisions[0]?.id, first);
  }));

Deno.test("kill -9 costs no more than the last second", () =>
  withDirectory(async (directory) => {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", new URL("./recorder.ts", import.meta.url).pathname, directory],
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const made: { readonly id: string; readonly atMs: number }[] = [];
    let rest = "";
    let killedAtMs = 0;
    const decoder = new TextDecoder();
    for await (const chunk of child.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const id of lines) made.push({ id, atMs: Date.now() });
      if (made.length > 2_000 && killedAtMs === 0) {
        killedAtMs = Date.now();
        child.kill("SIGKILL");
      }
    }
    await child.status;
    const table = new DecisionTable(databasePath(directory));
    table.check();
    const kept = new Set(
      table.read({ limit: 100_000 }).map(({ record }) => String(JSON.parse(record).id)),
    );
    table.close();
    const missing = made.filter(({ id }) => !kept.has(id));
    const old = missing.filter(({ atMs }) => atMs < killedAtMs - 1_000);
    assert.deepEqual(old, []);
    assert.ok(kept.size > 0);
  }));

labTest(
  "a full disk costs history, says so, and is got over",
  { tools: ["mount", "umount"] },
  () =>
    withDirectory(async (directory) => {
      const disk = `${directory}/disk`;
      Deno.mkdirSync(disk);
      await run("mount", "-t", "tmpfs", "-o", "size=24m", "outcall-test", disk);
      try {
        Deno.writeFileSync(`${disk}/ballast`, new Uint8Array(24 * 1024 ** 2 - 8192));
        assert.throws(() => openState(`${disk}/none`), (thrown) => {
          assert.ok(thrown instanceof OutcallError);
          assert.equal(thrown.code, "store.full");
          assert.match(thrown.message, /none\/outcall\.db .*\([0-8] KiB are free there\)/);
          return true;
        });
        Deno.removeSync(`${disk}/ballast`);
        openDatabase(disk).close();
        Deno.writeFileSync(`${disk}/ballast`, new Uint8Array(23 * 1024 ** 2));
        await using world = new World(disk);
        const { log, history } = world;
        await eventually(() => {
          for (let i = 0; i < 200; i++) log.record(blockedName(`h${Math.random()}.test`));
          return history.health().state === "degraded";
        });
        assert.match(history.health().detail, /^decisions are not kept: .*full/);
        // Whoever decides notices nothing.
        const last = log.record(blockedName("last.test"));
        assert.deepEqual((await world.records.query({ limit: 1 })).decisions, [last]);
        Deno.removeSync(`${disk}/ballast`);
        await eventually(() => history.health().state === "ok");
        await eventually(async () => {
          const { decisions } = await world.records.query({ limit: 10, host: "last.test" });
          return decisions.length === 1;
        });
      } finally {
        await run("umount", "--lazy", disk); // whatever still has a file open there
      }
    }),
);

async function run(command: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(command, { args }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

Deno.test("a damaged history is said, and neither the rest of the state nor decisions suffer", () =>
  withDirectory(async (directory) => {
    {
      await using world = new World(directory);
      for (let i = 0; i < 5_000; i++) world.log.record(blockedName(`h${i}.test`));
    }
    damage(directory);
    openDatabase(directory).close();
    await using world = new World(directory);
    const { log, history, records } = world;
    const made = log.record(blockedName("a.test"));
    await eventually(() => history.health().state === "degraded");
    assert.match(history.health().detail, /^decisions are not kept: it is damaged/);
    assert.deepEqual(await records.find(made.id), made);
    const { decisions, incomplete } = await records.query({ limit: 20_000 });
    assert.ok(decisions.some(({ id }) => id === made.id));
    assert.match(incomplete ?? "", /^the history cannot be read: /);
  }));

Deno.test("after a damaged history the next start has a new one, and requests and grants as before", () =>
  withDirectory(async (directory) => {
    new GrantStore(openDatabase(directory)).put(GRANT);
    {
      await using world = new World(directory);
      for (let i = 0; i < 5_000; i++) world.log.record(blockedName(`h${i}.test`));
    }
    damage(directory);
    {
      await using world = new World(directory);
      await eventually(() => world.history.health().state === "degraded");
    }
    const state = openState(directory);
    assert.match(state.health()?.detail ?? "", /was damaged and is now .*grants were kept/);
    assert.deepEqual(new GrantStore(state.database).list(0), [GRANT]);
    state.database.close();
    {
      await using world = new World(directory);
      const { id } = world.log.record(blockedName("again.test"));
      await eventually(() => world.history.counters.written === 1);
      assert.equal(world.history.health().state, "ok");
      assert.equal((await world.records.query({ limit: 10 })).decisions[0]?.id, id);
    }
    const after = openState(directory);
    assert.equal(after.health(), null);
    after.database.close();
  }));

Deno.test("a state that cannot be read is set aside, and an empty one takes its place", () =>
  withDirectory((directory) => {
    const path = databasePath(directory);
    new GrantStore(openDatabase(directory)).put(GRANT);
    const garbage = new Uint8Array(8192).fill(0xa5);
    Deno.writeFileSync(path, garbage);
    Deno.writeFileSync(`${path}-wal`, garbage);
    assert.throws(() => openDatabase(directory), { code: "store.damaged" });
    const { database, health } = openState(directory);
    assert.match(health()?.detail ?? "", /grants of before are lost/);
    assert.deepEqual(new GrantStore(database).list(0), []);
    database.close();
    const aside = [...Deno.readDirSync(directory)].map(({ name }) => name)
      .find((name) => /\.damaged-.*Z$/.test(name));
    assert.deepEqual(Deno.readFileSync(`${directory}/${aside}`), garbage);
  }));

/** Overwrites pages that hold decisions. */
function damage(directory: string): void {
  const database = openDatabase(directory);
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  database.close();
  const path = databasePath(directory);
  const bytes = Deno.readFileSync(path);
  bytes.fill(0xa5, Math.floor(bytes.length / 8192) * 4096);
  Deno.writeFileSync(path, bytes);
}
