/** Observations: bound to one agent and a time, and gone with either. */
import assert from "node:assert/strict";
import { OutcallError } from "../../lib/errors.ts";
import { Observations } from "../../lib/observe.ts";
import { eventually } from "../eventually.ts";

/** Observations, and the sets of keys that they put in force, the newest last. */
function observations(): { readonly all: Observations; readonly applied: string[][] } {
  const applied: string[][] = [];
  const all = new Observations((keys) => {
    applied.push([...keys]);
    return Promise.resolve();
  });
  return { all, applied };
}

const BY_CABLE = { name: "", cable: "ocr01234567" };
const CONTAINER = { name: "worker", containerId: "a1b2" };

Deno.test("an observation is in force for one key, listed, and a reason to look", async () => {
  const { all, applied } = observations();
  assert.equal(all.health(), null);
  await all.begin(CONTAINER, 60);
  await all.begin(BY_CABLE, 60);
  assert.deepEqual(applied, [["a1b2"], ["a1b2", "ocr01234567"]]);
  assert.deepEqual(all.list().map(({ agent, key }) => [agent, key]), [
    ["worker", "a1b2"],
    ["", "ocr01234567"],
  ]);
  assert.equal(all.health()?.state, "degraded");
  assert.match(all.health()?.detail ?? "", /for worker \(\d+ s left\), an agent without a name/);
  assert.equal(await all.end("worker"), 1);
  assert.equal(await all.end("ocr01234567"), 1);
  assert.deepEqual(applied.at(-1), []);
});

Deno.test("an observation ends with its time", async () => {
  const { all, applied } = observations();
  await all.begin(CONTAINER, 0.02);
  await eventually(() => Promise.resolve(all.list().length === 0));
  assert.deepEqual(applied, [["a1b2"], []]);
});

Deno.test("an observation ends with its agent; a container's also with Docker's events", async () => {
  const { all, applied } = observations();
  await all.begin(CONTAINER, 60);
  await all.begin(BY_CABLE, 60);
  all.gone("another");
  assert.equal(all.list().length, 2);
  all.gone(null);
  assert.deepEqual(applied.at(-1), ["ocr01234567"]);
  all.gone("ocr01234567");
  assert.deepEqual(applied.at(-1), []);
  assert.equal(all.health(), null);
});

Deno.test("an observation that cannot begin everywhere does not begin", async () => {
  const applied: number[] = [];
  const all = new Observations((keys) => {
    applied.push(keys.size);
    return keys.size > 0 ? Promise.reject(new Error("no")) : Promise.resolve();
  });
  await assert.rejects(all.begin(CONTAINER, 60), /no/);
  assert.deepEqual([applied, all.list()], [[1, 0], []]);
});

Deno.test("nobody is observed of whom it is not known who they are", async () => {
  const { all, applied } = observations();
  await assert.rejects(all.begin({ name: "worker" }, 60), RangeError);
  await assert.rejects(
    all.end("worker"),
    (thrown: unknown) => thrown instanceof OutcallError && thrown.code === "observe.unknown",
  );
  assert.deepEqual(applied, []);
});
