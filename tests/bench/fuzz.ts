/** A million hostile inputs for each parser of the proxy: the tests' own fuzzing, run for longer. */
import { compare, type Report, type Suite } from "./result.ts";

const RUNS = 1_000_000;

const PARSERS: Readonly<Record<string, string>> = {
  "request head": "head_test.ts",
  "response head": "response_test.ts",
  "chunked body": "chunked_test.ts",
  "ClientHello": "client_hello_test.ts",
};

/** Inputs a second of each parser; a failure prints the seed and the input, and ends the suite. */
export const fuzzSuite: Suite = async (
  report: Report,
  progress: (line: string) => void,
): Promise<void> => {
  for (const [parser, file] of Object.entries(PARSERS)) {
    progress(`${RUNS} inputs for the ${parser}`);
    const startMs = performance.now();
    const { success, stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--no-check", "--filter", "fuzz", `tests/proxy/${file}`],
      cwd: new URL("../../", import.meta.url),
      env: { OUTCALL_FUZZ_RUNS: `${RUNS}`, NO_COLOR: "1" },
      stderr: "inherit",
    }).output();
    const text = new TextDecoder().decode(stdout);
    // A filter that finds nothing succeeds, too.
    if (!success || !/ 1 passed/.test(text)) throw new Error(text);
    report(compare({
      ...{ suite: "fuzz-proxy", case: parser, unit: "inputs/s", better: "higher", peers: {} },
      ours: RUNS * 1_000 / (performance.now() - startMs),
    }));
  }
};
