/** An agent API on a real Unix socket over a real policy; who calls is settled by the test. */
import { AgentIdentity } from "../../lib/agent/identity.ts";
import { RuleRequests } from "../../lib/agent/requests.ts";
import { type AgentRates, Sessions } from "../../lib/agent/sessions.ts";
import { agentApp } from "../../lib/api/agent.ts";
import { serveUnix } from "../../lib/api/unix_server.ts";
import { DecisionLog } from "../../lib/decision.ts";
import { ActivePolicy } from "../../lib/policy.ts";
import { openDatabase } from "../../lib/store/database.ts";

const CONTAINER = "a".repeat(64);

/** The container and the address of agent `n`. */
function whereIs(n: number): { readonly containerId: string; readonly address: string } {
  return n === 0 ? { containerId: CONTAINER, address: "10.200.0.2" } : {
    containerId: n.toString(16).padStart(64, "0"),
    address: `10.201.${n >> 8}.${n & 255}`,
  };
}

/** What a served API is made with. */
export interface ServedOptions {
  /** The only rule file. */
  readonly rules: string;
  readonly rates: AgentRates;
  /** Evaluations that take longer are denied; absent: 5 s. */
  readonly timeoutMs?: number;
  /** The number of the agent that asks next; absent: it is always the first one. */
  readonly nextCaller?: () => number;
  /** The number of an agent that is observed; absent: nobody is. */
  readonly observed?: number;
}

/** A running API. */
export interface Served {
  readonly path: string;
  readonly decisions: DecisionLog;
}

/** Serves every caller as an agent called `worker`, for as long as `test` runs. */
export async function withAgentApi(
  { rules, rates, timeoutMs = 5_000, nextCaller = (): number => 0, observed }: ServedOptions,
  test: (served: Served) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "outcall-agent-" });
  const rulesDir = `${directory}/rules.d`;
  Deno.mkdirSync(rulesDir, { mode: 0o755 });
  Deno.writeTextFileSync(`${rulesDir}/a.yaml`, rules, { mode: 0o644 });
  const policy = new ActivePolicy(rulesDir, true);
  await policy.reload();
  if (observed !== undefined) await policy.observe(new Set([whereIs(observed).containerId]));
  const decisions = new DecisionLog();
  const requests = new RuleRequests({
    database: openDatabase(`${directory}/state`),
    rulesDir,
    policy,
  });
  const containers = new Map<string, string>();
  const app = agentApp({
    callerOf: () => {
      const { containerId, address } = whereIs(nextCaller());
      containers.set(address, containerId);
      return { containerId, addresses: [address], namespaceId: null };
    },
    identity: new AgentIdentity({
      segments: () => [],
      namespaceAgent: () => undefined,
      agents: {
        identify: (address) => ({
          name: "worker",
          containerId: containers.get(address) ?? "",
          address,
          network: "outcall-agent-net",
        }),
      },
    }),
    sessions: new Sessions(rates),
    check: {
      ask: (request, agent) => policy.ask(request, agent),
      judge: policy.judge,
      decisions,
      timeoutMs,
    },
    requests,
  });
  const path = `${directory}/agent.sock`;
  const server = await serveUnix({
    path,
    mode: 0o600,
    target: "agent_api",
    fetch: app.fetch,
    admit: () => {},
  });
  try {
    await test({ path, decisions });
  } finally {
    await server.close();
    await requests.close();
    Deno.removeSync(directory, { recursive: true });
  }
}
