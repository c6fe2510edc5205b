/**
 * Agents that come and go: how fast, what they leave behind (a failure), and what becomes of the
 * daemon's memory.
 *
 * In the first hundred V8 grows its young generation to what allocating that fast takes, and compiles
 * what runs often; after that nothing may grow. So the figure of interest is the memory after the last
 * half against that after the first.
 */
import type { Daemon } from "../lab/daemon.ts";
import { Lab } from "../lab/lab.ts";
import { leftovers, nothingLeft, residentBytes } from "../lab/leftovers.ts";
import { setUp } from "../setup.ts";
import { compare, type Report, type Suite } from "./result.ts";

const AGENTS_IN_A_HALF = 100;
const IMAGE = "lab/agent:1";
const NETWORK = "outcall-default";
const MEGABYTE = 1024 * 1024;
/** As many at once as two processors keep busy. */
const AT_ONCE = 4;

/** Attaches that many agents and removes each; prints nothing. */
function churn(command: string): string[] {
  return ["bash", "-c", `seq ${AGENTS_IN_A_HALF} | xargs -P ${AT_ONCE} -I{} ${command}`];
}

const KINDS = {
  "outcall run": churn("outcall run --name agent-{} -- true"),
  "docker run": churn(`docker run --rm --name agent-{} --network ${NETWORK} ${IMAGE} id`),
};

async function half(lab: Lab, daemon: Daemon, argv: readonly string[]): Promise<number> {
  const before = await leftovers(lab.host, daemon);
  const startMs = performance.now();
  await lab.host.must(argv, { timeoutMs: 600_000 });
  const tookSecs = (performance.now() - startMs) / 1_000;
  await nothingLeft(lab.host, daemon, before);
  return AGENTS_IN_A_HALF / tookSecs;
}

/** Agents with and without Docker. */
export const churnSuite: Suite = async (
  report: Report,
  progress: (line: string) => void,
): Promise<void> => {
  const missing = await setUp("test");
  if (missing !== null) throw new Error(missing);
  await using lab = await Lab.create({ docker: true });
  await lab.engine?.importClients(IMAGE, "");
  const daemon = await lab.startDaemon({ rules: {}, logFile: "/run/lab/outcalld.log" });
  for (const [kind, argv] of Object.entries(KINDS)) {
    progress(`${2 * AGENTS_IN_A_HALF} agents by ${kind}`);
    await half(lab, daemon, argv);
    const first = await residentBytes(lab.host, daemon);
    const rate = await half(lab, daemon, argv);
    const second = await residentBytes(lab.host, daemon);
    report(compare({
      ...{ suite: "churn", case: `agents by ${kind}`, unit: "agents/s", better: "higher" },
      ours: rate,
      peers: {},
    }));
    report(compare({
      ...{ suite: "churn", case: `memory after ${2 * AGENTS_IN_A_HALF}, ${kind}`, unit: "MB" },
      better: "lower",
      ours: second / MEGABYTE,
      peers: { [`after ${AGENTS_IN_A_HALF}`]: first / MEGABYTE },
    }));
  }
};
