/** The order in which the subsystems start; they stop in the reverse order. */
import { Callers, MAX_AGENT_CONNECTIONS } from "../agent/callers.ts";
import { agentSocketInFolder } from "../agent_socket.ts";
import { hostApp } from "../api/host.ts";
import { admitOperator, operatorSocketAccess } from "../api/operators.ts";
import type { HostServices, MetricsService } from "../api/services.ts";
import { serveUnix, type UnixServer } from "../api/unix_server.ts";
import type { Segment } from "../bridge/segment.ts";
import { DEFAULT_NETWORK } from "../docker/managed.ts";
import { planAddresses, routeClaims } from "../docker/subnets.ts";
import { messageOf } from "../errors.ts";
import type { Step } from "../lifecycle.ts";
import { hostRoutes } from "../linux/rtnetlink.ts";
import { logger } from "../log.ts";
import { MetricsListener } from "../metrics/listener.ts";
import { agentApi, operatorServices } from "./services.ts";
import type { Subsystems } from "./subsystems.ts";

/** Start-up in the operator guide's order. */
export function stepsOf(parts: Subsystems): readonly Step[] {
  const services = operatorServices(parts);
  return [
    bridgeStep(parts),
    historyStep(parts),
    dropStep(parts),
    ruleStep(parts),
    networkStep(parts),
    ...gatewaySteps(parts),
    dockerStep(parts),
    operatorStep(parts, services),
    agentStep(parts),
    ...metricsSteps(parts, services.metrics),
  ];
}

function bridgeStep(parts: Subsystems): Step {
  return {
    target: "bridge",
    start: async () => {
      await parts.enforcement.adopt();
      parts.watch.start();
      const { name, index } = await parts.bridges.status();
      return `${name} is up (index ${index}), firewall active`;
    },
    stop: async () => {
      await parts.watch.stop();
      await parts.bridges.close();
    },
  };
}

/** Before whatever decides, so that it stops after it and keeps what was decided last. */
function historyStep(parts: Subsystems): Step {
  return {
    target: "host_api",
    start: () => {
      parts.history.start();
      return Promise.resolve("decisions are kept in the history");
    },
    stop: () => parts.history.stop(),
  };
}

/** Its failure stops nothing: drops are drops, recorded or not. */
function dropStep(parts: Subsystems): Step {
  return {
    target: "bridge",
    start: () => {
      parts.drops.start();
      return Promise.resolve("what the firewall drops is recorded");
    },
    stop: () => parts.drops.stop(),
  };
}

function ruleStep(parts: Subsystems): Step {
  return {
    target: "rule_engine",
    start: async () => {
      const { rules_loaded: rules, files_loaded: files } = await parts.policy.reload();
      await parts.requests.start();
      return rules === 0
        ? `no rules in ${parts.config.rulesDir}: everything is denied`
        : `${rules} rule(s) from ${files} file(s)`;
    },
    stop: () => parts.requests.close(),
  };
}

function networkStep(parts: Subsystems): Step {
  const end = new AbortController();
  let following: Promise<void> | undefined;
  return {
    target: "network",
    start: async () => {
      following = parts.namespaceAgents.follow(end.signal);
      await parts.docker.start();
      const restoring = parts.docker.ready.then(() => parts.grants.restore());
      // Without Docker nobody can say who is where; they come back when it does.
      if (parts.docker.isThere) await restoring;
      else restoring.catch((error: unknown) => failedToRestore(error));
      const adopted = parts.enforcement.segments()
        .find(({ bridge }) => bridge === parts.config.bridge);
      // Without Docker its bridge works all the same, for whoever sits on it; one of an earlier run
      // has its address, and no network's name.
      if (adopted === undefined) await parts.enforcement.attach(defaultSegment(parts));
      else if (adopted.network === adopted.bridge) {
        await parts.enforcement.attach({ ...adopted, network: DEFAULT_NETWORK });
      }
      const gateways = parts.enforcement.segments()
        .map(({ network, gateway }) => `${network} at ${gateway}`);
      return gateways.join(", ");
    },
    stop: async () => {
      end.abort();
      await following;
      await parts.docker.stop();
    },
  };
}

function failedToRestore(error: unknown): void {
  logger("network").error("grants are not restored: {reason}", { reason: messageOf(error) });
}

/** The default network as Docker would be asked for it (decision D4). */
function defaultSegment(parts: Subsystems): Segment {
  const bridge = parts.config.bridge;
  const claims = routeClaims(hostRoutes(), bridge);
  const { subnet, gateway } = planAddresses({}, parts.block, claims, "top");
  return { network: DEFAULT_NETWORK, bridge, subnet: subnet.toString(), gateway: gateway.text };
}

function gatewaySteps(parts: Subsystems): readonly Step[] {
  const dns: Step = {
    target: "dns",
    start: async () => {
      await parts.enforcement.startServices();
      const { listen_addresses: addresses, listen_port: port } = parts.dns.status();
      return `serving ${addresses.join(", ")} port ${port}`;
    },
    stop: (atOnce) => parts.enforcement.stopServices(atOnce),
  };
  const proxy: Step = {
    target: "proxy",
    start: () => {
      const status = parts.proxy?.status();
      return Promise.resolve(
        status === undefined
          ? "disabled (--no-proxy)"
          : `serving ${status.listen_addresses.join(", ")} port ${status.listen_port}`,
      );
    },
  };
  return [dns, proxy];
}

function dockerStep(parts: Subsystems): Step {
  return {
    target: "docker_manager",
    start: () => Promise.resolve(parts.docker.health().detail),
  };
}

function operatorStep(parts: Subsystems, services: HostServices): Step {
  let server: UnixServer | undefined;
  const { socketPath: path } = parts.config;
  return {
    target: "host_api",
    start: async () => {
      server = await serveUnix({
        path,
        target: "host_api",
        ...operatorSocketAccess(),
        fetch: hostApp(services).fetch,
        admit: admitOperator,
      });
      return `listening on ${path}`;
    },
    stop: async () => {
      parts.records.stop(); // a stream would keep the server waiting
      await server?.close();
    },
  };
}

function agentStep(parts: Subsystems): Step {
  let server: UnixServer | undefined;
  const callers = new Callers();
  const { agentSocketPath: path } = parts.config;
  return {
    target: "agent_api",
    start: async () => {
      server = await serveUnix({
        path,
        target: "agent_api",
        mode: 0o666, // agents run as any user; who they are is for the API to find out
        alsoAt: agentSocketInFolder(path),
        maxConnections: MAX_AGENT_CONNECTIONS,
        fetch: agentApi(parts, callers).fetch,
        admit: (peer, fd) => callers.admit(peer, fd),
      });
      return `listening on ${path}`;
    },
    stop: async () => await server?.close(),
  };
}

/** Without the flag there is none. */
function metricsSteps({ config }: Subsystems, metrics: MetricsService): readonly Step[] {
  if (config.metricsListen === null) return [];
  const listener = new MetricsListener(config.metricsListen, metrics);
  return [{
    target: "host_api",
    start: () => Promise.resolve(`metrics at ${listener.start()}`),
    stop: () => listener.stop(),
  }];
}
