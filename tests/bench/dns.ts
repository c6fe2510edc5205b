/** The DNS filter beside Unbound and dnsmasq, all with the same names in their caches. */
import type { Machine } from "../lab/machine.ts";
import { answersPerSec, type DnsRun, medianLatencyUs, queryFile } from "./dnsperf.ts";
import { floodCase } from "./flood.ts";
import { ALLOWED_NAMES, BLOCKED_NAMES } from "./names.ts";
import { startPeer } from "./peers/peer.ts";
import { RESOLVERS } from "./peers/resolvers.ts";
import { race } from "./race.ts";
import type { BenchResult, Report } from "./result.ts";
import { OUR_ADDRESS, PEER_ADDRESS, Stage } from "./stage.ts";

const RULES = 10_000;
const RUN_SECS = 2;
/** The rate at which latency is compared: a busy host, far below what any of them can take. */
const LATENCY_RATE = 5_000;

type Server = Pick<DnsRun, "from" | "server" | "port">;
type Questions = Pick<DnsRun, "queries" | "expect" | "seconds" | "rate">;

const ALLOWED: Questions = {
  queries: "/run/lab/allowed.txt",
  expect: "NOERROR",
  seconds: RUN_SECS,
};
const BLOCKED: Questions = {
  queries: "/run/lab/blocked.txt",
  expect: "NXDOMAIN",
  seconds: RUN_SECS,
};

interface Case {
  readonly what: Pick<BenchResult, "case" | "unit" | "better">;
  readonly questions: Questions;
  readonly measure: (run: DnsRun) => Promise<number>;
}

const CASES: readonly Case[] = [
  {
    what: { case: "cached, allowed", unit: "answers/s", better: "higher" },
    questions: ALLOWED,
    measure: answersPerSec,
  },
  {
    what: { case: "blocked", unit: "answers/s", better: "higher" },
    questions: BLOCKED,
    measure: answersPerSec,
  },
  {
    what: { case: `median latency at ${LATENCY_RATE}/s`, unit: "µs", better: "lower" },
    questions: { ...ALLOWED, rate: LATENCY_RATE, seconds: 1 },
    measure: medianLatencyUs,
  },
];

async function writeQuestions(client: Machine): Promise<void> {
  await client.write(ALLOWED.queries, queryFile(ALLOWED_NAMES));
  await client.write(BLOCKED.queries, queryFile(BLOCKED_NAMES));
}

/** Resolvers on the same processors, with the same names warm in their caches. */
export async function dnsSuite(
  report: Report,
  progress: (line: string) => void,
): Promise<void> {
  progress(`starting the daemon with ${RULES} rules, ${RESOLVERS.map((r) => r.name).join(", ")}`);
  await using stage = await Stage.create(RULES);
  const { agent, unfiltered } = stage;
  await writeQuestions(agent);
  await writeQuestions(unfiltered);
  const ours: Server = { from: agent, server: OUR_ADDRESS, port: 53 };
  const peers: Record<string, Server> = {};
  for (const peer of RESOLVERS) {
    await startPeer(stage.peers, peer, unfiltered, [
      ...["dig", "+time=1", "+tries=1", `@${PEER_ADDRESS}`, "-p", `${peer.port}`, "example.com"],
    ]);
    peers[peer.name] = { from: unfiltered, server: PEER_ADDRESS, port: peer.port };
  }
  progress("warming up");
  for (const server of [ours, ...Object.values(peers)]) {
    for (const questions of [ALLOWED, BLOCKED]) await answersPerSec({ ...server, ...questions });
  }
  for (const { what, questions, measure } of CASES) {
    progress(what.case);
    const measureAt = (server: Server): Promise<number> => measure({ ...server, ...questions });
    report(await race({ suite: "dns", ...what }, measureAt, ours, peers));
  }
  progress("one agent floods, another one asks");
  report(await floodCase());
}
