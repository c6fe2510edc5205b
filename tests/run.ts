/**
 * Runs every test: `deno task test [paths…]`. Sets the machine up, checks types, lint and format,
 * then runs all `*_test.ts`, as many files at once as there are processors, at most four. The last
 * line is `N passed, N failed, N skipped`, counted from the runners' own JUnit files; each test and
 * each step of one counts.
 *
 * With paths, only the tests there run.
 */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { batchesOf, filesWithoutTests } from "./batches.ts";
import { addTallies, readJunit, type Tally } from "./junit.ts";
import { setUp } from "./setup.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const NOTHING: Tally = { passed: 0, failed: 0, skipped: [] };

// Ctrl-C reaches the runners too, which then report what they have; ending here would lose that.
let isInterrupted = false;
Deno.addSignalListener("SIGINT", () => isInterrupted = true);

async function deno(args: readonly string[]): Promise<boolean> {
  console.log(`\n$ deno ${args.join(" ")}`);
  const child = new Deno.Command(Deno.execPath(), { args: [...args], cwd: ROOT, stdin: "null" });
  return (await child.spawn().status).success;
}

/** Type, lint and format errors are failures like any other. */
async function staticChecks(paths: readonly string[]): Promise<Tally> {
  const all = [["check"], ["lint"], ["fmt", "--check"]];
  let tally = NOTHING;
  for (const args of paths.length === 0 ? all : [["check", ...paths]]) {
    const ok = await deno(args);
    tally = addTallies(tally, { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: [] });
  }
  return tally;
}

/** Runs the tests of these files; what the runner prints comes as a whole, when it has ended. */
async function runBatch(files: readonly string[]): Promise<Tally> {
  const report = await Deno.makeTempFile({ prefix: "outcall-test-", suffix: ".xml" });
  try {
    const [first = "", ...others] = files;
    const name = others.length === 0 ? first : `${dirname(first)} (${files.length} files)`;
    console.log(`begun: ${name}`);
    const startMs = performance.now();
    // A shell puts the errors where the rest is, in their order.
    const test = [Deno.execPath(), "test", "-A", "--no-check", `--junit-path=${report}`, ...files];
    const { success, stdout } = await new Deno.Command("sh", {
      args: ["-c", 'exec "$@" 2>&1', "sh", ...test],
      cwd: ROOT,
      stdin: "null",
    }).output();
    const took = `${Math.round((performance.now() - startMs) / 1000)} s`;
    console.log(`\nended after ${took}: ${name}`);
    const output = new TextDecoder().decode(stdout);
    console.log(output);
    const tally = readJunit(await Deno.readTextFile(report));
    const empty = filesWithoutTests(output);
    for (const file of empty) console.log(`no tests: ${file}`);
    // A runner that crashed, or a file that does not load, has no entry in the report.
    const failed = success ? tally.failed : Math.max(tally.failed, 1);
    return { ...tally, failed: failed + empty.length };
  } finally {
    await Deno.remove(report);
  }
}

/** A lab with a Docker Engine takes half a gigabyte of memory: many processors do not mean many of it. */
const MAX_RUNNERS = 4;

/** Labs never meet, and much of a lab's time is waiting: each processor gets a runner. */
async function tests(paths: readonly string[]): Promise<Tally> {
  const batches = (await batchesOf(paths, ROOT)).values();
  let tally = NOTHING;
  const runSome = async (): Promise<void> => {
    for (const files of batches) {
      if (isInterrupted) return;
      const one = await runBatch(files);
      tally = addTallies(tally, one);
    }
  };
  const length = Math.min(navigator.hardwareConcurrency, MAX_RUNNERS);
  await Promise.all(Array.from({ length }, runSome));
  if (!isInterrupted) return tally;
  console.log("\nInterrupted: what was left has not run, which counts as a failure.");
  return { ...tally, failed: tally.failed + 1 };
}

const missing = await setUp("test");
if (missing !== null) console.log(`${missing}\nWhat needs it will be skipped or fail.`);
const paths = Deno.args;
const checked = await staticChecks(paths);
const tally = addTallies(checked, await tests(paths.length === 0 ? ["tests"] : paths));
if (tally.skipped.length > 0) {
  console.log("\nSkipped:");
  for (const name of tally.skipped) console.log(`  ${name}`);
}
console.log(`\n${tally.passed} passed, ${tally.failed} failed, ${tally.skipped.length} skipped`);
Deno.exit(tally.failed > 0 || tally.passed === 0 ? 1 : 0);
