/** What the subsystems offer together: to operators, to agents, and to whoever watches the daemon. */
import type { Callers } from "../agent/callers.ts";
import { AgentIdentity } from "../agent/identity.ts";
import { Sessions } from "../agent/sessions.ts";
import { agentApp } from "../api/agent.ts";
import type { ApiApp } from "../api/router.ts";
import type { HostServices, ProxyService } from "../api/services.ts";
import { FirewallCounters } from "../bridge/drops/counters.ts";
import { OutcallError } from "../errors.ts";
import type { PartHealth } from "../health.ts";
import { Metrics } from "../metrics/metrics.ts";
import { healthOf } from "../parts_health.ts";
import { Status } from "../status/status.ts";
import { VERSION } from "../version.ts";
import type { Subsystems } from "./subsystems.ts";

/** What answers for the proxy where there is none. */
const NO_PROXY: ProxyService = {
  status: () => ({
    running: false,
    listen_addresses: [],
    listen_port: 0,
    active_connections: 0,
    tunnels: [],
    requests_total: 0,
    requests_blocked: 0,
  }),
};

/** What the operator's API offers. Asked for once: some of it counts from then on. */
export function operatorServices(parts: Subsystems): HostServices {
  return {
    version: VERSION,
    bridge: {
      status: () => parts.bridges.status(),
      up: () => parts.enforcement.up(),
      down: () => parts.enforcement.down(() => attachedContainers(parts)),
    },
    policy: parts.policy,
    grants: parts.grants,
    dns: parts.dns,
    proxy: parts.proxy ?? NO_PROXY,
    networks: parts.docker.networks,
    containers: parts.docker.containers,
    namespaceAgents: parts.namespaceAgents,
    observations: parts.observations,
    decisions: parts.records,
    requests: parts.requests,
    metrics: makeMetrics(parts),
    status: makeStatus(parts),
    health: () => health(parts),
  };
}

/** The API on the agents' socket. */
export function agentApi(parts: Subsystems, callers: Callers): ApiApp {
  const { agentPermissionRate, agentRuleRate, agentTimeoutSecs } = parts.config;
  return agentApp({
    callerOf: (peer) => callers.of(peer),
    identity: new AgentIdentity({
      agents: parts.docker.agents,
      segments: () => parts.enforcement.segments(),
      namespaceAgent: (namespaceId) => parts.namespaceAgents.behind(namespaceId),
    }),
    sessions: new Sessions({ permissions: agentPermissionRate, submissions: agentRuleRate }),
    check: {
      ask: (request, agent) => parts.policy.ask(request, agent),
      judge: parts.policy.judge,
      decisions: parts.decisions,
      timeoutMs: agentTimeoutSecs * 1_000,
    },
    requests: parts.requests,
  });
}

function makeMetrics(parts: Subsystems): Metrics {
  const firewall = new FirewallCounters();
  return new Metrics(parts.counters, {
    dns: () => parts.dns.status(),
    dnsCache: () => parts.dns.cacheStats(),
    proxy: () => (parts.proxy ?? NO_PROXY).status(),
    rules: () => parts.policy.counters(),
    policy: () => parts.policy.loads(),
    grants: () => parts.bridges.openings.count,
    agents: () => parts.bridges.pins().length,
    repairs: () => parts.watch.repairs,
    drops: () => parts.drops.stats(),
    firewall: () => firewall.read(),
    history: () => parts.history.counters,
    streams: () => parts.records.streamCounters,
    threadFailures: () => ({
      dns: parts.dns.workerFailures,
      proxy: parts.proxy?.workerFailures ?? 0,
    }),
    pendingRequests: () => parts.requests.list("pending").length,
    health: () => health(parts),
  });
}

function makeStatus(parts: Subsystems): Status {
  return new Status({
    health: () => health(parts),
    policy: () => parts.policy.loads(),
    bridge: () => parts.bridges.status(),
    repairs: () => parts.watch.repairs,
    agentAddresses: () => parts.bridges.agentAddresses(),
    identify: (address) => parts.docker.agents.identify(address),
    grants: () => parts.bridges.openings.count,
    tunnels: () =>
      (parts.proxy ?? NO_PROXY).status().tunnels.reduce((n, { count }) => n + count, 0),
    pendingRequests: () => parts.requests.list("pending").length,
    decisions: parts.records,
  });
}

/**
 * Names of the containers on managed networks. Without Docker none are known, and the bridges' ports
 * decide: whatever runs has one.
 */
async function attachedContainers(parts: Subsystems): Promise<readonly string[]> {
  try {
    const networks = await parts.docker.networks.list();
    return networks.flatMap(({ containers }) => containers.map(({ name }) => name));
  } catch (error) {
    if (error instanceof OutcallError && error.code === "docker.unavailable") return [];
    throw error;
  }
}

function health(parts: Subsystems): Promise<readonly PartHealth[]> {
  return healthOf({
    bridge: parts.bridges,
    drops: parts.drops,
    policy: parts.policy,
    dns: parts.dns,
    proxy: parts.proxy,
    docker: parts.docker,
    history: parts.history,
    state: parts.state,
    observations: parts.observations,
    agentSocketPath: parts.config.agentSocketPath,
  });
}
