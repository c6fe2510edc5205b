/** Divides the tests into batches, each for a test runner of its own, so that several run at once. */
import { dirname } from "node:path";
import { stripVTControlCharacters } from "node:util";

/** Folders whose files take long one by one: each has labs or a Docker Engine of its own. */
const LONG = ["tests/bridge", "tests/docker", "tests/e2e"];

function isTest(path: string): boolean {
  return path.endsWith("_test.ts");
}

/** All test files at or below `path`, sorted. A path that is none stands for itself. */
async function testFiles(path: string, root: string): Promise<readonly string[]> {
  const info = await Deno.stat(`${root}/${path}`).catch(() => null);
  if (info?.isDirectory !== true) return [path];
  const files: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(`${root}/${path}`)) {
    if (isDirectory || isTest(name)) files.push(...await testFiles(`${path}/${name}`, root));
  }
  return files.sort();
}

/**
 * The test files at or below `paths`: those of one folder together, and after them the long ones each
 * for itself, so that in the end no runner is left alone with much.
 * @param root What the paths are relative to.
 */
export async function batchesOf(
  paths: readonly string[],
  root: string,
): Promise<readonly (readonly string[])[]> {
  const trimmed = paths.map((path) => path.replace(/^\.\//, "").replace(/\/+$/, ""));
  const found = await Promise.all(trimmed.map((path) => testFiles(path, root)));
  const files = [...new Set(found.flat())];
  const isLong = (file: string): boolean => LONG.includes(dirname(file));
  const folders = Map.groupBy(files.filter((file) => !isLong(file)), dirname);
  return [...folders.values(), ...files.filter(isLong).map((file) => [file])];
}

/**
 * Files that a test runner has run without finding a test in them, which it takes for success.
 * @param output All that the runner printed.
 */
export function filesWithoutTests(output: string): readonly string[] {
  return [...stripVTControlCharacters(output).matchAll(/^running 0 tests from (.+)$/gm)]
    .map(([, file = ""]) => file);
}
