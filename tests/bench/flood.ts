/**
 * One agent floods the DNS filter with names that are blocked, each another one; what does an agent
 * beside it notice? Under the default limit on queries, unlike the other cases.
 */
import type { AgentPlace } from "../lab/agent.ts";
import { DEFAULT_PLACE } from "../lab/agent.ts";
import { Lab } from "../lab/lab.ts";
import { type DnsRun, latencyUs, queryFile } from "./dnsperf.ts";
import { names } from "./names.ts";
import { type BenchResult, compare } from "./result.ts";

/** Each turn is an idle run and one in the flood; the middle ratio counts. */
const TURNS = 3;
/** Of the flood: twenty times the limit, and little enough to leave the clients a processor. */
const FLOOD_RATE = 20_000;
/** Of the agent beside it. */
const CALM_RATE = 500;
const RUN_SECS = 2;

const NEIGHBOUR: AgentPlace = { ...DEFAULT_PLACE, address: "10.200.255.11/24" };
const QUERIES = "/run/lab/queries.txt";
const RULE = `version: "1"
rules:
  - id: calm
    condition: 'http.host == "api.openai.com"'
    action: allow
`;

/** Measures how much slower the slowest answers become for the agent beside a flood. */
export async function floodCase(): Promise<BenchResult> {
  await using lab = await Lab.create({ docker: false });
  await lab.startDaemon({ rules: { "calm.yaml": RULE }, logFile: "/run/lab/outcalld.log" });
  const calm = await lab.agent();
  const flooding = await lab.agent(NEIGHBOUR);
  await calm.write(QUERIES, queryFile(["api.openai.com"]));
  await flooding.write(QUERIES, queryFile(names("flood", 5_000)));
  const run: DnsRun = {
    from: calm,
    server: DEFAULT_PLACE.gateway,
    port: 53,
    queries: QUERIES,
    expect: "NOERROR",
    seconds: RUN_SECS,
    rate: CALM_RATE,
  };
  const flood = [
    ...["dnsperf", "-s", run.server, "-d", QUERIES, "-Q", `${FLOOD_RATE}`, "-l", `${RUN_SECS + 1}`],
    // Most are never answered: those must not keep it from sending.
    ...["-c", "8", "-q", "2000", "-t", "0.05"],
  ];
  await calm.must(["dig", `@${run.server}`, "+tries=3", "api.openai.com"]);
  const ratios: number[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    const idleUs = await latencyUs(run, 0.99);
    const flooder = flooding.spawn(flood);
    ratios.push(await latencyUs(run, 0.99) / idleUs);
    await flooder.ended;
  }
  return compare({
    suite: "dns",
    case: `p99 beside a flood of ${FLOOD_RATE}/s`,
    unit: "× idle",
    better: "lower",
    ours: ratios.toSorted((a, b) => a - b)[(TURNS - 1) / 2] ?? NaN,
    peers: {},
  });
}
