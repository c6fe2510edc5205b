/**
 * One agent floods the DNS filter with names that are blocked, each another one; what does an agent
 * beside it notice, which asks for a cached name now and then? Under the default limit on queries,
 * unlike the other cases.
 *
 * Clients and servers share two processors, so some of it is the machine's own doing. That shows
 * where the same flood goes to a port at which nobody listens, and the kernel drops it.
 */
import { fileURLToPath } from "node:url";
import { DEFAULT_PLACE } from "../lab/agent.ts";
import type { Machine } from "../lab/machine.ts";
import { queryFile } from "./dnsperf.ts";
import { ALLOWED_NAMES, BLOCKED_NAMES } from "./names.ts";
import { startPeer } from "./peers/peer.ts";
import { RESOLVERS } from "./peers/resolvers.ts";
import { race } from "./race.ts";
import type { BenchResult } from "./result.ts";
import { OUR_ADDRESS, PEER_ADDRESS, Stage } from "./stage.ts";

/** Of the flood: twenty times the limit, and little enough to leave the others a processor. */
const FLOOD_RATE = 20_000;
const DEFAULT_QUERY_RATE = "1000/1";
const FLOOD_NAMES = Array.from({ length: 5_000 }, (_, i) => `flood-${i}.${BLOCKED_NAMES[0]}`);
/** Nobody listens there. */
const DROPPED_PORT = 9;
const RULES = 1_000;

/** Of the agent beside it: look-ups in one run, and how long it sleeps after each. */
const LOOKUPS = 1_000;
const PAUSE_MS = 1;
/** Longer than a run. */
const FLOOD_SECS = 3;

const NEIGHBOUR = { ...DEFAULT_PLACE, address: "10.200.255.11/24" };
const QUERIES = "/run/lab/flood.txt";
// It sleeps while it waits, unlike dnsperf, which would compete with itself for a processor.
const CALM = fileURLToPath(new URL("crowd.py", import.meta.url));

/** A server, who asks it, who floods, and what port the flood goes to. */
interface Scene {
  readonly calm: Machine;
  readonly flooding: Machine;
  readonly server: string;
  readonly port: number;
  readonly floodedPort: number;
}

/** The time, in microseconds, within which 99 of 100 answers come. */
async function calmP99Us({ calm, server, port }: Scene): Promise<number> {
  const [name = ""] = ALLOWED_NAMES;
  const printed = await calm.must([
    ...["python3", CALM, "time", server, name, `${LOOKUPS}`, `${port}`, `${PAUSE_MS}`],
  ]);
  const sorted = printed.trim().split("\n").map(Number).toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length * 0.99)] ?? NaN;
}

/** How many times as long the slowest answers take in the flood as without it. */
async function slowdown(scene: Scene): Promise<number> {
  const idleUs = await calmP99Us(scene);
  const flood = [
    ...["dnsperf", "-s", scene.server, "-p", `${scene.floodedPort}`, "-d", QUERIES],
    ...["-Q", `${FLOOD_RATE}`, "-l", `${FLOOD_SECS}`],
    // Most are never answered: those must not keep it from sending.
    ...["-c", "8", "-q", "2000", "-t", "0.05"],
  ];
  // It tells of every query that is not answered, and whoever reads that takes part in the flood.
  const flooder = scene.flooding.spawn(["bash", "-c", 'exec "$@" &> /dev/null', "flood", ...flood]);
  const floodedUs = await calmP99Us(scene);
  await flooder.ended;
  return floodedUs / idleUs;
}

/** Measures how much slower the slowest answers become for the agent beside a flood. */
export async function floodCase(): Promise<BenchResult> {
  await using stage = await Stage.create(RULES, DEFAULT_QUERY_RATE);
  const agent = await stage.newAgent(NEIGHBOUR);
  const unfiltered = await stage.newUnfiltered();
  for (const machine of [agent, unfiltered]) {
    await machine.write(QUERIES, queryFile(FLOOD_NAMES));
  }
  const ours = {
    ...{ calm: stage.agent, flooding: agent, server: OUR_ADDRESS },
    ...{ port: 53, floodedPort: 53 },
  };
  const others: Record<string, Scene> = {
    "dropped by the kernel": { ...ours, floodedPort: DROPPED_PORT },
  };
  for (const peer of RESOLVERS) {
    await startPeer(stage.peers, peer, stage.unfiltered, [
      ...["dig", "+time=1", "+tries=1", `@${PEER_ADDRESS}`, "-p", `${peer.port}`, "example.com"],
    ]);
    others[peer.name] = {
      ...{ calm: stage.unfiltered, flooding: unfiltered, server: PEER_ADDRESS },
      ...{ port: peer.port, floodedPort: peer.port },
    };
  }
  return await race(
    {
      ...{ suite: "dns", case: `p99 beside a flood of ${FLOOD_RATE}/s` },
      ...{ unit: "× idle", better: "lower" },
    },
    slowdown,
    ours,
    others,
  );
}
