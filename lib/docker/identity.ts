/**
 * Who is at an address: Docker's containers on our networks, kept up to date by its events and
 * looked up afresh when an address is not known (S013-FR-004, S008-FR-031, decision D5).
 *
 * An entry is only ever as good as the event stream. While the stream is down nothing is
 * remembered, and every question goes to Docker; when Docker does not answer, an address inside a
 * managed network is an agent without a name. A question is answered by what Docker said after it
 * was asked, never by a look-up that had begun before.
 *
 * An address proves who speaks only together with the port that it is pinned to: an agent that may
 * change its interface can take an address before Docker gives it to another one. So a port belongs
 * to the container that Docker names at the first look after the port was pinned, or to nobody, for
 * as long as there is that port.
 */
import type { Agent, AgentDirectory } from "../agents.ts";
import type { Pin } from "../bridge/ports.ts";
import type { Segment } from "../bridge/segment.ts";
import { messageOf } from "../errors.ts";
import { logger } from "../log.ts";
import { Cidr } from "../net/cidr.ts";
import { Ip } from "../net/ip.ts";
import type { Engine, EngineContainer, EngineEvent, EngineNetwork } from "./engine.ts";
import { BRIDGE_OPTION } from "./managed.ts";
import { AGENT_LABEL, agentName, containerName } from "./names.ts";

/** What an {@linkcode AgentIndex} works with. */
export interface AgentIndexOptions {
  /** Bounded tighter than for operators: see {@linkcode LOOKUP_TIMEOUT_MS}. */
  readonly engine: Engine;
  /** The managed networks of now, those of namespace agents included. */
  readonly segments: () => readonly Segment[];
  /** The agent at an address that is no container, as the kernel has it; undefined: none. */
  readonly namespaceAgent: (address: string) => Agent | undefined;
  /** Which port may speak from which address now. */
  readonly pins: () => readonly PinnedPort[];
}

/** A port of a managed bridge, and as whom it may speak. */
export type PinnedPort = Pick<Pin, "index" | "mac" | "address">;

/**
 * Longest wait for one answer of Docker on a miss; a question may wait for two. DNS clients ask
 * again after 5 s, and by then the answer must have left (S013-FR-006).
 */
export const LOOKUP_TIMEOUT_MS = 2_000;
/** How long "nobody there" holds: an agent cannot make us ask Docker more than once in this time. */
const MISS_MEMORY_MS = 1_000;
/** How long a Docker that did not answer is left alone; its return ends this early. */
const FAILURE_MEMORY_MS = 5_000;

const log = logger("docker_manager");

/** The agents of one network by address; null marks an address with two claimants. */
export type Claims = ReadonlyMap<string, Agent | null>;

/**
 * Who is where on one network.
 * @param network As inspected: its containers with their addresses.
 * @param names Agent name by container id; a container that is not among them is gone by now.
 */
export function claimsOf(
  segment: Segment,
  network: Pick<EngineNetwork, "Containers">,
  names: ReadonlyMap<string, string>,
): Claims {
  const claims = new Map<string, Agent | null>();
  const subnet = Cidr.parse(segment.subnet);
  for (const [containerId, endpoint] of Object.entries(network.Containers ?? {})) {
    const ip = Ip.parse(endpoint.IPv4Address.split("/")[0] ?? "");
    const name = names.get(containerId);
    if (ip === null || name === undefined || subnet?.contains(ip) !== true) continue;
    const agent = { name, containerId, address: ip.text, network: segment.network };
    claims.set(ip.text, claims.has(ip.text) ? null : agent);
  }
  return claims;
}

/** Key of an endpoint in Docker's inspection whose container it cannot tell yet. */
const UNSETTLED_ENDPOINT = "ep-";

/**
 * Whose port a pinned one is, by a look at its network that began when it was pinned already: the
 * container's id; null: nobody's whom Docker knows; undefined: it cannot be told yet.
 */
export function ownerOf(
  pin: PinnedPort,
  network: Pick<EngineNetwork, "Containers">,
): string | null | undefined {
  const holders = Object.entries(network.Containers ?? {}).filter(([, { IPv4Address }]) =>
    IPv4Address.split("/")[0] === pin.address
  );
  const [holder, rival] = holders;
  if (holder === undefined || rival !== undefined) return null;
  const [containerId, { MacAddress }] = holder;
  if (containerId.startsWith(UNSETTLED_ENDPOINT)) return undefined;
  return MacAddress.toLowerCase() === pin.mac ? containerId : null;
}

/** One network's agents as last looked up. */
interface View {
  readonly claims: Claims;
  /** On the clock of `performance.now()`. */
  readonly readAtMs: number;
}

/** A look-up under way, and the one that will follow for whoever asks after it has begun. */
interface Lookup {
  readonly current: Promise<Claims>;
  next: Promise<Claims> | undefined;
}

/** A time so long ago that nothing from then is fresh. */
const NEVER = Number.NEGATIVE_INFINITY;

function nameless(segment: Segment, ip: Ip): Agent {
  return { name: "", address: ip.text, network: segment.network };
}

/** The {@linkcode AgentDirectory} behind DNS filter and proxy. */
export class AgentIndex implements AgentDirectory {
  readonly #engine: Engine;
  readonly #segments: () => readonly Segment[];
  readonly #namespaceAgent: AgentIndexOptions["namespaceAgent"];
  readonly #pins: AgentIndexOptions["pins"];
  /** Whose each pinned port is, by its index; see {@linkcode ownerOf}. */
  readonly #owners = new Map<number, string | null>();
  readonly #subnets = new WeakMap<Segment, Cidr | null>();
  /** By network name; empty while no events are followed. */
  readonly #views = new Map<string, View>();
  readonly #lookups = new Map<string, Lookup>();
  /** When Docker last failed to answer, by network name. */
  readonly #failedAtMs = new Map<string, number>();
  /** Rises with each event: what was read before it may be outdated. */
  #generation = 0;
  #following = false;
  readonly #listeners: (() => void)[] = [];
  readonly #goneListeners: ((containerId: string | null) => void)[] = [];

  constructor(options: AgentIndexOptions) {
    this.#engine = options.engine;
    this.#segments = options.segments;
    this.#namespaceAgent = options.namespaceAgent;
    this.#pins = options.pins;
  }

  /** Calls `listener` whenever the agent at some address may have become another one, or none. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Calls `listener` with the id of each container that has ended; null: nobody can tell of any. */
  onGone(listener: (containerId: string | null) => void): void {
    this.#goneListeners.push(listener);
  }

  identify(address: string): Agent | null | Promise<Agent | null> {
    const ip = Ip.parse(address);
    const segment = ip === null ? undefined : this.#segmentOf(ip);
    if (ip === null || segment === undefined) return null;
    const view = this.#views.get(segment.network);
    const claimed = view?.claims.get(ip.text);
    const local = this.#namespaceAgent(ip.text);
    if (claimed !== undefined && local !== undefined) return null; // two claimants: neither
    if (local !== undefined) return local;
    const agent = this.#atItsPort(ip, claimed);
    if (agent !== undefined) return agent;
    const now = performance.now();
    // A claim at a port that is new needs a look of its own, however fresh the last one is.
    const isFresh = (claimed === undefined && now - (view?.readAtMs ?? NEVER) < MISS_MEMORY_MS) ||
      now - (this.#failedAtMs.get(segment.network) ?? NEVER) < FAILURE_MEMORY_MS;
    return isFresh ? nameless(segment, ip) : this.#lookUp(segment, ip);
  }

  /** Ports were pinned: finds out at once whose they are. */
  portsPinned(): void {
    this.#changed();
    for (const segment of this.#segments()) {
      const isNew = this.#pinsOn(segment).some(({ index }) => !this.#owners.has(index));
      if (isNew) this.#readAhead(segment.network);
    }
  }

  /** An agent that is no container has come or gone. */
  localChanged(): void {
    this.#changed();
  }

  /** The event stream is gone: forgets everything, since nothing would correct it. */
  stopFollowing(): void {
    this.#following = false;
    this.#generation++;
    this.#views.clear();
    this.#gone(null);
  }

  /** The event stream is up: keeps what is read from now on. */
  startFollowing(): void {
    this.stopFollowing();
    this.#failedAtMs.clear();
    this.#following = true;
  }

  /**
   * Reads every network, so that the first question about each agent need not wait.
   * @throws OutcallError `docker.unavailable`.
   */
  async readAll(): Promise<void> {
    await Promise.all(this.#segments().map((segment) => this.#refresh(segment)));
    this.#changed();
  }

  /** Takes in one event. */
  follow(event: EngineEvent): void {
    const { Type, Action, Actor } = event;
    if (Type === "network" && (Action === "connect" || Action === "disconnect")) {
      this.#forget(Actor.Attributes["container"]);
      if (Action === "connect") this.#readAhead(Actor.Attributes["name"]);
    } else if (Type === "network" && Action === "destroy") {
      this.#generation++;
      this.#views.delete(Actor.Attributes["name"] ?? "");
      this.#changed();
    } else if (Type === "container" && ["die", "destroy", "rename"].includes(Action)) {
      this.#forget(Actor.ID);
    }
    const gone = Type === "container" && (Action === "die" || Action === "destroy")
      ? Actor.ID
      : Type === "network" && Action === "disconnect"
      ? Actor.Attributes["container"]
      : undefined;
    if (gone !== undefined) this.#gone(gone);
  }

  /** Reads a network somebody has joined, so that the first question about them need not wait. */
  #readAhead(network: string | undefined): void {
    const segment = this.#segments().find((one) => one.network === network);
    if (segment === undefined) return;
    this.#refresh(segment).catch((error: unknown) => {
      log.debug("network {network} could not be read ahead: {reason}", {
        network,
        reason: messageOf(error),
      });
    });
  }

  /** Drops one container, and what is remembered of addresses that nobody or several had. */
  #forget(containerId: string | undefined): void {
    this.#generation++;
    for (const [network, view] of this.#views) {
      const kept = [...view.claims].filter(([, agent]) =>
        agent !== null && agent.containerId !== containerId
      );
      this.#views.set(network, { claims: new Map(kept), readAtMs: NEVER });
    }
    this.#changed();
  }

  #pinsOn(segment: Segment): PinnedPort[] {
    const subnet = Cidr.parse(segment.subnet);
    return this.#pins().filter(({ address }) => {
      const ip = Ip.parse(address);
      return ip !== null && subnet?.contains(ip) === true;
    });
  }

  /**
   * `claimed` if it may speak from the port that has its address; null if that port is another's;
   * undefined if there is no claim, or nobody can tell yet.
   */
  #atItsPort(ip: Ip, claimed: Agent | null | undefined): Agent | null | undefined {
    if (claimed === undefined || claimed === null) return claimed;
    const pin = this.#pins().find(({ address }) => address === ip.text);
    if (pin === undefined) return claimed; // nobody can speak from there
    const owner = this.#owners.get(pin.index);
    return owner === undefined ? undefined : owner === claimed.containerId ? claimed : null;
  }

  #gone(containerId: string | null): void {
    for (const listener of this.#goneListeners) listener(containerId);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }

  #segmentOf(ip: Ip): Segment | undefined {
    return this.#segments().find((segment) => {
      let subnet = this.#subnets.get(segment);
      if (subnet === undefined) {
        subnet = Cidr.parse(segment.subnet);
        this.#subnets.set(segment, subnet);
      }
      return subnet?.contains(ip) === true;
    });
  }

  async #lookUp(segment: Segment, ip: Ip): Promise<Agent | null> {
    try {
      const claimed = (await this.#refresh(segment)).get(ip.text);
      const agent = this.#atItsPort(ip, claimed);
      return agent === undefined ? nameless(segment, ip) : agent;
    } catch (error) {
      this.#failedAtMs.set(segment.network, performance.now());
      log.warn("who is at {address} is unknown: {reason}", {
        address: ip.text,
        reason: messageOf(error),
      });
      return nameless(segment, ip);
    }
  }

  /** Reads a network by a look-up that begins now, or when the one under way has ended. */
  #refresh(segment: Segment): Promise<Claims> {
    const running = this.#lookups.get(segment.network);
    if (running === undefined) return this.#begin(segment);
    const begin = (): Promise<Claims> => this.#begin(segment);
    return running.next ??= running.current.then(begin, begin);
  }

  #begin(segment: Segment): Promise<Claims> {
    const current = this.#read(segment).finally(() => {
      // With somebody waiting, the entry is replaced at once by the look-up that follows.
      if (lookup.next === undefined) this.#lookups.delete(segment.network);
    });
    const lookup: Lookup = { current, next: undefined };
    this.#lookups.set(segment.network, lookup);
    return current;
  }

  /** Asks Docker who is on a network, and keeps the answer unless something happened meanwhile. */
  async #read(segment: Segment): Promise<Claims> {
    const generation = this.#generation;
    const pins = this.#pinsOn(segment);
    const [network, containers] = await Promise.all([
      this.#networkOf(segment),
      this.#engine.containers(),
    ]);
    // Of a network that Docker does not know, it cannot say whose the ports are: one that was adopted
    // without Docker goes by its bridge's name until Docker has told its own.
    if (network !== null) this.#settleOwners(segment, pins, network);
    const claims = network === null
      ? new Map<string, Agent>()
      : claimsOf(segment, network, await this.#namesOf(containers, network));
    if (this.#following && generation === this.#generation) {
      this.#views.set(segment.network, { claims, readAtMs: performance.now() });
    }
    return claims;
  }

  /** Null when Docker knows none by the name, or one that is on another bridge. */
  async #networkOf({ network, bridge }: Segment): Promise<EngineNetwork | null> {
    const found = await this.#engine.network(network);
    return found?.Options?.[BRIDGE_OPTION] === bridge ? found : null;
  }

  /** @param pins Those from before Docker was asked for `network`. */
  #settleOwners(
    segment: Segment,
    pins: readonly PinnedPort[],
    network: Pick<EngineNetwork, "Containers">,
  ): void {
    const current = new Set(this.#pins().map(({ index }) => index));
    for (const index of this.#owners.keys()) if (!current.has(index)) this.#owners.delete(index);
    for (const pin of pins) {
      if (this.#owners.has(pin.index)) continue;
      if (this.#namespaceAgent(pin.address) !== undefined) continue;
      const owner = ownerOf(pin, network);
      if (owner === undefined) continue;
      this.#owners.set(pin.index, owner);
      if (owner === null) {
        log.warn("an agent on {network} has address {address}, which Docker gave to nobody", {
          network: segment.network,
          address: pin.address,
        });
      }
    }
  }

  /** Agent names of the containers on `network`. */
  async #namesOf(
    containers: readonly EngineContainer[],
    network: EngineNetwork,
  ): Promise<Map<string, string>> {
    const names = new Map<string, string>();
    for (const container of containers) {
      if (network.Containers?.[container.Id] === undefined) continue;
      const labels = await this.#operatorLabels(container);
      names.set(container.Id, agentName(containerName(container.Names), labels));
    }
    return names;
  }

  /**
   * The label that names an agent, if an operator set it: Docker adds the image's own labels, and
   * an image must not choose whose rights it gets.
   */
  async #operatorLabels(container: EngineContainer): Promise<Record<string, string>> {
    const label = container.Labels[AGENT_LABEL];
    if (label === undefined) return {};
    const image = await this.#engine.image(container.ImageID);
    // Without its image nobody can tell any more where the label came from.
    const ofImage = image === null ? label : image.Config.Labels?.[AGENT_LABEL];
    return ofImage === label ? {} : { [AGENT_LABEL]: label };
  }
}
