/**
 * A million hostile packets for each side of the DNS filter: the tests' own fuzzing, run for longer,
 * and both sides at once around a real daemon, whose memory must not grow.
 */
import { FUZZED_CONDITION } from "../dns/fuzz_sides.ts";
import { DEFAULT_PLACE } from "../lab/agent.ts";
import { UPSTREAM_RESOLVER } from "../lab/internet/world.ts";
import { Lab } from "../lab/lab.ts";
import { denoCommand } from "../lab/product.ts";
import { SEED } from "../random.ts";
import { compare, type Report, type Suite } from "./result.ts";

const PACKETS = 1_000_000;

const SIDES: Readonly<Record<string, { readonly file: string; readonly filter: string }>> = {
  "client's packets": { file: "fuzz_test.ts", filter: "/parseQuery/" },
  "worker beside filter": { file: "fuzz_test.ts", filter: "/responder/" },
  "upstream's packets": { file: "fuzz_test.ts", filter: "/parseResponse/" },
};

const FUZZER = new URL("../lab/dns/fuzzer.ts", import.meta.url);
const UPSTREAM_PORT = 5300;

/** By then everything that is bounded is as full as it gets. */
const WARM_UP_PACKETS = 300_000;

/** What comes and goes with garbage. A leak of 150 bytes with each packet would be more. */
const MAX_GROWTH_MB = 100;

const RULES = `version: "1"
rules:
  - { id: below, condition: '${FUZZED_CONDITION}', action: allow }
`;

/** Both sides at once around the real daemon; returns packets a second, and its memory. */
async function fuzzDaemon(): Promise<{ perSecond: number; warmMb: number; endMb: number }> {
  await using lab = await Lab.create({ docker: false });
  const upstream = `${UPSTREAM_RESOLVER}:${UPSTREAM_PORT}`;
  const fuzzer = (...words: readonly string[]): string[] => [...denoCommand(FUZZER), ...words];
  const answering = lab.internet.machine.spawn(
    fuzzer("upstream", UPSTREAM_RESOLVER, `${UPSTREAM_PORT}`, `${SEED}`),
  );
  await answering.line("stdout", () => true);
  const daemon = await lab.startDaemon({
    ...{ rules: { "fuzz.yaml": RULES }, logFile: "/run/daemon.log" },
    flags: ["--dns-upstream", upstream, "--dns-query-rate", "1000000/1"],
  });
  const residentMb = async (): Promise<number> => {
    const status = await lab.host.must(["cat", `/proc/${daemon.pid}/status`]);
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
  };
  const agent = await lab.agent();
  const startMs = performance.now();
  const attacking = agent.spawn(
    fuzzer("client", DEFAULT_PLACE.gateway, "53", `${SEED}`, `${PACKETS}`),
  );
  await attacking.line("stdout", (line) => Number(line) >= WARM_UP_PACKETS);
  const warmMb = await residentMb();
  const code = await attacking.ended;
  const endMb = await residentMb();
  if (code !== 0) throw new Error(attacking.stderr.join("\n"));
  const perSecond = PACKETS * 1000 / (performance.now() - startMs);
  const { stdout } = await agent.run(["dig", "+tries=1", "blocked.example.net"]);
  if (!stdout.includes("status: NXDOMAIN")) throw new Error(`it does not answer: ${stdout}`);
  if (endMb - warmMb > MAX_GROWTH_MB) throw new Error(`it grew from ${warmMb} to ${endMb} MB`);
  return { perSecond, warmMb, endMb };
}

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
  progress(`${PACKETS} packets: both, around a daemon`);
  const { perSecond, warmMb, endMb } = await fuzzDaemon();
  const figure = { suite: "fuzz-dns", peers: {} };
  const rate = { ...figure, case: "both, around a daemon", unit: "packets/s" };
  report(compare({ ...rate, better: "higher", ours: perSecond }));
  for (const [when, ours] of [[`${WARM_UP_PACKETS} packets`, warmMb], ["all", endMb]] as const) {
    const memory = { ...figure, case: `the daemon's memory after ${when}`, unit: "MB" };
    report(compare({ ...memory, better: "lower", ours }));
  }
};
