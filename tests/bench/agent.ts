/**
 * The agent's side: permission checks over one connection to a real Unix socket, and what the shim
 * adds to the program that it runs.
 */
import { AgentClient } from "../../lib/shim/client.ts";
import { withAgentApi } from "../agent/served.ts";
import { measureLoop } from "./loop.ts";
import { compare, type Report, type Suite } from "./result.ts";

const CHECKS = 5_000;
const RUNS = 15;
const RATE = { count: 1_000_000, windowSecs: 1 };
const RULES = `version: "1"
rules:
  - id: api
    condition: http.host == "api.openai.com" && agent.name == "worker"
    action: allow
  - id: harmless
    condition: run.tool == "true"
    action: allow
`;
const QUESTION = { action_type: "network_call", target: "https://api.openai.com/v1/models" };

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

/** Milliseconds that a program takes, median of several runs. */
async function wallMs(argv: readonly string[]): Promise<number> {
  const [program = "", ...args] = argv;
  const times: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    const startMs = performance.now();
    const { code } = await new Deno.Command(program, { args, stdout: "null" }).output();
    times.push(performance.now() - startMs);
    if (code !== 0) throw new Error(`${argv.join(" ")} ended with ${code}`);
  }
  return median(times);
}

/** How soon an approval opens, and its end cuts; the slowest round counts. */
async function loop(report: Report, progress: (line: string) => void): Promise<void> {
  progress("requests approved for 3 s, used, and ended");
  const { approvedToReached, expiredToCut } = await measureLoop();
  for (
    const [name, times] of [
      ["approval to the same curl's success, slowest", approvedToReached],
      ["end of a grant to the end of its tunnel, slowest", expiredToCut],
    ] as const
  ) {
    const ours = Math.max(1, ...times);
    report(compare({ suite: "agent", case: name, unit: "ms", better: "lower", ours, peers: {} }));
  }
}

/** Permission checks a second, their slowest hundredth, the shim's wall time, and the loop. */
export const agentSuite: Suite = async (
  report: Report,
  progress: (line: string) => void,
): Promise<void> => {
  await checks(report, progress);
  await loop(report, progress);
};

const checks: Suite = (report, progress) =>
  withAgentApi(
    { rules: RULES, rates: { permissions: RATE, submissions: RATE } },
    async (served) => {
      const client = await AgentClient.connect(served.path, 5_000);
      await client.checkIn();
      const times: number[] = [];
      progress(`${CHECKS} permission checks over one connection`);
      const startMs = performance.now();
      for (let i = 0; i < CHECKS; i++) {
        const askedMs = performance.now();
        const { allowed } = await client.ask("POST", "/v1/permissions/check", QUESTION);
        if (allowed !== true) throw new Error("a check was not allowed");
        times.push(performance.now() - askedMs);
      }
      const tookSecs = (performance.now() - startMs) / 1_000;
      client.close();
      const p99 = times.sort((a, b) => a - b)[Math.floor(CHECKS * 0.99)] ?? NaN;
      const suite = "agent";
      report(compare({
        ...{ suite, case: "permission checks, one connection", unit: "checks/s", better: "higher" },
        ours: CHECKS / tookSecs,
        peers: {},
      }));
      report(compare({
        ...{ suite, case: "permission check, p99", unit: "ms", better: "lower" },
        ours: p99,
        peers: {},
      }));

      progress("the shim beside the plain program");
      const shim = [
        ...[Deno.execPath(), "run", "-qA", "--no-config", "--no-remote", "--no-npm"],
        ...[new URL("./shim_at.ts", import.meta.url).pathname, served.path],
      ];
      const plain = await wallMs(["true"]);
      for (
        const args of [["--version"], ["check", "network", QUESTION.target], ["exec", "true"]]
      ) {
        report(compare({
          ...{
            suite,
            case: `outcall-agent ${args.slice(0, 2).join(" ")}`,
            unit: "ms",
            better: "lower",
          },
          ours: await wallMs([...shim, ...args]),
          peers: { "plain true": plain },
        }));
      }
    },
  );
