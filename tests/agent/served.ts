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

/** What a served API is made with. */
export interface ServedOptions {
  /** The only rule file. */
  readonly rules: string;
  readonly rates: AgentRates;
}

/** A running API. */
export interface Served {
  readonly path: string;
  readonly decisions: DecisionLog;
}

/** Serves every caller as the agent `worker`, for as long as `test` runs. */
export async function withAgentApi(
  { rules, rates }: ServedOptions,
  test: (served: Served) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "outcall-agent-" });
  const rulesDir = `${directory}/rules.d`;
  Deno.mkdirSync(rulesDir, { mode: 0o755 });
  Deno.writeTextFileSync(`${rulesDir}/a.yaml`, rules, { mode: 0o644 });
  const policy = new ActivePolicy(rulesDir, true);
  await policy.reload();
  const decisions = new DecisionLog();
  const requests = new RuleRequests({
    database: openDatabase(`${directory}/state`),
    rulesDir,
    policy,
  });
  const app = agentApp({
    callerOf: () => ({ containerId: CONTAINER, addresses: ["10.200.0.2"], namespaceId: null }),
    identity: new AgentIdentity({
      segments: () => [],
      namespaceAgent: () => undefined,
      agents: {
        identify: (address) => ({
          name: "worker",
          containerId: CONTAINER,
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
      timeoutMs: 5_000,
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
