/**
 * Puts a managed network under enforcement, in the one order that never leaves a gap: the firewall
 * covers the bridge before the bridge can carry a packet, then the gateway's DNS filter and proxy
 * bind their ports, and only then does the firewall open these to the agents. A port that we do not
 * hold may belong to another program of the host.
 */
import type { Bridges } from "./bridge/bridge.ts";
import { type GatewayService, NOTHING_LISTENS, type Segment } from "./bridge/segment.ts";
import { Mutex } from "./mutex.ts";
import { Cidr } from "./net/cidr.ts";
import type { Ip } from "./net/ip.ts";

/** What listens on each gateway. */
export interface GatewayServices {
  readonly dns: GatewayService;
  /** Null without a proxy. */
  readonly proxy: GatewayService | null;
}

/** What of {@linkcode Bridges} enforcement needs. */
export type CoveredBridges = Pick<
  Bridges,
  "attach" | "detach" | "down" | "isDown" | "open" | "segments" | "up"
>;

/** The managed networks this daemon enforces, and the services that follow them. */
export class Enforcement {
  readonly #bridges: CoveredBridges;
  readonly #services: GatewayServices;
  readonly #segments = new Map<string, Segment>();
  readonly #mutex = new Mutex();
  #serving = false;

  /** @param services Bound on each gateway once {@linkcode startServices} was called. */
  constructor(bridges: CoveredBridges, services: GatewayServices) {
    this.#bridges = bridges;
    this.#services = services;
  }

  /** The networks under enforcement now. */
  segments(): readonly Segment[] {
    return [...this.#segments.values()];
  }

  /** Whether `ip` lies in a managed network: an agent's address, used or not. */
  contains(ip: Ip): boolean {
    const plain = ip.mappedIpv4() ?? ip;
    return this.segments().some(({ subnet }) => Cidr.parse(subnet)?.contains(plain) === true);
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
      if (this.#serving) await this.#serve();
    });
  }

  /**
   * Tears bridges and tables down, as {@linkcode Bridges.down}. Then nothing listens on a gateway
   * until {@linkcode up}, or until Docker brings a network back (S007-EC-001).
   */
  down(attached: () => Promise<readonly string[]>): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#bridges.down(attached);
      await this.#services.dns.serve([]);
      await this.#services.proxy?.serve([]);
    });
  }

  /**
   * Covers `segment`, makes its bridge, and serves its gateway. When a step fails the network stays
   * covered by the firewall: an error never uncovers.
   */
  attach(segment: Segment): Promise<void> {
    return this.#mutex.run(async () => {
      // The other networks' gateways have to be there to be served.
      if (this.#bridges.isDown) await this.#bridges.up();
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

  /**
   * Ends the services. What agents have under way may end while the firewall still lets them come;
   * then it closes, and only then the ports are given up, for whoever takes them. A firewall that
   * cannot be changed keeps them ours.
   * @param atOnce When it is aborted, nobody waits for what is under way.
   */
  async stopServices(atOnce?: AbortSignal): Promise<void> {
    await this.#mutex.run(() => {
      this.#serving = false; // networks that come now are covered, and not served any more
      return Promise.resolve();
    });
    const { dns, proxy } = this.#services;
    try {
      await Promise.all([dns.drain(atOnce), proxy?.drain(atOnce)]);
    } finally {
      await this.#mutex.run(() => this.#bridges.open(NOTHING_LISTENS));
    }
    await Promise.all([dns.stop(), proxy?.stop()]);
  }

  /** Binds what is new; closes to agents what goes before it goes. */
  async #serve(): Promise<void> {
    // Torn down, they have no addresses.
    const gateways = this.#bridges.isDown ? [] : this.segments().map((segment) => segment.gateway);
    await this.#open(gateways);
    const { dns, proxy } = this.#services;
    try {
      await dns.serve(gateways);
      await proxy?.serve(gateways);
    } finally {
      await this.#open(gateways);
    }
  }

  /** Opens the services at those of `gateways` where they listen. */
  async #open(gateways: readonly string[]): Promise<void> {
    const among = (service: GatewayService | null): string[] =>
      service?.status().listen_addresses.filter((address) => gateways.includes(address)) ?? [];
    const { dns, proxy } = this.#services;
    await this.#bridges.open({ dns: among(dns), proxy: among(proxy) });
  }
}
