/**
 * Agents that Docker itself gives a way out beside the firewall: a second network that nobody
 * filters, or Docker's own resolver, which asks the host's in the host's name. Neither passes a
 * managed bridge, so neither can be stopped there; it is found and told (S015, ADV-NET-05, -07).
 */
import type { Segment } from "../bridge/segment.ts";
import { logger } from "../log.ts";
import { Ip } from "../net/ip.ts";
import type { Engine } from "./engine.ts";
import { containerName } from "./names.ts";

/** What matters about one running container. */
export interface Attachment {
  readonly name: string;
  /** Docker's names of the networks it is on. */
  readonly networks: readonly string[];
  /** The resolvers it was started with (`--dns`); none: Docker chooses. */
  readonly dns: readonly string[];
}

const log = logger("docker_manager");

/**
 * The first resolver of a resolv.conf(5) that is on the host itself, or null. Docker's own resolver
 * (127.0.0.11 in every container) asks such a one from the host's network, and all others from the
 * container's (libnetwork, `sandbox_dns_unix.go`, `setExternalResolvers`).
 */
export function resolverOnHost(resolvConf: string): string | null {
  for (const line of resolvConf.split("\n")) {
    const [keyword, address = ""] = line.trim().split(/\s+/);
    const ip = keyword === "nameserver" ? Ip.parse(address) : null;
    if (ip?.version === 4 && ip.bytes[0] === 127) return ip.text;
  }
  return null;
}

/** Every way that `container` has past the firewall; none when it is no agent. */
export function waysPast(
  { name, networks, dns }: Attachment,
  segments: readonly Segment[],
  hostResolver: string | null,
): string[] {
  const managed = segments.map(({ network }) => network);
  const [here] = networks.filter((network) => managed.includes(network));
  const segment = segments.find(({ network }) => network === here);
  if (segment === undefined) return [];
  const others = networks.filter((network) => !managed.includes(network));
  const ways = others.map((network) =>
    `container "${name}" is also on network "${network}", which is not filtered: ` +
    `docker network disconnect ${network} ${name}`
  );
  if (dns.length === 0 && hostResolver !== null) {
    ways.push(
      `container "${name}" gets names from the host's resolver ${hostResolver}, past the filter: ` +
        `start it with --dns ${segment.gateway}`,
    );
  }
  return ways;
}

/** Looks for such agents whenever it is told to. */
export class BypassWatch {
  readonly #engine: Engine;
  readonly #segments: () => readonly Segment[];
  readonly #resolvConf: () => string;
  /** Running containers as last inspected, by id. */
  readonly #known = new Map<string, Attachment>();
  /** Rises with each change: what was asked for before it may be outdated. */
  #changes = 0;
  #found: readonly string[] = [];

  /** @param options `resolvConf`: the host's file as it is now; empty where there is none. */
  constructor(
    options: {
      readonly engine: Engine;
      readonly segments: () => readonly Segment[];
      readonly resolvConf: () => string;
    },
  ) {
    this.#engine = options.engine;
    this.#segments = options.segments;
    this.#resolvConf = options.resolvConf;
  }

  /** What the last look found, for people. */
  get found(): readonly string[] {
    return this.#found;
  }

  /** A container has changed; without an id, any may have. */
  forget(containerId?: string): void {
    this.#changes++;
    if (containerId === undefined) this.#known.clear();
    else this.#known.delete(containerId);
  }

  /** @throws OutcallError `docker.unavailable`, `docker.refused`; what was found before stays. */
  async look(): Promise<void> {
    const running = (await this.#engine.containers()).filter(({ State }) =>
      State === "running" || State === "paused"
    );
    const ids = new Set(running.map(({ Id }) => Id));
    for (const id of this.#known.keys()) if (!ids.has(id)) this.#known.delete(id);
    for (const id of ids) {
      if (!this.#known.has(id)) await this.#inspect(id);
    }
    const segments = this.#segments();
    const hostResolver = resolverOnHost(this.#resolvConf());
    const found = [...this.#known.values()].flatMap((container) =>
      waysPast(container, segments, hostResolver)
    );
    for (const way of found) {
      if (!this.#found.includes(way)) log.error("the firewall is bypassed: {way}", { way });
    }
    this.#found = found;
  }

  /** By inspection: Docker's list lags behind its events. */
  async #inspect(containerId: string): Promise<void> {
    const changes = this.#changes;
    const container = await this.#engine.container(containerId);
    if (container === null || changes !== this.#changes) return; // whoever changed it looks again
    this.#known.set(containerId, {
      name: containerName([container.Name]),
      networks: Object.keys(container.NetworkSettings.Networks),
      dns: container.HostConfig.Dns ?? [],
    });
  }
}
