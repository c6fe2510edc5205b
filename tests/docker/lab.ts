/**
 * A real Docker Engine on a machine of the lab, and the firewall's side of networks played by plain
 * bridges there: what is under test is how Docker is used.
 */
import type { Agent } from "../../lib/agents.ts";
import type { Segment } from "../../lib/bridge/segment.ts";
import { bridgeName, isManagedName } from "../../lib/bridge/names.ts";
import { DecisionLog } from "../../lib/decision.ts";
import type { ContainerManagerOptions } from "../../lib/docker/containers.ts";
import { Engine } from "../../lib/docker/engine.ts";
import { type NetworkHooks, NetworkManager } from "../../lib/docker/networks.ts";
import type { HostRoute } from "../../lib/docker/subnets.ts";
import { Cidr } from "../../lib/net/cidr.ts";
import { ContainerRules } from "../../lib/rules/container.ts";
import { dockerAt } from "../lab/dockerd.ts";
import { Engine as LabEngine } from "../lab/engine.ts";
import { Machine } from "../lab/machine.ts";
import { policyOf, type RuleSpec } from "../rules/support.ts";
import type Dockerode from "dockerode";

/** Programs the tests need. */
export const TOOLS = ["dockerd", "unshare", "nsenter", "ip", "tar", "ldd"];
/** An image every lab has. */
export const IMAGE = "lab/agent:1";

/** A block that parses. */
export function block(text: string): Cidr {
  const parsed = Cidr.parse(text);
  if (parsed === null) throw new Error(`${text} is not a block`);
  return parsed;
}

/** A host on which every agent is a container. */
export const NO_NAMESPACE_AGENTS = {
  at: (): undefined => undefined,
  on: (): readonly Agent[] => [],
};

/** The rules of a container manager, and where their decisions are recorded. */
export function judgedBy(
  ...rules: readonly RuleSpec[]
): Pick<ContainerManagerOptions, "judge" | "observe"> & { readonly decisions: DecisionLog } {
  const containerRules = new ContainerRules(policyOf(...rules));
  return {
    judge: (facts) => containerRules.judge(facts),
    observe: () => Promise.reject(new Error("nobody is to be observed")),
    decisions: new DecisionLog(),
  };
}

/** Bridges without a firewall, and a record of what was asked for. */
export class PlainBridges implements NetworkHooks {
  readonly calls: string[] = [];
  /** Set to make the next attach fail. */
  failure: Error | undefined;
  readonly #attached = new Map<string, Segment>();

  constructor(readonly machine: Machine, readonly base = "outcall0") {}

  segments(): readonly Segment[] {
    return [...this.#attached.values()];
  }

  nextBridge(taken: readonly string[]): string {
    for (let n = 0;; n++) {
      const name = bridgeName(this.base, n);
      if (!taken.includes(name)) return name;
    }
  }

  ownsBridge(bridge: string): boolean {
    return isManagedName(this.base, bridge);
  }

  /** Nothing filters here. */
  cover(): Promise<void> {
    return Promise.resolve();
  }

  assertUp(): void {}

  async attach(segment: Segment): Promise<void> {
    this.calls.push(`attach ${segment.network} ${segment.bridge} ${segment.subnet}`);
    const { failure } = this;
    this.failure = undefined;
    if (failure !== undefined) throw failure;
    const prefix = segment.subnet.split("/")[1];
    await this.machine.must([
      "bash",
      "-ec",
      'ip link show "$0" >/dev/null 2>&1 || ip link add "$0" type bridge\n' +
      'ip addr replace "$1" dev "$0"; ip link set "$0" up',
      segment.bridge,
      `${segment.gateway}/${prefix}`,
    ]);
    this.#attached.set(segment.network, segment);
  }

  async detach(segment: Segment): Promise<void> {
    this.calls.push(`detach ${segment.network}`);
    this.#attached.delete(segment.network);
    await this.machine.run(["ip", "link", "del", segment.bridge]);
  }

  /** Names of the bridges in the kernel now. */
  async inKernel(): Promise<string[]> {
    const links = await this.machine.must(["ip", "-o", "link", "show", "type", "bridge"]);
    return [...links.matchAll(/^\d+: ([^:]+):/gm)].map((match) => match[1] ?? "");
  }
}

/** An engine, its client under test, and a client to look behind its back with. */
export class DockerLab implements AsyncDisposable {
  readonly bridges: PlainBridges;
  readonly engine: Engine;
  /** Unfiltered access, as an operator with the docker command has. */
  readonly docker: Dockerode;
  readonly #engines: LabEngine[];

  private constructor(
    readonly machine: Machine,
    readonly labEngine: LabEngine,
    readonly socket: string,
  ) {
    this.#engines = [labEngine];
    this.bridges = new PlainBridges(machine);
    this.engine = new Engine(socket);
    this.docker = dockerAt(socket);
  }

  static async start(): Promise<DockerLab> {
    const machine = await Machine.start("docker");
    try {
      const labEngine = await LabEngine.start(machine);
      await labEngine.importClients(IMAGE, "");
      return new DockerLab(machine, labEngine, machine.path("/run/docker.sock"));
    } catch (error) {
      await machine[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** A manager of networks in this lab. */
  networks(
    options: {
      block?: string;
      routes?: () => readonly HostRoute[];
      agents?: readonly Agent[];
    } = {},
  ): NetworkManager {
    return new NetworkManager({
      engine: this.engine,
      hooks: this.bridges,
      subnetBlock: block(options.block ?? "10.200.0.0/16"),
      hostRoutes: options.routes ?? ((): readonly HostRoute[] => []),
      namespaceAgents: () => options.agents ?? [],
    });
  }

  /** Starts a container as `docker run -d` does, and returns its id. */
  async run(
    name: string,
    network: string,
    more: Dockerode.ContainerCreateOptions = {},
  ): Promise<string> {
    const container = await this.docker.createContainer({
      Image: IMAGE,
      Cmd: ["sleep", "1000"],
      ...more,
      name,
      HostConfig: { NetworkMode: network, ...more.HostConfig },
    });
    await container.start();
    return container.id;
  }

  /** Ends Docker without warning. */
  async killEngine(): Promise<void> {
    await this.machine.must(["bash", "-c", "kill -9 $(cat /run/docker.pid)"]);
  }

  /** Starts Docker again with everything it had. */
  async startEngine(): Promise<void> {
    await this.machine.must(["rm", "-f", "/run/docker.pid"]);
    this.#engines.push(await LabEngine.start(this.machine));
  }

  /** Removes every container and every network but Docker's own, for the next test. */
  async clear(): Promise<void> {
    for (const { Id } of await this.docker.listContainers({ all: true })) {
      await this.docker.getContainer(Id).remove({ force: true, v: true });
    }
    for (const { Id, Name } of await this.docker.listNetworks()) {
      if (!["bridge", "host", "none"].includes(Name)) await this.docker.getNetwork(Id).remove();
    }
    for (const segment of this.bridges.segments()) await this.bridges.detach(segment);
    this.bridges.calls.length = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.machine[Symbol.asyncDispose]();
    for (const engine of this.#engines) await engine[Symbol.asyncDispose]();
  }
}
