import { deepEqual, ok } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { batchesOf, filesWithoutTests } from "./batches.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url)).replace(/\/$/, "");

Deno.test("batchesOf() leaves no test file out, and takes none twice", async () => {
  const found = await new Deno.Command("find", {
    args: ["tests", "-name", "*_test.ts", "-type", "f"],
    cwd: ROOT,
  }).output();
  const all = new TextDecoder().decode(found.stdout).trim().split("\n").sort();
  const paths = ["tests", "tests/net", "./tests/batches_test.ts"];
  deepEqual((await batchesOf(paths, ROOT)).flat().toSorted(), all);
});

Deno.test("batchesOf() keeps a path that is none, for the runner to complain about", async () => {
  deepEqual(await batchesOf(["tests/nothing_here"], ROOT), [["tests/nothing_here"]]);
});

Deno.test("filesWithoutTests() names what the runner takes for success though it tests nothing", async () => {
  const folder = await Deno.makeTempDir({ prefix: "outcall-batches-" });
  try {
    await Deno.writeTextFile(`${folder}/empty_test.ts`, "export {};");
    await Deno.writeTextFile(`${folder}/full_test.ts`, 'Deno.test("passes", () => {});');
    for (const color of [{ NO_COLOR: "1" }, { FORCE_COLOR: "1" }]) {
      const { success, stdout } = await new Deno.Command(Deno.execPath(), {
        args: ["test", "--no-config", "."],
        cwd: folder,
        env: color,
      }).output();
      ok(success);
      deepEqual(filesWithoutTests(new TextDecoder().decode(stdout)), ["./empty_test.ts"]);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
