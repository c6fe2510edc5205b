import { deepEqual } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { batchesOf } from "./batches.ts";

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
