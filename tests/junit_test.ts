import assert from "node:assert/strict";
import { addTallies, readJunit, type Tally } from "./junit.ts";

/** What the real runner reports about a file with this text. */
async function reportOf(text: string): Promise<Tally> {
  const folder = await Deno.makeTempDir({ prefix: "outcall-junit-" });
  try {
    await Deno.writeTextFile(`${folder}/sample_test.ts`, text);
    await new Deno.Command(Deno.execPath(), {
      args: ["test", "--quiet", "--no-config", "--junit-path=junit.xml", "."],
      cwd: folder,
      stdout: "null",
      stderr: "null",
    }).output();
    return readJunit(await Deno.readTextFile(`${folder}/junit.xml`));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("readJunit() counts tests and steps, failed and skipped ones included", async () => {
  const tally = await reportOf(`
    Deno.test("passes", async (t) => {
      await t.step("step", () => {});
      await t.step({ name: "ignored step", ignore: true, fn() {} });
    });
    Deno.test({ name: "no <root> & \\"tool\\" [skipped: needs root]", ignore: true, fn() {} });
    Deno.test("fails with <testcase name='x'></testcase> in its message", () => {
      throw new Error("<testcase name=\\"y\\"></testcase>");
    });
  `);
  assert.deepEqual(tally, {
    passed: 2,
    failed: 1,
    skipped: ['no <root> & "tool" [skipped: needs root]', "passes > ignored step"],
  });
});

Deno.test("readJunit() counts tests that were cancelled by a crash as failed", async () => {
  const tally = await reportOf(`
    Deno.test("crashes", () => {
      setTimeout(() => { throw new Error("late"); }, 0);
      return new Promise((resolve) => setTimeout(resolve, 1000));
    });
    Deno.test("never runs", () => {});
  `);
  assert.deepEqual(tally, { passed: 0, failed: 2, skipped: [] });
});

Deno.test("readJunit() finds nothing in the report of a runner that wrote none", () => {
  assert.deepEqual(readJunit(""), { passed: 0, failed: 0, skipped: [] });
});

Deno.test("addTallies() keeps every skipped name", () => {
  const one: Tally = { passed: 1, failed: 2, skipped: ["a"] };
  assert.deepEqual(addTallies(one, one), { passed: 2, failed: 4, skipped: ["a", "a"] });
});
