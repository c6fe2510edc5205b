/**
 * Managed networks: made, shown and removed through Docker, each on a bridge that the firewall
 * covers before Docker hears of it (S002, decisions D3 and D4).
 *
 * Docker is asked afresh every time; the only memory is which networks are under enforcement.
 */
import type {
  NetworkCreateRequest,
  NetworkCreateResult,
  NetworkService,
  NetworkStatus,
} from "../api/services.ts";
import type { Agent } from "../agents.ts";
import type { Segment } from "../bridge/segment.ts";
import { messageOf, OutcallError } from "../errors.ts";
import { logger } from "../log.ts";
import { Mutex } from "../mutex.ts";
import { Cidr } from "../net/cidr.ts";
import type { Engine, EngineNetwork } from "./engine.ts";
import {
  BRIDGE_OPTION,
  managedSegment,
  networkName,
  OWNER,
  OWNER_LABEL,
  PREFIX,
} from "./managed.ts";
import { creationOf, planSegment } from "./network_plan.ts";
import { absentStatus, presentStatus } from "./network_status.ts";
import { checkAddresses, type HostRoute } from "./subnets.ts";

/** The firewall's side of a network. */
export interface NetworkHooks {
  /** The first bridge name not in `taken`; with nothing taken, the default network's bridge. */
  nextBridge(taken: readonly string[]): string;
  /** Whether the firewall would name a bridge like this: what makes a network ours, with the label. */
  ownsBridge(bridge: string): boolean;
  /** Covers bridges that only another `--bridge` would own: their networks are ours all the same. */
  cover(bridges: readonly string[]): Promise<void>;
  /** @throws OutcallError when an operator has torn the firewall down. */
  assertUp(): void;
  /**
   * Makes or adopts the bridge with its gateway address, filtered before it can carry a packet.
   * Idempotent. When it throws, nothing may have become less filtered.
   */
  attach(segment: Segment): Promise<void>;
  /** Removes the bridge, and then what filters it. Idempotent. */
  detach(segment: Segment): Promise<void>;
}

/** What a {@linkcode NetworkManager} works with. */
export interface NetworkManagerOptions {
  readonly engine: Engine;
  readonly hooks: NetworkHooks;
  /** The private block subnets are taken from: canonical, a /24 or larger. */
  readonly subnetBlock: Cidr;
  /** The host's IPv4 routes now. */
  readonly hostRoutes: () => readonly HostRoute[];
  /** Agents on a network that are no containers. */
  readonly namespaceAgents: (network: string) => readonly Agent[];
}

const log = logger("network");

/** A managed network as Docker knows it now. */
export interface ManagedNetwork {
  readonly id: string;
  readonly segment: Segment;
}

function sameSegment(a: Segment, b: Segment): boolean {
  return a.network === b.network && a.bridge === b.bridge && a.subnet === b.subnet &&
    a.gateway === b.gateway;
}

function forged(name: string, reason: string): OutcallError {
  return new OutcallError(
    409,
    "network.forged",
    `Docker network "${name}" is not one of outcall's: ${reason}`,
    { hint: `Remove it by hand (docker network rm ${name}) if nothing needs it.` },
  );
}

/** Managed networks. See {@linkcode NetworkService} for what each call returns. */
export class NetworkManager implements NetworkService {
  readonly #engine: Engine;
  readonly #hooks: NetworkHooks;
  readonly #block: Cidr;
  readonly #hostRoutes: () => readonly HostRoute[];
  readonly #namespaceAgents: NetworkManagerOptions["namespaceAgents"];
  /** Two creates at once would both find the same subnet free. */
  readonly #mutex = new Mutex();
  /** Networks whose bridges were attached, by Docker name. */
  readonly #attached = new Map<string, Segment>();

  constructor(options: NetworkManagerOptions) {
    this.#engine = options.engine;
    this.#hooks = options.hooks;
    this.#block = options.subnetBlock;
    this.#hostRoutes = options.hostRoutes;
    this.#namespaceAgents = options.namespaceAgents;
  }

  get subnetBlock(): string {
    return this.#block.toString();
  }

  /**
   * Makes a network, or finds that it exists (S002-FR-003).
   * @throws OutcallError `network.name`, `network.subnet`, `network.gateway` (400), `bridge.down` (409)
   * before Docker is asked; `network.forged`, `network.overlap`, `network.exhausted`,
   * `network.differs` (409); whatever Docker or the firewall refuses with, after everything was undone.
   */
  async create(request: NetworkCreateRequest): Promise<NetworkCreateResult> {
    const name = networkName(request.name);
    checkAddresses(request);
    this.#hooks.assertUp();
    return await this.#mutex.run(async () => {
      const networks = await this.#engine.networks();
      const existing = this.#find(name, networks);
      const { id, segment } = existing === null
        ? await this.#make(name, request, networks)
        : await this.#adopt(existing, request);
      return {
        network_id: id,
        name,
        subnet: segment.subnet,
        gateway: segment.gateway,
        created: existing === null,
      };
    });
  }

  /** Makes `outcall-default` where it is missing (S002-FR-006, decision D4). */
  ensureDefault(): Promise<NetworkCreateResult> {
    return this.create({});
  }

  async status(name?: string): Promise<NetworkStatus> {
    const found = await this.managed(networkName(name));
    const network = found === null ? null : await this.#engine.network(found.id);
    if (found === null || network === null) return absentStatus(networkName(name));
    return this.#present(network, found.segment);
  }

  async list(): Promise<readonly NetworkStatus[]> {
    const found = await this.#allManaged();
    const inspected = await Promise.all(found.map(async ({ id, segment }) => {
      const network = await this.#engine.network(id);
      return network === null ? [] : [this.#present(network, segment)]; // gone in between
    }));
    return inspected.flat();
  }

  /**
   * Removes a network nobody is attached to (S002-FR-019 to FR-021).
   * @throws OutcallError `network.forged`, `network.in_use` (409).
   */
  async destroy(name?: string): Promise<{ readonly name: string; readonly destroyed: boolean }> {
    const full = networkName(name);
    return await this.#mutex.run(async () => {
      const found = this.#find(full, await this.#engine.networks());
      const network = found === null ? null : await this.#engine.network(found.id);
      if (found === null || network === null) return { name: full, destroyed: false };
      const { containers } = this.#present(network, found.segment);
      if (containers.length > 0) {
        const count = `${containers.length} container${containers.length === 1 ? "" : "s"}`;
        const names = containers.map((container) => container.name).join(", ");
        throw new OutcallError(
          409,
          "network.in_use",
          `cannot destroy network "${full}": ${count} still connected: ${names}`,
          { hint: "Stop or disconnect them first; they are never disconnected by force." },
        );
      }
      // Docker refuses as well when a container has slipped in since.
      await this.#engine.removeNetwork(found.id);
      await this.#detach(found.segment);
      log.info("network {name} destroyed", { name: full });
      return { name: full, destroyed: true };
    });
  }

  /** What Docker knows of our networks, for {@linkcode NetworkHooks.attach}. */
  async segments(): Promise<Segment[]> {
    return (await this.#allManaged()).map(({ segment }) => segment);
  }

  /**
   * The managed network with Docker name `name`, or null when there is none.
   * @throws OutcallError `network.forged` (409).
   */
  async managed(name: string): Promise<ManagedNetwork | null> {
    return this.#find(name, await this.#engine.networks());
  }

  /**
   * Follows what happened to our networks behind our back: attaches each one Docker knows, detaches
   * each one that Docker no longer knows.
   * @throws the first failure, after every network was tried.
   */
  async reconcile(): Promise<void> {
    await this.#mutex.run(async () => {
      const segments = await this.segments();
      const failures: unknown[] = [];
      for (const segment of segments) {
        await this.#attach(segment).catch((error: unknown) => failures.push(error));
      }
      const known = new Set(segments.map((segment) => segment.network));
      for (const segment of [...this.#attached.values()]) {
        if (known.has(segment.network)) continue;
        log.warn("network {name} was removed outside outcall", { name: segment.network });
        await this.#detach(segment).catch((error: unknown) => failures.push(error));
      }
      if (failures.length > 0) throw failures[0];
    });
  }

  #present(network: EngineNetwork, segment: Segment): NetworkStatus {
    return presentStatus(network, segment, this.#namespaceAgents(segment.network));
  }

  async #attach(segment: Segment): Promise<void> {
    await this.#hooks.attach(segment);
    this.#attached.set(segment.network, segment);
  }

  async #detach(segment: Segment): Promise<void> {
    await this.#hooks.detach(segment);
    this.#attached.delete(segment.network);
  }

  /**
   * Covers the networks that a run with another `--bridge` has made. They are not served, but their
   * containers must not go unfiltered either.
   * @throws OutcallError `docker.unavailable`, and those of the firewall.
   */
  async coverForeign(): Promise<void> {
    const bridges = (await this.#engine.networks()).flatMap((network) => {
      const segment = managedSegment(network, () => true);
      return typeof segment === "string" || this.#hooks.ownsBridge(segment.bridge)
        ? []
        : [segment.bridge];
    });
    if (bridges.length > 0) await this.#hooks.cover(bridges);
  }

  /** Every managed network; look-alikes are skipped and told about (S002-FR-018). */
  async #allManaged(): Promise<ManagedNetwork[]> {
    const networks = await this.#engine.networks();
    const names = networks.map(({ Name }) => Name).filter((name) => name.startsWith(PREFIX)).sort();
    return [...new Set(names)].flatMap((name) => {
      try {
        const found = this.#find(name, networks);
        return found === null ? [] : [found];
      } catch (error) {
        log.warn("{reason}; it is left alone", { reason: messageOf(error) });
        return [];
      }
    });
  }

  #find(name: string, networks: readonly EngineNetwork[]): ManagedNetwork | null {
    const [network, ...namesakes] = networks.filter(({ Name }) => Name === name);
    if (network === undefined) return null;
    // Docker lets several networks share a name, and then "the network X" is anyone's guess.
    if (namesakes.length > 0) throw forged(name, "Docker has several networks of this name");
    const segment = managedSegment(network, (bridge) => this.#hooks.ownsBridge(bridge));
    if (typeof segment === "string") throw forged(name, segment);
    return { id: network.Id, segment };
  }

  async #adopt(existing: ManagedNetwork, request: NetworkCreateRequest): Promise<ManagedNetwork> {
    const { segment } = existing;
    const differs = (request.subnet !== undefined && request.subnet !== segment.subnet) ||
      (request.gateway !== undefined && request.gateway !== segment.gateway);
    if (differs) {
      throw new OutcallError(
        409,
        "network.differs",
        `network "${segment.network}" exists with subnet ${segment.subnet} and gateway ` +
          segment.gateway,
        { hint: "Destroy it first, or leave out --subnet and --gateway." },
      );
    }
    await this.#attach(segment);
    return existing;
  }

  async #make(
    name: string,
    request: NetworkCreateRequest,
    networks: readonly EngineNetwork[],
  ): Promise<ManagedNetwork> {
    const segment = planSegment(name, request, {
      networks,
      attached: [...this.#attached.values()],
      nextBridge: (taken) => this.#hooks.nextBridge(taken),
      block: this.#block,
      hostRoutes: this.#hostRoutes,
    });
    try {
      await this.#attach(segment);
    } catch (error) {
      return await this.#undo(segment, error);
    }
    try {
      const id = await this.#engine.createNetwork(creationOf(segment));
      await this.#verify(id, segment);
      log.info("network {name} created: {subnet} on {bridge}", {
        name,
        subnet: segment.subnet,
        bridge: segment.bridge,
      });
      return { id, segment };
    } catch (error) {
      if (error instanceof OutcallError && error.code === "docker.unavailable") {
        // Docker may still be making it, and would bring up a bridge that nothing filters.
        log.error(
          "network {name}: Docker did not say what became of it; its bridge stays filtered",
          {
            name,
          },
        );
        throw error;
      }
      return await this.#undo(segment, error);
    }
  }

  /** S002-FR-005: Docker did what it was asked to, and not something close to it. */
  async #verify(id: string, wanted: Segment): Promise<void> {
    const network = await this.#engine.network(id);
    const made = network === null
      ? "it is gone again"
      : managedSegment(network, (bridge) => this.#hooks.ownsBridge(bridge));
    if (typeof made !== "string" && network?.Id === id && sameSegment(made, wanted)) return;
    const reason = typeof made === "string" ? made : "its addresses or its bridge differ";
    throw new OutcallError(
      500,
      "network.unverified",
      `Docker made network "${wanted.network}" otherwise than asked: ${reason}`,
    );
  }

  /** Removes what a failed create has left, then reports the failure. */
  async #undo(segment: Segment, cause: unknown): Promise<never> {
    try {
      const left = (await this.#engine.networks()).filter((network) =>
        network.Name === segment.network && network.Labels?.[OWNER_LABEL] === OWNER &&
        network.Options?.[BRIDGE_OPTION] === segment.bridge
      );
      for (const { Id } of left) await this.#engine.removeNetwork(Id);
      await this.#detach(segment);
    } catch (error) {
      throw new OutcallError(
        cause instanceof OutcallError ? cause.status : 500,
        "network.rollback",
        `${messageOf(cause)}; undoing it failed as well: ${messageOf(error)}`,
        { hint: `Bridge ${segment.bridge} stays filtered. Try again.`, cause },
      );
    }
    throw cause;
  }
}
