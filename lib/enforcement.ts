/**
 * Puts a managed network under enforcement, in the one order that never leaves a gap: the firewall
 * covers the bridge before the bridge can carry a packet, and only then do the gateway's DNS filter
 * and proxy start to answer.
 */
import type { Bridges } from "./bridge/bridge.ts";
import type { GatewayService, Segment } from "./bridge/segment.ts";
import { Mutex } from "./mutex.ts";

/** The managed networks this daemon enforces, and the services that follow them. */
export class Enforcement {
  readonly #bridges: Bridges;
  readonly #services: readonly GatewayService[];
  readonly #segments = new Map<string, Segment>();
  readonly #mutex = new Mutex();
  #serving = false;

  /** @param services What listens on each gateway once {@linkcode startServices} was called. */
  constructor(bridges: Bridges, services: readonly GatewayService[]) {
    this.#bridges = bridges;
    this.#services = services;
  }

  /** The networks under enforcement now. */
  segments(): readonly Segment[] {
    return [...this.#segments.values()];
  }

  /**
   * What start-up does first: covers every bridge of ours that the kernel still has, and brings
   * them up. Nothing is served yet.
   */
  adopt(): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#bridges.up();
      for (const segment of this.#bridges.segments()) this.#segments.set(segment.bridge, segment);
    });
  }

  /** Puts back what is missing of bridges and firewall, and serves every gateway. Idempotent. */
  up(): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#bridges.up();
      await this.#serve();
    });
  }

  /**
   * Covers `segment`, makes its bridge, and serves its gateway. When a step fails the network stays
   * covered by the firewall: an error never uncovers.
   */
  attach(segment: Segment): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#bridges.attach(segment);
      this.#segments.set(segment.bridge, segment);
      if (this.#serving) await this.#serve();
    });
  }

  /** Stops serving `segment` and removes its bridge; its container network is gone already. */
  detach(segment: Segment): Promise<void> {
    return this.#mutex.run(async () => {
      this.#segments.delete(segment.bridge);
      if (this.#serving) await this.#serve();
      await this.#bridges.detach(segment);
    });
  }

  /** Binds the gateway services on every network attached so far, and on each one to come. */
  startServices(): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#serve();
      this.#serving = true;
    });
  }

  async #serve(): Promise<void> {
    const gateways = this.segments().map((segment) => segment.gateway);
    for (const service of this.#services) await service.serve(gateways);
  }
}
