/** A million hostile packets for each side of the DNS filter: the tests' own fuzzing, run for longer. */
import { compare, type Report, type Suite } from "./result.ts";

const PACKETS = 1_000_000;

const SIDES: Readonly<Record<string, { readonly file: string; readonly filter: string }>> = {
  "client's packets": { file: "fuzz_test.ts", filter: "/parseQuery/" },
  "worker beside filter": { file: "fuzz_test.ts", filter: "/responder/" },
  "upstream's packets": { file: "fuzz_test.ts", filter: "/parseResponse/" },
  "both, on real sockets": { file: "fuzz_sockets_test.ts", filter: "/fuzzed/" },
};

/** Packets a second of each side; a failure prints the seed and the packet, and ends the suite. */
export const fuzzDnsSuite: Suite = async (
  report: Report,
  progress: (line: string) => void,
): Promise<void> => {
  for (const [side, { file, filter }] of Object.entries(SIDES)) {
    progress(`${PACKETS} packets: ${side}`);
    const startMs = performance.now();
    const { success, stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--no-check", "--filter", filter, `tests/dns/${file}`],
      cwd: new URL("../../", import.meta.url),
      env: { OUTCALL_FUZZ_PACKETS: `${PACKETS}`, NO_COLOR: "1" },
      stderr: "inherit",
    }).output();
    const text = new TextDecoder().decode(stdout);
    // A filter that finds nothing succeeds, too.
    if (!success || !/ 1 passed/.test(text)) throw new Error(text);
    report(compare({
      ...{ suite: "fuzz-dns", case: side, unit: "packets/s", better: "higher", peers: {} },
      ours: PACKETS * 1_000 / (performance.now() - startMs),
    }));
  }
};
