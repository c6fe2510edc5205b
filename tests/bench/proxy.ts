/** The proxy beside Squid and tinyproxy. */
import { DEFAULT_PLACE } from "../lab/agent.ts";
import type { Machine } from "../lab/machine.ts";
import { denoCommand } from "../lab/product.ts";
import type { ClientJob, ClientTask } from "./client.ts";
import { ambiguousUs, judgingUs } from "./judging.ts";
import { ALLOWED_NAMES, NAME_COUNT } from "./names.ts";
import { startPeer } from "./peers/peer.ts";
import { PROXIES } from "./peers/proxies.ts";
import { race } from "./race.ts";
import { type BenchResult, compare, type Report } from "./result.ts";
import { ORIGIN_ADDRESS, OUR_ADDRESS, PEER_ADDRESS, Stage } from "./stage.ts";
import { runWrk, type WebFigures } from "./wrk.ts";

const RULES = NAME_COUNT;
const RUN_SECS = 2;
/** Gigabytes pass in this time. */
const BULK_SECS = 1;
const MANY_CLIENTS = 32;
const IDLE_TUNNELS = 1_000;
/** Of an agent that leaves nothing to the others if it can. */
const BUSY_CLIENTS = 100;
/** Until it is busy. */
const BUSY_AFTER_MS = 300;
const NEIGHBOUR = { ...DEFAULT_PLACE, address: "10.200.255.11/24" };
/** Of the small answers: about that of an API. */
const ANSWER_BYTES = 1024;
/** The server asked for, named by a rule in the middle of the set. */
const SERVER = ALLOWED_NAMES[NAME_COUNT / 2] ?? "";

/** A proxy and its client. */
interface Server {
  /** Where the proxy runs. */
  readonly machine: Machine;
  /** Name of its processes, none of which are anything else's there. */
  readonly program: string;
  readonly from: Machine;
  /** Another client. */
  readonly neighbour: Machine;
  readonly proxy: ClientJob["proxy"];
}

interface Case {
  readonly what: Pick<BenchResult, "case" | "unit" | "better">;
  readonly measure: (server: Server) => Promise<number>;
}

async function runClient({ from, proxy }: Server, task: ClientTask): Promise<number> {
  const job: ClientJob = { proxy, server: SERVER, task };
  const command = denoCommand(new URL("./client.ts", import.meta.url));
  return Number(await from.must([...command, JSON.stringify(job)]));
}

function bulk(tunnels: number): Case {
  return {
    what: { case: `bulk, tunnels: ${tunnels}`, unit: "MB/s", better: "higher" },
    measure: (server) => runClient(server, { kind: "bulk", seconds: BULK_SECS, tunnels }),
  };
}

function exchanges(clients: number): Case[] {
  const name = `CONNECT and small answer, clients: ${clients}`;
  const common = { kind: "exchange", seconds: RUN_SECS, clients, bytes: ANSWER_BYTES } as const;
  return [
    {
      what: { case: name, unit: "exchanges/s", better: "higher" },
      measure: (server) => runClient(server, { ...common, figure: "rate" }),
    },
    ...(["p50", "p99"] as const).map((figure): Case => ({
      what: { case: `${name}, ${figure}`, unit: "ms", better: "lower" },
      measure: (server) => runClient(server, { ...common, figure }),
    })),
  ];
}

const CASES: readonly Case[] = [
  bulk(1),
  bulk(MANY_CLIENTS),
  ...exchanges(1),
  ...exchanges(MANY_CLIENTS),
  {
    what: { case: `plain HTTP, clients: ${MANY_CLIENTS}`, unit: "requests/s", better: "higher" },
    measure: async (server) => (await plainHttp(server, MANY_CLIENTS)).requestsPerSec,
  },
  {
    what: { case: "plain HTTP, clients: 1, p99", unit: "ms", better: "lower" },
    measure: async (server) => (await plainHttp(server, 1)).p99Ms,
  },
  {
    what: {
      case: `the same beside an agent with ${BUSY_CLIENTS} busy connections`,
      ...{ unit: "ms", better: "lower" },
    },
    measure: besideBusyMs,
  },
  {
    what: { case: `memory, idle tunnels: ${IDLE_TUNNELS}`, unit: "MB", better: "lower" },
    measure: idleMemoryMb,
  },
];

function plainHttp(server: Server, clients: number, seconds = RUN_SECS): Promise<WebFigures> {
  return runWrk({ ...server, server: SERVER, clients, seconds });
}

async function besideBusyMs(server: Server): Promise<number> {
  const busy = plainHttp({ ...server, from: server.neighbour }, BUSY_CLIENTS, RUN_SECS + 1);
  await new Promise((resolve) => setTimeout(resolve, BUSY_AFTER_MS));
  const { p99Ms } = await plainHttp(server, 1);
  await busy;
  return p99Ms;
}

/** Megabytes of memory that the proxy's processes have while as many tunnels are open and silent. */
async function idleMemoryMb({ from, proxy, machine, program }: Server): Promise<number> {
  const task = { kind: "idle", seconds: RUN_SECS, tunnels: IDLE_TUNNELS } as const;
  const job: ClientJob = { proxy, server: SERVER, task };
  const command = denoCommand(new URL("./client.ts", import.meta.url));
  const client = from.spawn([...command, JSON.stringify(job)]);
  await client.line("stdout", (line) => line === "open");
  const sizes = await machine.must(["ps", "-eo", "rss=,comm="]);
  await client.ended;
  const kilobytes = sizes.split("\n").map((line) => line.trim().split(/\s+/))
    .filter(([, name]) => name === program)
    .map(([size]) => Number(size));
  return kilobytes.reduce((sum, size) => sum + size, 0) / 1_000;
}

/** Proxies on the same processors, to the same origin. */
export async function proxySuite(
  report: Report,
  progress: (line: string) => void,
): Promise<void> {
  progress(`starting the daemon with ${RULES} rules, ${PROXIES.map((p) => p.name).join(", ")}`);
  await using stage = await Stage.create(RULES);
  // tinyproxy has no DNS cache; a hosts file is as good as the others' caches.
  await stage.peers.write("/etc/hosts", `${ORIGIN_ADDRESS} ${SERVER}\n`);
  const peers: Record<string, Server> = {};
  const neighbour = await stage.newUnfiltered();
  for (const peer of PROXIES) {
    await startPeer(stage.peers, peer, stage.unfiltered, [
      ...["nc", "-z", PEER_ADDRESS, `${peer.port}`],
    ]);
    const proxy = { hostname: PEER_ADDRESS, port: peer.port };
    peers[peer.name] = {
      ...{ machine: stage.peers, program: peer.name },
      ...{ from: stage.unfiltered, neighbour, proxy },
    };
  }
  const ours: Server = {
    machine: stage.host,
    program: "deno",
    from: stage.agent,
    neighbour: await stage.newAgent(NEIGHBOUR, "neighbour"),
    proxy: { hostname: OUR_ADDRESS, port: 8080 },
  };
  for (const { what, measure } of CASES) {
    progress(what.case);
    await measure(ours); // the engine compiles what is busy: not in the first turn only
    report(await race({ suite: "proxy", ...what }, measure, ours, peers));
  }
  progress("policy alone");
  report(compare({
    ...{ suite: "proxy", case: "policy's own cost of a tunnel", unit: "µs", better: "lower" },
    ours: await judgingUs(SERVER, RULES),
    peers: {},
  }));
  report(compare({
    ...{ suite: "proxy", case: `most ambiguous request, rules about headers: ${RULES}` },
    ...{ unit: "µs", better: "lower" },
    ours: ambiguousUs(RULES),
    peers: {},
  }));
}
