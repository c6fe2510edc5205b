/**
 * Agents without Docker: `outcall run` puts itself into a new network namespace, the daemon lays a
 * cable from there to a managed bridge (S013, decisions D5 and D13). The same firewall, pinning, DNS
 * filter and proxy hold as for containers, since all of them look at the bridge's ports alone.
 *
 * A cable ends with its namespace, which ends with the last process in it: nothing of an agent can
 * be left behind, however it ends.
 */
import type { Agent } from "../agents.ts";
import type {
  AgentAttachment,
  AgentAttachRequest,
  AgentJoinRequest,
  NamespaceAgentService,
} from "../api/services.ts";
import type { Segment } from "../bridge/segment.ts";
import { agentName } from "../docker/names.ts";
import { fullNetworkName } from "../docker/managed.ts";
import { messageOf, OutcallError } from "../errors.ts";
import { followLinks } from "../linux/netlink_events.ts";
import { type Link, RouteNetlink } from "../linux/rtnetlink.ts";
import { logger } from "../log.ts";
import { Mutex } from "../mutex.ts";
import type { Observe } from "../observe.ts";
import { Cidr } from "../net/cidr.ts";
import { agentBehind, aliasOf, isPortName, newPortName } from "./links.ts";

/** What {@linkcode NamespaceAgents} works with. */
export interface NamespaceAgentsOptions {
  /** The networks under enforcement now. */
  readonly segments: () => readonly Segment[];
  /** Addresses that containers on a network have now; empty while Docker cannot be asked. */
  readonly containerAddresses: (network: string) => Promise<readonly string[]>;
  /** Port of the proxy on every gateway; null: there is no proxy. */
  readonly proxyPort: number | null;
  /** On the host; absolute. */
  readonly agentSocketFolder: string;
  /** The shim on the host; absolute. */
  readonly shimPath: string;
  /** Brings ports that are new on a managed bridge under enforcement. */
  readonly enforce: () => Promise<void>;
  readonly observe: Observe;
}

/** The interface's name inside. */
const INTERFACE = "eth0";
/** Like Docker's container names. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

const REFRESH_INTERVAL_MS = 20;

const log = logger("network");

/** The agents of this host that are no containers. */
export class NamespaceAgents implements NamespaceAgentService {
  readonly #options: NamespaceAgentsOptions;
  readonly #mutex = new Mutex();
  readonly #listeners: (() => void)[] = [];
  readonly #goneListeners: ((cable: string) => void)[] = [];
  #agents: ReadonlyMap<string, Agent> = new Map();
  /** By the number of the network namespace that the cable leads to. */
  #behind: ReadonlyMap<number, Agent> = new Map();
  #refreshing: ReturnType<typeof setTimeout> | undefined;

  constructor(options: NamespaceAgentsOptions) {
    this.#options = options;
  }

  /** Calls `listener` whenever an agent has come or gone. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Calls `listener` with the name of each cable that is gone. */
  onGone(listener: (cable: string) => void): void {
    this.#goneListeners.push(listener);
  }

  /** The agent at this address, or undefined when there is none. */
  at(address: string): Agent | undefined {
    return this.#agents.get(address);
  }

  /** The agent whose cable leads to this network namespace, or undefined when none does. */
  behind(namespaceId: number): Agent | undefined {
    return this.#behind.get(namespaceId);
  }

  /** The agents on a network. */
  on(network: string): readonly Agent[] {
    return [...this.#agents.values()].filter((agent) => agent.network === network);
  }

  /** Keeps up with who is there until `signal` is aborted; never rejects. */
  async follow(signal: AbortSignal): Promise<void> {
    this.refresh();
    try {
      await followLinks(signal, () => this.#refreshSoon());
    } catch (error) {
      // An agent that has gone is then noticed when the next one comes: its cable is gone all the same.
      log.error("namespace agents are followed late: {reason}", { reason: messageOf(error) });
    } finally {
      clearTimeout(this.#refreshing);
    }
  }

  /** An agent can cause events as fast as it likes. */
  #refreshSoon(): void {
    this.#refreshing ??= setTimeout(() => {
      this.#refreshing = undefined;
      try {
        this.refresh();
      } catch (error) {
        log.error("namespace agents cannot be looked at: {reason}", { reason: messageOf(error) });
      }
    }, REFRESH_INTERVAL_MS);
  }

  /** Looks afresh at who is there. */
  refresh(): void {
    const agents = new Map<string, Agent>();
    const behind = new Map<number, Agent>();
    for (const { agent, link } of this.#cables()) {
      if (link.master === null) continue;
      agents.set(agent.address, agent);
      if (link.peer !== null) behind.set(link.peer.namespaceId, agent);
    }
    this.#behind = behind;
    if (JSON.stringify([...agents]) === JSON.stringify([...this.#agents])) return;
    const cables = new Set([...agents.values()].map(({ cable }) => cable));
    const gone = [...this.#agents.values()].flatMap(({ cable }) =>
      cable === undefined || cables.has(cable) ? [] : [cable]
    );
    this.#agents = agents;
    for (const cable of gone) for (const listener of this.#goneListeners) listener(cable);
    for (const listener of this.#listeners) listener();
  }

  /**
   * Lays a cable to the calling process's network namespace, and reserves an address for it. Nothing
   * passes before {@linkcode join}.
   * @param pid The caller as the kernel names it: nobody can have a cable laid to somebody else.
   * @throws OutcallError `agent.name`, `agent.process` (400), `network.missing` (404),
   * `network.full` (409), `agent.namespace` (409).
   */
  attach(request: AgentAttachRequest, pid: number): Promise<AgentAttachment> {
    if (request.name !== undefined && !NAME.test(request.name)) {
      throw new OutcallError(
        400,
        "agent.name",
        `agent name ${JSON.stringify(request.name.slice(0, 200))} is not valid`,
        { hint: 'Use 1 to 128 letters, digits, "_", "." and "-", a letter or digit first.' },
      );
    }
    if (pid === 0) {
      throw new OutcallError(400, "agent.process", "the calling process cannot be seen from here", {
        hint: "A daemon in a container needs --pid host for `outcall run`.",
      });
    }
    const network = fullNetworkName(request.network);
    return this.#mutex.run(() => this.#attach(network, agentName(request.name ?? "", {}), pid));
  }

  /**
   * Plugs the cable into the bridge, once the other end has its address.
   * @throws OutcallError `agent.missing` (404), `network.missing` (404).
   */
  join(
    { port, observe_secs: observeSecs }: AgentJoinRequest,
  ): Promise<{ readonly port: string; readonly joined: true }> {
    return this.#mutex.run(async () => {
      using netlink = new RouteNetlink();
      const link = isPortName(port) ? netlink.link(port) : null;
      const agent = link === null ? null : agentBehind(link);
      if (link === null || agent === null) {
        throw new OutcallError(404, "agent.missing", `no agent is attached by "${port}"`);
      }
      const { bridge } = this.#segment(agent.network);
      const master = netlink.link(bridge);
      if (master === null) throw new OutcallError(500, "agent.bridge", `${bridge} is gone`);
      netlink.setMaster(link, master);
      netlink.setUp(link);
      await this.#options.enforce();
      if (observeSecs !== undefined) await this.#options.observe(agent, observeSecs);
      this.refresh();
      log.info("agent {agent} runs at {address} on {network}", {
        agent: agent.name,
        address: agent.address,
        network: agent.network,
      });
      return { port, joined: true };
    });
  }

  async #attach(network: string, name: string, pid: number): Promise<AgentAttachment> {
    const segment = this.#segment(network);
    const containers = await this.#options.containerAddresses(network);
    const taken = new Set([
      segment.gateway,
      ...containers,
      ...this.#cables().map(({ agent }) => agent.address),
    ]);
    const { address, prefixLength } = freeAddress(segment, taken);
    const port = newPortName();
    using netlink = new RouteNetlink();
    netlink.createVeth(port, { name: INTERFACE, pid });
    const link = netlink.link(port);
    if (link === null) {
      throw new OutcallError(500, "agent.bridge", `${port} is gone as soon as it was made`);
    }
    try {
      if (link.peer === null) {
        throw new OutcallError(409, "agent.namespace", "the caller is in the host's network", {
          hint: "Use `outcall run`.",
        });
      }
      netlink.setAlias(link, aliasOf({ address, network, name }));
    } catch (error) {
      netlink.deleteLink(link);
      throw error;
    }
    const { proxyPort, agentSocketFolder, shimPath } = this.#options;
    return {
      port,
      interface: INTERFACE,
      address,
      prefix_length: prefixLength,
      gateway: segment.gateway,
      proxy_port: proxyPort,
      agent_socket_folder: agentSocketFolder,
      shim: shimPath,
    };
  }

  #segment(network: string): Segment {
    const segment = this.#options.segments().find((one) => one.network === network);
    if (segment !== undefined) return segment;
    throw new OutcallError(404, "network.missing", `network "${network}" does not exist`, {
      hint: "See `outcall network list`.",
    });
  }

  /** The host's ends of all cables, those included that are not plugged in. */
  #cables(): { readonly link: Link; readonly agent: Agent }[] {
    using netlink = new RouteNetlink();
    return netlink.links().flatMap((link) => {
      const agent = agentBehind(link);
      return agent === null ? [] : [{ link, agent }];
    });
  }
}

/**
 * The last address of the network that nobody has: Docker hands its addresses out from the bottom.
 * @throws OutcallError `network.full` (409).
 */
function freeAddress(
  segment: Segment,
  taken: ReadonlySet<string>,
): { readonly address: string; readonly prefixLength: number } {
  const subnet = Cidr.parse(segment.subnet);
  if (subnet === null) throw new RangeError(`'${segment.subnet}' is no subnet`);
  const count = subnet.subnetCount(32);
  for (let i = count - 2n; i > 0n; i--) {
    const { text } = subnet.address(i);
    if (!taken.has(text)) return { address: text, prefixLength: subnet.prefix };
  }
  throw new OutcallError(409, "network.full", `network "${segment.network}" has no free address`);
}
