/** The subsystems of one daemon, made from its flags and wired to each other. */
import { webhook } from "../agent/notify.ts";
import { RuleRequests } from "../agent/requests.ts";
import { agentSocketFolder } from "../agent_socket.ts";
import type { Agent } from "../agents.ts";
import type { Bridges } from "../bridge/bridge.ts";
import { DropReader } from "../bridge/drops/reader.ts";
import { isManagedName } from "../bridge/names.ts";
import { Watch } from "../bridge/watch.ts";
import { checkCaFiles } from "../ca_files.ts";
import type { DaemonConfig } from "../config.ts";
import { DecisionLog } from "../decision.ts";
import { DecisionLines } from "../decision_log_line.ts";
import { DirectAccess } from "../direct.ts";
import { DnsServer } from "../dns/server.ts";
import { upstreamsFromResolvConf } from "../dns/upstreams.ts";
import { Docker } from "../docker/docker.ts";
import { engineSocket } from "../docker/engine.ts";
import { Enforcement } from "../enforcement.ts";
import { OperatorGrants } from "../grants.ts";
import { isHostAddress } from "../linux/host_addresses.ts";
import { hostRoutes } from "../linux/rtnetlink.ts";
import { DecisionMetrics } from "../metrics/decisions.ts";
import { decisionTracing } from "../metrics/trace.ts";
import { NamespaceAgents } from "../namespace/agents.ts";
import { Cidr } from "../net/cidr.ts";
import { Observations } from "../observe.ts";
import { ActivePolicy } from "../policy.ts";
import { ProxyServer } from "../proxy/server.ts";
import { History } from "../record/history.ts";
import { HistoryLookup } from "../record/lookup.ts";
import { DecisionRecords } from "../record/records.ts";
import { lastSequence } from "../record/table.ts";
import { ContainerRules } from "../rules/container.ts";
import { emptyPolicy } from "../rules/policy.ts";
import { databasePath } from "../store/database.ts";
import { GrantStore } from "../store/grants.ts";
import { openState, type State } from "../store/state.ts";

/** Who asks for a name that an operator grants. */
const OPERATOR: Agent = { name: "", address: "127.0.0.1", network: "" };

/**
 * The subsystems. They know each other by functions, which are called only when all are made; nothing
 * runs before its step of start-up.
 */
export class Subsystems {
  readonly config: DaemonConfig;
  /** `config.subnetBlock`. */
  readonly block: Cidr;
  readonly decisions = new DecisionLog();
  /** Counts the decisions. */
  readonly counters = new DecisionMetrics();
  readonly history: History;
  readonly records: DecisionRecords;
  readonly state: State;
  readonly policy: ActivePolicy;
  readonly observations = new Observations((keys) => this.policy.observe(keys));
  readonly bridges: Bridges;
  readonly watch: Watch;
  readonly drops: DropReader;
  readonly dns: DnsServer;
  /** Null: `--no-proxy`. */
  readonly proxy: ProxyServer | null;
  readonly enforcement: Enforcement;
  readonly docker: Docker;
  readonly namespaceAgents: NamespaceAgents;
  readonly requests: RuleRequests;
  readonly grants: OperatorGrants;
  #containerRules = new ContainerRules(emptyPolicy(0));

  /** @throws OutcallError for what is wrong with the flags taken together with this machine. */
  constructor(config: DaemonConfig, bridges: Bridges) {
    const block = Cidr.parse(config.subnetBlock);
    if (block === null) throw new RangeError(`"${config.subnetBlock}" is not a block`);
    if (config.ca !== null) checkCaFiles(config.ca);
    this.config = config;
    this.block = block;
    this.decisions.addSink(new DecisionLines().add);
    this.policy = new ActivePolicy(
      config.rulesDir,
      config.proxy !== null,
      (path) => this.requests.isWithdrawn(path),
    );
    this.state = openState(config.stateDir);
    const { database } = this.state;
    this.requests = new RuleRequests({
      database,
      rulesDir: config.rulesDir,
      policy: this.policy,
      ...(config.notifyUrl === null ? {} : { onNew: webhook(config.notifyUrl) }),
    });
    this.decisions.addSink(this.policy.count);
    const historyPath = databasePath(config.stateDir);
    this.decisions.resumeAfter(lastSequence(historyPath));
    this.history = new History({ path: historyPath, bounds: config.historyBounds });
    this.decisions.addSink(this.history.add);
    this.records = new DecisionRecords(
      this.decisions,
      new HistoryLookup(historyPath),
      () => this.history.lastLost,
      () => Promise.all([this.dns.settle(), this.proxy?.settle()]),
    );
    const proxyPort = config.proxy?.port ?? null;
    this.bridges = bridges;
    this.watch = new Watch(bridges);
    this.decisions.addSink(this.counters.count);
    const tracing = decisionTracing();
    if (tracing !== null) this.decisions.addSink(tracing);
    this.namespaceAgents = new NamespaceAgents({
      segments: () => this.enforcement.segments(),
      // Whatever a port has been pinned to is taken, whether Docker gave it or not.
      containerAddresses: async (network) => [
        ...await this.docker.addressesOn(network),
        ...this.bridges.agentAddresses(),
      ],
      proxyPort,
      agentSocketFolder: agentSocketFolder(config.agentSocketPath),
      shimPath: config.shimPath,
      enforce: () => this.enforcement.up(),
      observe: this.observations.begin,
    });
    this.docker = this.#makeDocker(block);
    const { agents } = this.docker;
    const { judge } = this.policy;
    const direct = new DirectAccess({
      openings: bridges.openings,
      agents,
      judge,
      decisions: this.decisions,
    });
    this.drops = new DropReader({
      pins: () => this.bridges.pins(),
      identify: (address) => agents.identify(address),
      generation: () => this.policy.generation,
      record: (decision) => this.decisions.record(decision),
      update: (decision, changes) => this.decisions.update(decision, changes),
    });
    this.dns = new DnsServer({
      opener: direct,
      ...config.dns,
      upstreams: config.dnsUpstreams ??
        upstreamsFromResolvConf(Deno.readTextFileSync("/etc/resolv.conf")),
      queryRate: config.dnsQueryRate,
      agents,
      judge,
      evaluate: (layer, facts) => ({
        verdict: this.policy.evaluate(layer, facts),
        generation: this.policy.generation,
      }),
      generation: () => this.policy.generation,
      agentAddresses: () => this.bridges.agentAddresses(),
      decisions: this.decisions,
    });
    this.proxy = config.proxy === null ? null : new ProxyServer({
      ...config.proxy,
      agents,
      decisions: this.decisions,
      onFailures: this.policy.countFailures,
      resolve: (hostname, agent) => this.dns.resolveFor(agent, hostname),
      onDial: this.counters.countDial,
      isLocalAddress: (ip) => isHostAddress(ip) || this.enforcement.contains(ip),
      limits: config.proxyLimits,
    });
    this.grants = new OperatorGrants({
      bridges,
      agents,
      store: new GrantStore(database),
      resolve: (hostname) => this.dns.resolveFor(OPERATOR, hostname),
    });
    this.enforcement = new Enforcement(this.bridges, { dns: this.dns, proxy: this.proxy });
    this.#follow(direct);
  }

  #makeDocker(block: Cidr): Docker {
    const { config } = this;
    return new Docker({
      namespaceAgents: this.namespaceAgents,
      socketPath: engineSocket(Deno.env.get("DOCKER_HOST")),
      subnetBlock: block,
      hooks: {
        nextBridge: (taken) =>
          taken.length === 0 ? config.bridge : this.bridges.nextFreeName(new Set(taken)),
        ownsBridge: (name) => isManagedName(config.bridge, name),
        cover: (bridges) => this.bridges.cover(bridges),
        assertUp: () => this.bridges.assertUp(),
        attach: (segment) => this.enforcement.attach(segment),
        detach: (segment) => this.enforcement.detach(segment),
      },
      hostRoutes,
      segments: () => this.enforcement.segments(),
      pins: () => this.bridges.pins(),
      containers: {
        proxyPort: config.proxy?.port ?? null,
        judge: (facts) => this.#containerRules.judge(facts),
        observe: this.observations.begin,
        decisions: this.decisions,
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
  }

  /** Has each part hear of what changes in others, in the order in which it must take effect. */
  #follow(direct: DirectAccess): void {
    const { agents } = this.docker;
    this.policy.onSwap(({ data }) => this.dns.usePolicy(data));
    this.policy.onSwap((policy) => {
      this.#containerRules = new ContainerRules(policy);
    });
    agents.onChange(() => this.dns.forgetAgents());
    agents.onGone((containerId) => {
      // With Docker's events gone, nothing would correct what was learned before.
      if (containerId === null) this.dns.forgetAgents();
    });
    this.policy.onSwap(() => direct.rejudge());
    agents.onChange(() => direct.identitiesChanged());
    this.policy.onSwap(async ({ data }) => void await this.proxy?.usePolicy(data));
    agents.onChange(() => void this.proxy?.reidentify());
    this.namespaceAgents.onChange(() => agents.localChanged());
    agents.onGone((containerId) => this.observations.gone(containerId));
    this.namespaceAgents.onGone((cable) => this.observations.gone(cable));
    this.bridges.onNewPins(() => agents.portsPinned());
  }
}
