/**
 * Docker as one part of the daemon: there or not, it is followed (S008-FR-036, S002-FR-023, S002-FR-032).
 *
 * Enforcement never waits for Docker. While it is away networks stay filtered, agents have no
 * names, and calls about networks and containers say why they fail; when it is back everything is
 * read again.
 */
import type { Agent } from "../agents.ts";
import type { Segment } from "../bridge/segment.ts";
import { messageOf, OutcallError } from "../errors.ts";
import type { PartHealth } from "../health.ts";
import { logger } from "../log.ts";
import type { Cidr } from "../net/cidr.ts";
import { BypassWatch } from "./bypass.ts";
import { ContainerManager, type ContainerManagerOptions } from "./containers.ts";
import { Engine, type EngineEvent } from "./engine.ts";
import { AgentIndex, LOOKUP_TIMEOUT_MS, type PinnedPort } from "./identity.ts";
import { PREFIX } from "./managed.ts";
import { type NetworkHooks, NetworkManager } from "./networks.ts";
import type { HostRoute } from "./subnets.ts";

/** Agents at addresses of our networks that are no containers. */
export interface OtherAgents {
  /** The agent at this address. */
  at(address: string): Agent | undefined;
  /** The agents on this network, by its full name. */
  on(network: string): readonly Agent[];
}

/** What the daemon gives its Docker part. */
export interface DockerOptions {
  /** See {@linkcode engineSocket} of lib/docker/engine.ts. */
  readonly socketPath: string;
  /** The private block subnets are taken from: canonical, a /24 or larger. */
  readonly subnetBlock: Cidr;
  readonly hooks: NetworkHooks;
  /** The host's IPv4 routes now. */
  readonly hostRoutes: () => readonly HostRoute[];
  /** The networks under enforcement now, those that Docker does not know included. */
  readonly segments: () => readonly Segment[];
  readonly containers: Omit<ContainerManagerOptions, "engine" | "networks">;
  readonly namespaceAgents: OtherAgents;
  /** Which port may speak from which address now. */
  readonly pins: () => readonly PinnedPort[];
}

/** Time between attempts to put right what failed while Docker was there. */
const RETRY_MS = 5_000;

const log = logger("docker_manager");

/** The container that has begun to run or changed its networks, or undefined. */
function attached({ Type, Action, Actor }: EngineEvent): string | undefined {
  if (Type === "container") return ["start", "rename"].includes(Action) ? Actor.ID : undefined;
  return Action === "connect" || Action === "disconnect"
    ? Actor.Attributes["container"]
    : undefined;
}

function hostResolvConf(): string {
  try {
    return Deno.readTextFileSync("/etc/resolv.conf");
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

function concernsOurNetworks({ Type, Action, Actor }: EngineEvent): boolean {
  return Type === "network" && (Action === "create" || Action === "destroy") &&
    (Actor.Attributes["name"] ?? "").startsWith(PREFIX);
}

/** Docker's part of the daemon. */
export class Docker {
  readonly networks: NetworkManager;
  readonly containers: ContainerManager;
  readonly agents: AgentIndex;
  readonly #engine: Engine;
  readonly #bypasses: BypassWatch;
  readonly #end = new AbortController();
  readonly #first = Promise.withResolvers<void>();
  readonly #ready = Promise.withResolvers<void>();
  #health: PartHealth = { name: "docker", state: "degraded", detail: "not asked yet" };
  #run: Promise<void> | undefined;
  #hasDefault = false;
  #synchronising: Promise<void> | undefined;
  #isOutdated = false;
  #looking: Promise<void> | undefined;
  #areAttachmentsOutdated = false;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(options: DockerOptions) {
    const { hooks, hostRoutes, subnetBlock, segments, namespaceAgents } = options;
    const engine = new Engine(options.socketPath);
    this.#engine = engine;
    this.#bypasses = new BypassWatch({ engine, segments, resolvConf: hostResolvConf });
    this.networks = new NetworkManager({
      engine,
      hooks,
      hostRoutes,
      subnetBlock,
      namespaceAgents: (network) => namespaceAgents.on(network),
    });
    this.containers = new ContainerManager({
      ...options.containers,
      engine,
      networks: this.networks,
    });
    this.agents = new AgentIndex({
      engine: new Engine(options.socketPath, LOOKUP_TIMEOUT_MS),
      segments,
      namespaceAgent: (address) => namespaceAgents.at(address),
      pins: options.pins,
    });
  }

  /**
   * Follows Docker from now on. Resolves when the default network exists and every managed network
   * is attached, or as soon as Docker turns out to be away (the state is `degraded` then).
   * @throws whatever else kept a network from being attached: start-up must not go on.
   */
  async start(): Promise<void> {
    this.#run ??= this.#follow();
    await this.#first.promise;
  }

  /** Addresses that containers on a network have now; empty while Docker cannot be asked. */
  async addressesOn(network: string): Promise<readonly string[]> {
    try {
      const found = await this.#engine.network(network);
      return Object.values(found?.Containers ?? {}).map(({ IPv4Address }) =>
        IPv4Address.split("/")[0] ?? ""
      );
    } catch (error) {
      if (error instanceof OutcallError && error.code === "docker.unavailable") return [];
      throw error;
    }
  }

  /** Settles when Docker has told who is where for the first time. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Docker answers now. */
  get isThere(): boolean {
    return this.#health.state === "ok";
  }

  /** How Docker is. */
  health(): PartHealth {
    const { found } = this.#bypasses;
    if (this.#health.state !== "ok" || found.length === 0) return this.#health;
    return { name: "docker", state: "degraded", detail: found.join("; ") };
  }

  /** Stops following. Networks and containers stay as they are (S002-EC-010, S008-EC-010). */
  async stop(): Promise<void> {
    this.#end.abort();
    clearTimeout(this.#retry);
    await this.#run;
    await this.#synchronising;
    await this.#looking;
  }

  async #follow(): Promise<void> {
    for await (const signal of this.#engine.watch(this.#end.signal)) {
      if (signal.kind === "disconnected") {
        this.agents.stopFollowing();
        this.#report("degraded", signal.error.message);
        this.#first.resolve();
      } else if (signal.kind === "connected") {
        this.agents.startFollowing();
        this.#synchronise();
      } else {
        this.agents.follow(signal.event);
        if (concernsOurNetworks(signal.event)) this.#synchronise();
        const containerId = attached(signal.event);
        if (containerId !== undefined) this.#lookForBypasses(containerId);
      }
    }
  }

  /**
   * Brings networks and index up to date, beside the events, which must be followed meanwhile. A
   * call while one is under way has it done once more.
   */
  #synchronise(): void {
    this.#isOutdated = true;
    clearTimeout(this.#retry);
    this.#synchronising ??= this.#synchroniseUntilDone().finally(() => {
      this.#synchronising = undefined;
    });
  }

  async #synchroniseUntilDone(): Promise<void> {
    while (this.#isOutdated && !this.#end.signal.aborted) {
      this.#isOutdated = false;
      try {
        await this.networks.coverForeign();
        if (!this.#hasDefault) {
          await this.networks.ensureDefault();
          this.#hasDefault = true;
        }
        await this.networks.reconcile();
        await this.agents.readAll();
        this.#bypasses.forget();
        await this.#bypasses.look();
        this.#report("ok", `Docker answers at ${this.#engine.socketPath}`);
        this.#first.resolve();
        this.#ready.resolve();
      } catch (error) {
        const isAway = error instanceof OutcallError && error.code === "docker.unavailable";
        this.#report(isAway ? "degraded" : "failed", messageOf(error));
        if (isAway) this.#first.resolve();
        else this.#first.reject(error);
        if (!this.#end.signal.aborted) {
          this.#retry = setTimeout(() => this.#synchronise(), RETRY_MS);
        }
      }
    }
  }

  /** A call while one is under way has it done once more. */
  #lookForBypasses(containerId: string): void {
    this.#bypasses.forget(containerId);
    this.#areAttachmentsOutdated = true;
    this.#looking ??= this.#lookUntilDone().finally(() => {
      this.#looking = undefined;
    });
  }

  async #lookUntilDone(): Promise<void> {
    while (this.#areAttachmentsOutdated && !this.#end.signal.aborted) {
      this.#areAttachmentsOutdated = false;
      try {
        await this.#bypasses.look();
      } catch (error) {
        // Docker's return has everything looked at again.
        log.warn("ways past the firewall are looked for later: {reason}", {
          reason: messageOf(error),
        });
      }
    }
  }

  #report(state: PartHealth["state"], detail: string): void {
    const before = this.#health;
    this.#health = { name: "docker", state, detail };
    if (before.state === state && before.detail === detail) return;
    if (state === "ok") log.info("{detail}", { detail });
    else log.warn("Docker part is {state}: {detail}", { state, detail });
  }
}
