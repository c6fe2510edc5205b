/**
 * Runs every test: `deno task test [paths…]`. Sets the machine up, checks types, lint and format,
 * then runs all `*_test.ts`. The last line is `N passed, N failed, N skipped`, counted from the
 * runner's own JUnit file; each test and each step of one counts.
 *
 * With paths, only the tests there run.
 */
import { fileURLToPath } from "node:url";
import { addTallies, readJunit, type Tally } from "./junit.ts";
import { setUp } from "./setup.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));

async function deno(args: readonly string[]): Promise<boolean> {
  console.log(`\n$ deno ${args.join(" ")}`);
  const child = new Deno.Command(Deno.execPath(), { args: [...args], cwd: ROOT, stdin: "null" });
  return (await child.spawn().status).success;
}

/** Type, lint and format errors are failures like any other. */
async function staticChecks(): Promise<Tally> {
  let tally: Tally = { passed: 0, failed: 0, skipped: [] };
  for (const args of [["check"], ["lint"], ["fmt", "--check"]]) {
    const ok = await deno(args);
    tally = addTallies(tally, { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: [] });
  }
  return tally;
}

async function tests(paths: readonly string[]): Promise<Tally> {
  const folder = await Deno.makeTempDir({ prefix: "outcall-test-" });
  try {
    const report = `${folder}/junit.xml`;
    const ok = await deno(["test", "-A", `--junit-path=${report}`, ...paths]);
    const tally = readJunit(await Deno.readTextFile(report).catch(() => ""));
    // A runner that crashed, or a file that does not load, has no entry in the report.
    return ok || tally.failed > 0 ? tally : { ...tally, failed: 1 };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

// Ctrl-C reaches the runner too, which then reports what it has; ending here would lose that.
Deno.addSignalListener("SIGINT", () => {});

const missing = await setUp("test");
if (missing !== null) console.log(`${missing}\nWhat needs it will be skipped or fail.`);
const paths = Deno.args;
const tally = addTallies(
  paths.length === 0 ? await staticChecks() : { passed: 0, failed: 0, skipped: [] },
  await tests(paths.length === 0 ? ["tests"] : paths),
);
if (tally.skipped.length > 0) {
  console.log("\nSkipped:");
  for (const name of tally.skipped) console.log(`  ${name}`);
}
console.log(`\n${tally.passed} passed, ${tally.failed} failed, ${tally.skipped.length} skipped`);
Deno.exit(tally.failed > 0 || tally.passed === 0 ? 1 : 0);
