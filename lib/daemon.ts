/**
 * The daemon: its subsystems, made from the flags and wired to each other, and the order in which
 * they start.
 */
import { join } from "node:path";
import { Callers, MAX_AGENT_CONNECTIONS } from "./agent/callers.ts";
import { AgentIdentity } from "./agent/identity.ts";
import { webhook } from "./agent/notify.ts";
import { RuleRequests } from "./agent/requests.ts";
import { Sessions } from "./agent/sessions.ts";
import { agentSocketFolder, agentSocketInFolder } from "./agent_socket.ts";
import type { Agent } from "./agents.ts";
import { agentApp } from "./api/agent.ts";
import { hostApp } from "./api/host.ts";
import { admitOperator, operatorSocketAccess } from "./api/operators.ts";
import type { ApiApp } from "./api/router.ts";
import type { HostServices, ProxyService } from "./api/services.ts";
import { serveUnix, type UnixServer } from "./api/unix_server.ts";
import { Bridges } from "./bridge/bridge.ts";
import { FirewallCounters } from "./bridge/drops/counters.ts";
import { DropReader } from "./bridge/drops/reader.ts";
import { isManagedName } from "./bridge/names.ts";
import type { Segment } from "./bridge/segment.ts";
import { Watch } from "./bridge/watch.ts";
import { checkCaFiles } from "./ca_files.ts";
import { claimFirewall } from "./claim.ts";
import type { DaemonConfig } from "./config.ts";
import { DecisionLog } from "./decision.ts";
import { DecisionLines } from "./decision_log_line.ts";
import { DirectAccess } from "./direct.ts";
import { DnsServer } from "./dns/server.ts";
import { upstreamsFromResolvConf } from "./dns/upstreams.ts";
import { Docker } from "./docker/docker.ts";
import { engineSocket } from "./docker/engine.ts";
import { DEFAULT_NETWORK } from "./docker/managed.ts";
import { planAddresses, routeClaims } from "./docker/subnets.ts";
import { Enforcement } from "./enforcement.ts";
import { messageOf, OutcallError } from "./errors.ts";
import { OperatorGrants } from "./grants.ts";
import type { PartHealth } from "./health.ts";
import { runUntilSignal, type Step } from "./lifecycle.ts";
import { isHostAddress } from "./linux/host_addresses.ts";
import { bookkeepingUrgency, setThreadUrgency } from "./linux/priority.ts";
import { RouteNetlink } from "./linux/rtnetlink.ts";
import { configureLogs, logger } from "./log.ts";
import { MetricsListener } from "./metrics/listener.ts";
import { Metrics } from "./metrics/metrics.ts";
import { decisionTracing } from "./metrics/trace.ts";
import { NamespaceAgents } from "./namespace/agents.ts";
import { Cidr } from "./net/cidr.ts";
import { Observations } from "./observe.ts";
import { healthOf } from "./parts_health.ts";
import { ActivePolicy } from "./policy.ts";
import { ProxyServer } from "./proxy/server.ts";
import { History } from "./record/history.ts";
import { HistoryLookup } from "./record/lookup.ts";
import { DecisionRecords } from "./record/records.ts";
import { lastSequence } from "./record/table.ts";
import { ContainerRules } from "./rules/container.ts";
import { emptyPolicy } from "./rules/policy.ts";
import { Status } from "./status/status.ts";
import { databasePath } from "./store/database.ts";
import { GrantStore } from "./store/grants.ts";
import { openState, type State } from "./store/state.ts";
import { VERSION } from "./version.ts";

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

function hostRoutes(): ReturnType<RouteNetlink["routes"]> {
  using netlink = new RouteNetlink();
  return netlink.routes();
}

/** Who asks for a name that an operator grants. */
const OPERATOR: Agent = { name: "", address: "127.0.0.1", network: "" };

/** The subsystems of one daemon, made from its flags and wired to each other. */
class Daemon {
  readonly #config: DaemonConfig;
  readonly #block: Cidr;
  readonly #decisions = new DecisionLog();
  readonly #lines = new DecisionLines();
  readonly #history: History;
  readonly #records: DecisionRecords;
  readonly #state: State;
  readonly #policy: ActivePolicy;
  readonly #observations = new Observations((keys) => this.#policy.observe(keys));
  readonly #bridges: Bridges;
  readonly #watch: Watch;
  readonly #metrics: Metrics;
  readonly #status: Status;
  readonly #drops: DropReader;
  readonly #dns: DnsServer;
  readonly #proxy: ProxyServer | null;
  readonly #enforcement: Enforcement;
  readonly #docker: Docker;
  readonly #namespaceAgents: NamespaceAgents;
  readonly #requests: RuleRequests;
  readonly #grants: OperatorGrants;
  #containerRules = new ContainerRules(emptyPolicy(0));

  /** @throws OutcallError for what is wrong with the flags taken together with this machine. */
  constructor(config: DaemonConfig, bridges: Bridges) {
    const block = Cidr.parse(config.subnetBlock);
    if (block === null) throw new RangeError(`"${config.subnetBlock}" is not a block`);
    if (config.ca !== null) checkCaFiles(config.ca);
    this.#config = config;
    this.#block = block;
    this.#decisions.addSink(this.#lines.add);
    this.#policy = new ActivePolicy(
      config.rulesDir,
      config.proxy !== null,
      (path) => this.#requests.isWithdrawn(path),
    );
    this.#state = openState(config.stateDir);
    const { database } = this.#state;
    this.#requests = new RuleRequests({
      database,
      rulesDir: config.rulesDir,
      policy: this.#policy,
      ...(config.notifyUrl === null ? {} : { onNew: webhook(config.notifyUrl) }),
    });
    this.#decisions.addSink(this.#policy.count);
    const historyPath = databasePath(config.stateDir);
    this.#decisions.resumeAfter(lastSequence(historyPath));
    this.#history = new History({ path: historyPath, bounds: config.historyBounds });
    this.#decisions.addSink(this.#history.add);
    this.#records = new DecisionRecords(
      this.#decisions,
      new HistoryLookup(historyPath),
      () => this.#history.lastLost,
      () => Promise.all([this.#dns.settle(), this.#proxy?.settle()]),
    );
    const proxyPort = config.proxy?.port ?? null;
    this.#bridges = bridges;
    this.#watch = new Watch(bridges);
    this.#metrics = this.#makeMetrics();
    this.#status = this.#makeStatus();
    this.#decisions.addSink(this.#metrics.decisions.count);
    const tracing = decisionTracing();
    if (tracing !== null) this.#decisions.addSink(tracing);
    this.#namespaceAgents = new NamespaceAgents({
      segments: () => this.#enforcement.segments(),
      // Whatever a port has been pinned to is taken, whether Docker gave it or not.
      containerAddresses: async (network) => [
        ...await this.#docker.addressesOn(network),
        ...this.#bridges.agentAddresses(),
      ],
      proxyPort,
      agentSocketFolder: agentSocketFolder(config.agentSocketPath),
      shimPath: config.shimPath,
      enforce: () => this.#enforcement.up(),
      observe: this.#observations.begin,
    });
    this.#docker = new Docker({
      namespaceAgents: this.#namespaceAgents,
      socketPath: engineSocket(Deno.env.get("DOCKER_HOST")),
      subnetBlock: block,
      hooks: {
        nextBridge: (taken) =>
          taken.length === 0 ? config.bridge : this.#bridges.nextFreeName(new Set(taken)),
        ownsBridge: (name) => isManagedName(config.bridge, name),
        cover: (bridges) => this.#bridges.cover(bridges),
        assertUp: () => this.#bridges.assertUp(),
        attach: (segment) => this.#enforcement.attach(segment),
        detach: (segment) => this.#enforcement.detach(segment),
      },
      hostRoutes,
      segments: () => this.#enforcement.segments(),
      pins: () => this.#bridges.pins(),
      containers: {
        proxyPort,
        judge: (facts) => this.#containerRules.judge(facts),
        observe: this.#observations.begin,
        decisions: this.#decisions,
        agentSocketPath: config.agentSocketPath,
        shimPath: config.shimPath,
        protectedPaths: [
          config.socketPath,
          config.rulesDir,
          config.stateDir,
          ...(config.ca === null ? [] : [config.ca.certPath, config.ca.keyPath]),
        ],
      },
    });
    const { agents } = this.#docker;
    const { judge } = this.#policy;
    const direct = new DirectAccess({
      openings: bridges.openings,
      agents,
      judge,
      decisions: this.#decisions,
    });
    this.#drops = new DropReader({
      pins: () => this.#bridges.pins(),
      identify: (address) => agents.identify(address),
      generation: () => this.#policy.generation,
      record: (decision) => this.#decisions.record(decision),
      update: (decision, changes) => this.#decisions.update(decision, changes),
    });
    this.#dns = new DnsServer({
      opener: direct,
      ...config.dns,
      upstreams: config.dnsUpstreams ??
        upstreamsFromResolvConf(Deno.readTextFileSync("/etc/resolv.conf")),
      queryRate: config.dnsQueryRate,
      agents,
      judge,
      evaluate: (layer, facts) => ({
        verdict: this.#policy.evaluate(layer, facts),
        generation: this.#policy.generation,
      }),
      generation: () => this.#policy.generation,
      agentAddresses: () => this.#bridges.agentAddresses(),
      decisions: this.#decisions,
    });
    this.#proxy = config.proxy === null ? null : new ProxyServer({
      ...config.proxy,
      agents,
      decisions: this.#decisions,
      onFailures: this.#policy.countFailures,
      resolve: (hostname, agent) => this.#dns.resolveFor(agent, hostname),
      onDial: this.#metrics.decisions.countDial,
      isLocalAddress: (ip) => isHostAddress(ip) || this.#enforcement.contains(ip),
      limits: config.proxyLimits,
    });
    this.#grants = new OperatorGrants({
      bridges,
      agents,
      store: new GrantStore(database),
      resolve: (hostname) => this.#dns.resolveFor(OPERATOR, hostname),
    });
    this.#enforcement = new Enforcement(this.#bridges, { dns: this.#dns, proxy: this.#proxy });
    this.#policy.onSwap(({ data }) => this.#dns.usePolicy(data));
    this.#policy.onSwap((policy) => {
      this.#containerRules = new ContainerRules(policy);
    });
    agents.onChange(() => this.#dns.forgetAgents());
    agents.onGone((containerId) => {
      // With Docker's events gone, nothing would correct what was learned before.
      if (containerId === null) this.#dns.forgetAgents();
    });
    this.#policy.onSwap(() => direct.rejudge());
    agents.onChange(() => direct.identitiesChanged());
    this.#policy.onSwap(async ({ data }) => void await this.#proxy?.usePolicy(data));
    agents.onChange(() => void this.#proxy?.reidentify());
    this.#namespaceAgents.onChange(() => agents.localChanged());
    agents.onGone((containerId) => this.#observations.gone(containerId));
    this.#namespaceAgents.onGone((cable) => this.#observations.gone(cable));
    this.#bridges.onNewPins(() => agents.portsPinned());
  }

  /** Start-up in the operator guide's order. */
  steps(): readonly Step[] {
    return [
      this.#bridgeStep(),
      this.#historyStep(),
      this.#dropStep(),
      this.#ruleStep(),
      this.#networkStep(),
      ...this.#gatewaySteps(),
      this.#dockerStep(),
      this.#socketStep("host_api"),
      this.#socketStep("agent_api"),
      ...this.#metricsSteps(),
    ];
  }

  #bridgeStep(): Step {
    return {
      target: "bridge",
      start: async () => {
        await this.#enforcement.adopt();
        this.#watch.start();
        const { name, index } = await this.#bridges.status();
        return `${name} is up (index ${index}), firewall active`;
      },
      stop: async () => {
        await this.#watch.stop();
        await this.#bridges.close();
      },
    };
  }

  /** Before whatever decides, so that it stops after it and keeps what was decided last. */
  #historyStep(): Step {
    return {
      target: "host_api",
      start: () => {
        this.#history.start();
        return Promise.resolve("decisions are kept in the history");
      },
      stop: () => this.#history.stop(),
    };
  }

  /** Its failure stops nothing: drops are drops, recorded or not. */
  #dropStep(): Step {
    return {
      target: "bridge",
      start: () => {
        this.#drops.start();
        return Promise.resolve("what the firewall drops is recorded");
      },
      stop: () => this.#drops.stop(),
    };
  }

  #ruleStep(): Step {
    return {
      target: "rule_engine",
      start: async () => {
        const { rules_loaded: rules, files_loaded: files } = await this.#policy.reload();
        await this.#requests.start();
        return rules === 0
          ? `no rules in ${this.#config.rulesDir}: everything is denied`
          : `${rules} rule(s) from ${files} file(s)`;
      },
      stop: () => this.#requests.close(),
    };
  }

  #networkStep(): Step {
    const end = new AbortController();
    let following: Promise<void> | undefined;
    return {
      target: "network",
      start: async () => {
        following = this.#namespaceAgents.follow(end.signal);
        await this.#docker.start();
        const restoring = this.#docker.ready.then(() => this.#grants.restore());
        // Without Docker nobody can say who is where; they come back when it does.
        if (this.#docker.isThere) await restoring;
        else restoring.catch((error: unknown) => this.#failedToRestore(error));
        const adopted = this.#enforcement.segments()
          .find(({ bridge }) => bridge === this.#config.bridge);
        // Without Docker its bridge works all the same, for whoever sits on it; one of an earlier run
        // has its address, and no network's name.
        if (adopted === undefined) await this.#enforcement.attach(this.#defaultSegment());
        else if (adopted.network === adopted.bridge) {
          await this.#enforcement.attach({ ...adopted, network: DEFAULT_NETWORK });
        }
        const gateways = this.#enforcement.segments()
          .map(({ network, gateway }) => `${network} at ${gateway}`);
        return gateways.join(", ");
      },
      stop: async () => {
        end.abort();
        await following;
        await this.#docker.stop();
      },
    };
  }

  #failedToRestore(error: unknown): void {
    logger("network").error("grants are not restored: {reason}", { reason: messageOf(error) });
  }

  /** The default network as Docker would be asked for it (decision D4). */
  #defaultSegment(): Segment {
    const bridge = this.#config.bridge;
    const claims = routeClaims(hostRoutes(), bridge);
    const { subnet, gateway } = planAddresses({}, this.#block, claims, "top");
    return { network: DEFAULT_NETWORK, bridge, subnet: subnet.toString(), gateway: gateway.text };
  }

  #gatewaySteps(): readonly Step[] {
    const dns: Step = {
      target: "dns",
      start: async () => {
        await this.#enforcement.startServices();
        const { listen_addresses: addresses, listen_port: port } = this.#dns.status();
        return `serving ${addresses.join(", ")} port ${port}`;
      },
      stop: (atOnce) => this.#enforcement.stopServices(atOnce),
    };
    const proxy: Step = {
      target: "proxy",
      start: () => {
        const status = this.#proxy?.status();
        return Promise.resolve(
          status === undefined
            ? "disabled (--no-proxy)"
            : `serving ${status.listen_addresses.join(", ")} port ${status.listen_port}`,
        );
      },
    };
    return [dns, proxy];
  }

  #dockerStep(): Step {
    return {
      target: "docker_manager",
      start: () => Promise.resolve(this.#docker.health().detail),
    };
  }

  #socketStep(target: "host_api" | "agent_api"): Step {
    let server: UnixServer | undefined;
    const callers = new Callers();
    const { socketPath, agentSocketPath } = this.#config;
    const path = target === "host_api" ? socketPath : agentSocketPath;
    return {
      target,
      start: async () => {
        server = target === "host_api"
          ? await serveUnix({
            path,
            target,
            ...operatorSocketAccess(),
            fetch: hostApp(this.#services()).fetch,
            admit: admitOperator,
          })
          : await serveUnix({
            path,
            target,
            mode: 0o666, // agents run as any user; who they are is for the API to find out
            alsoAt: agentSocketInFolder(path),
            maxConnections: MAX_AGENT_CONNECTIONS,
            fetch: this.#agentApp(callers).fetch,
            admit: (peer, fd) => callers.admit(peer, fd),
          });
        return `listening on ${path}`;
      },
      stop: async (atOnce) => {
        // A stream would keep the server waiting.
        if (target === "host_api") this.#records.stop();
        await server?.close(atOnce);
      },
    };
  }

  #agentApp(callers: Callers): ApiApp {
    const { agentPermissionRate, agentRuleRate, agentTimeoutSecs } = this.#config;
    return agentApp({
      callerOf: (peer) => callers.of(peer),
      identity: new AgentIdentity({
        agents: this.#docker.agents,
        segments: () => this.#enforcement.segments(),
        namespaceAgent: (namespaceId) => this.#namespaceAgents.behind(namespaceId),
      }),
      sessions: new Sessions({ permissions: agentPermissionRate, submissions: agentRuleRate }),
      check: {
        ask: (request, agent) => this.#policy.ask(request, agent),
        judge: this.#policy.judge,
        decisions: this.#decisions,
        timeoutMs: agentTimeoutSecs * 1_000,
      },
      requests: this.#requests,
    });
  }

  #services(): HostServices {
    return {
      version: VERSION,
      bridge: {
        status: () => this.#bridges.status(),
        up: () => this.#enforcement.up(),
        down: () => this.#enforcement.down(() => this.#attachedContainers()),
      },
      policy: this.#policy,
      grants: this.#grants,
      dns: this.#dns,
      proxy: this.#proxy ?? NO_PROXY,
      networks: this.#docker.networks,
      containers: this.#docker.containers,
      namespaceAgents: this.#namespaceAgents,
      observations: this.#observations,
      decisions: this.#records,
      requests: this.#requests,
      metrics: this.#metrics,
      status: this.#status,
      health: () => this.#health(),
    };
  }

  #makeMetrics(): Metrics {
    const counters = new FirewallCounters();
    return new Metrics({
      dns: () => this.#dns.status(),
      dnsCache: () => this.#dns.cacheStats(),
      proxy: () => (this.#proxy ?? NO_PROXY).status(),
      rules: () => this.#policy.counters(),
      policy: () => this.#policy.loads(),
      grants: () => this.#bridges.openings.count,
      agents: () => this.#bridges.pins().length,
      repairs: () => this.#watch.repairs,
      drops: () => this.#drops.stats(),
      firewall: () => counters.read(),
      history: () => this.#history.counters,
      streams: () => this.#records.streamCounters,
      threadFailures: () => ({
        dns: this.#dns.workerFailures,
        proxy: this.#proxy?.workerFailures ?? 0,
      }),
      pendingRequests: () => this.#requests.list("pending").length,
      health: () => this.#health(),
    });
  }

  #makeStatus(): Status {
    return new Status({
      health: () => this.#health(),
      policy: () => this.#policy.loads(),
      bridge: () => this.#bridges.status(),
      repairs: () => this.#watch.repairs,
      agentAddresses: () => this.#bridges.agentAddresses(),
      identify: (address) => this.#docker.agents.identify(address),
      grants: () => this.#bridges.openings.count,
      tunnels: () =>
        (this.#proxy ?? NO_PROXY).status().tunnels.reduce((n, { count }) => n + count, 0),
      pendingRequests: () => this.#requests.list("pending").length,
      decisions: this.#records,
    });
  }

  /** Without the flag there is none. */
  #metricsSteps(): readonly Step[] {
    const { metricsListen } = this.#config;
    if (metricsListen === null) return [];
    const listener = new MetricsListener(metricsListen, this.#metrics);
    return [{
      target: "host_api",
      start: () => Promise.resolve(`metrics at ${listener.start()}`),
      stop: () => listener.stop(),
    }];
  }

  /**
   * Names of the containers on managed networks. Without Docker none are known, and the bridges' ports
   * decide: whatever runs has one.
   */
  async #attachedContainers(): Promise<readonly string[]> {
    try {
      const networks = await this.#docker.networks.list();
      return networks.flatMap(({ containers }) => containers.map(({ name }) => name));
    } catch (error) {
      if (error instanceof OutcallError && error.code === "docker.unavailable") return [];
      throw error;
    }
  }

  #health(): Promise<readonly PartHealth[]> {
    return healthOf({
      bridge: this.#bridges,
      drops: this.#drops,
      policy: this.#policy,
      dns: this.#dns,
      proxy: this.#proxy,
      docker: this.#docker,
      history: this.#history,
      state: this.#state,
      observations: this.#observations,
      agentSocketPath: this.#config.agentSocketPath,
    });
  }
}

/**
 * The daemon's steps. What comes first is that nothing is open: whatever is wrong with flags, state or
 * machine is found out behind the firewall.
 */
function* stepsOf(config: DaemonConfig): Generator<Step, void> {
  // A second daemon would close what the first one serves, and protect nothing that is not protected.
  claimFirewall();
  const bridges = new Bridges({
    name: config.bridge,
    subnetBlock: config.subnetBlock,
    dnsPort: config.dns.port,
    proxyPort: config.proxy?.port ?? null,
    memoryPath: join(config.stateDir, "bridges"),
  });
  yield {
    target: "bridge",
    start: async () => {
      await bridges.up();
      return "agents are cut off until everything is in place";
    },
  };
  yield* new Daemon(config, bridges).steps();
}

/**
 * Runs the daemon until a signal ends it.
 * @returns the exit code: 0 after a signal, 1 when start-up failed.
 */
export async function runDaemon(config: DaemonConfig): Promise<number> {
  setThreadUrgency(bookkeepingUrgency());
  for (const directive of await configureLogs(config.logs)) {
    logger("host_api").warn("OUTCALL_LOG: {directive} is not understood", { directive });
  }
  return await runUntilSignal(() => stepsOf(config));
}
