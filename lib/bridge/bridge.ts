/**
 * The managed bridges and the firewall around them.
 *
 * One rule holds for every operation: the table covers a bridge before the bridge can carry a
 * packet, and until after it is gone. Whatever fails in between leaves agents cut off.
 */
import type { BridgeStatus } from "../api/services.ts";
import { OutcallError } from "../errors.ts";
import { RouteNetlink } from "../linux/rtnetlink.ts";
import { logger } from "../log.ts";
import { Mutex } from "../mutex.ts";
import { Cidr } from "../net/cidr.ts";
import { discoverSegments } from "./discover.ts";
import { KernelFirewall } from "./kernel.ts";
import { bringUp, inUse, linkProblems, plugIn, removeBridges, setDownUnused } from "./links.ts";
import { BridgeMemory } from "./memory.ts";
import { assertBridgeName, bridgeName } from "./names.ts";
import { Openings } from "./openings.ts";
import type { Pin } from "./ports.ts";
import { type Listening, NOTHING_LISTENS, type Segment } from "./segment.ts";

const log = logger("bridge");

/** Settings of {@linkcode Bridges}. */
export interface BridgesOptions {
  /** `--bridge`: the default network's bridge. */
  readonly name: string;
  /** `--subnet-block` in CIDR form: a bridge with an address in it is adopted at start-up. */
  readonly subnetBlock: string;
  /** The DNS filter's port on every gateway. */
  readonly dnsPort: number;
  /** The proxy's port on every gateway; null without a proxy. */
  readonly proxyPort: number | null;
  /** File with the names of covered bridges, for the next boot; null: none is kept. */
  readonly memoryPath: string | null;
}

/** The managed bridges of this host. All operations run one at a time. */
export class Bridges {
  readonly #options: BridgesOptions;
  readonly #block: Cidr;
  readonly #memory: BridgeMemory;
  readonly #mutex = new Mutex();
  readonly #firewall: KernelFirewall;
  /** The known networks by their bridges' names. */
  readonly #segments: Map<string, Segment>;
  /** What is open to single agents. */
  readonly openings: Openings;
  /** Torn down on request: nothing is to be repaired. */
  #isDown = false;
  #lastRepair: BridgeStatus["last_repair"];

  /** @throws OutcallError `bridge.name`, or RangeError when the block is not one. */
  constructor(options: BridgesOptions) {
    const { name, subnetBlock, dnsPort, proxyPort, memoryPath } = options;
    assertBridgeName(name);
    const block = Cidr.parse(subnetBlock);
    if (block === null) throw new RangeError(`'${subnetBlock}' is not a subnet block`);
    this.#options = options;
    this.#block = block;
    this.#memory = new BridgeMemory(memoryPath);
    this.#firewall = new KernelFirewall({
      defaultBridge: name,
      dnsPort,
      proxyPort,
      memory: this.#memory,
    });
    this.#segments = this.#firewall.segments;
    this.openings = new Openings(this.#firewall, this.#mutex);
  }

  /** The default network's bridge. */
  get name(): string {
    return this.#options.name;
  }

  /** The networks covered by the firewall with their services, by the latest knowledge. */
  segments(): readonly Segment[] {
    return [...this.#segments.values()];
  }

  /**
   * The name of bridge number `n`; 0 is the default network's (decision D3).
   * @throws OutcallError `bridge.names_exhausted`
   */
  bridgeName(n: number): string {
    return bridgeName(this.name, n);
  }

  /**
   * The first name for a further network's bridge that no link, no known network and nothing in
   * `taken` has.
   * @param taken Names given out elsewhere, such as those of networks whose bridge is not there now.
   * @throws OutcallError `bridge.names_exhausted`
   */
  nextFreeName(taken: ReadonlySet<string> = new Set()): string {
    using netlink = new RouteNetlink();
    const links = new Set(netlink.links().map((link) => link.name));
    for (let n = 1;; n++) {
      const name = this.bridgeName(n);
      if (!links.has(name) && !this.#segments.has(name) && !taken.has(name)) return name;
    }
  }

  /**
   * Covers `segment` and makes its bridge work: first the table, then the link, its address and its
   * state. Idempotent. When a step fails, what is covered stays covered. Its services stay closed
   * until {@linkcode open}.
   * @throws OutcallError `bridge.not_a_bridge`, `bridge.enslaved`, `bridge.operation`,
   * `bridge.permission`, and those of nft.
   */
  attach(segment: Segment): Promise<void> {
    return this.#mutex.run(async () => {
      // After `down` it is Docker that brings a network back: without us nobody would filter it.
      this.#isDown = false;
      using netlink = new RouteNetlink();
      const before = this.#segments.get(segment.bridge);
      this.#segments.set(segment.bridge, segment);
      try {
        await this.#firewall.apply(netlink);
      } catch (error) {
        if (before === undefined) this.#segments.delete(segment.bridge);
        else this.#segments.set(segment.bridge, before);
        throw error;
      }
      bringUp(netlink, segment.bridge, segment);
      if (before?.network !== segment.network) {
        log.info("attached {network} to {bridge}", { ...segment });
      }
    });
  }

  /**
   * Removes the bridge of a network that is gone, then its part of the table. The default network's
   * bridge is made anew, without an address.
   * @throws OutcallError `bridge.in_use` when something is plugged into it.
   */
  detach(segment: Segment): Promise<void> {
    return this.#mutex.run(async () => {
      using netlink = new RouteNetlink();
      const link = netlink.link(segment.bridge);
      if (link !== null) removeBridges(netlink, [link]);
      this.#segments.delete(segment.bridge);
      this.#memory.remove([segment.bridge]);
      await this.#firewall.apply(netlink);
      if (segment.bridge === this.name) bringUp(netlink, this.name, null);
      log.info("detached {network} from {bridge}", { ...segment });
    });
  }

  /** Covers bridges of these names from now on, here or to come; their agents reach nothing. */
  cover(names: readonly string[]): Promise<void> {
    return this.#mutex.run(async () => {
      const missing = names.filter((name) =>
        !this.#firewall.coverage.covered.includes(name) && !this.#memory.has(name)
      );
      if (missing.length === 0) return;
      log.warn("bridges of another --bridge are covered, and not served: {bridges}", {
        bridges: missing,
      });
      this.#memory.add(missing);
      using netlink = new RouteNetlink();
      await this.#firewall.apply(netlink);
    });
  }

  /** Which port may speak as whom. */
  pins(): readonly Pin[] {
    return this.#firewall.pinning.pins;
  }

  /** Calls `listener` when ports are pinned that were not before. */
  onNewPins(listener: () => void): void {
    this.#firewall.pinning.onNewPins(listener);
  }

  /** Addresses of the agents whose ports are pinned. */
  agentAddresses(): readonly string[] {
    return this.#firewall.pinning.agentAddresses;
  }

  /** Opens the services at these gateways to their agents, and closes all others. */
  open(listening: Listening): Promise<void> {
    return this.#mutex.run(async () => {
      const isOpen = JSON.stringify(listening) === JSON.stringify(this.#firewall.listening);
      if (isOpen && this.#firewall.areApplied) return;
      using netlink = new RouteNetlink();
      this.#firewall.listening = listening;
      await this.#firewall.apply(netlink);
    });
  }

  /**
   * Closes every service: agents reach nothing; bridges and table stay (decision D2, S001-FR-010).
   * When it fails the live table stays.
   */
  close(): Promise<void> {
    return this.#mutex.run(async () => {
      using netlink = new RouteNetlink();
      this.#firewall.listening = NOTHING_LISTENS;
      this.#firewall.revokeAll();
      await this.#firewall.apply(netlink);
      log.info("closed: agents reach nothing until the daemon is back");
    });
  }

  /** Torn down on request, until {@linkcode up} or {@linkcode attach}. */
  get isDown(): boolean {
    return this.#isDown;
  }

  /** @throws OutcallError `bridge.down` (409) after {@linkcode down}, until {@linkcode up}. */
  assertUp(): void {
    if (!this.#isDown) return;
    throw new OutcallError(
      409,
      "bridge.down",
      'bridge is not up — run "outcall bridge up" first',
    );
  }

  /** The state of the default bridge and the table, looked up afresh (S001-FR-011). */
  status(): Promise<BridgeStatus> {
    return this.#mutex.run(async () => {
      using netlink = new RouteNetlink();
      const link = netlink.link(this.name);
      return {
        name: this.name,
        up: link !== null && link.kind === "bridge" && link.up,
        index: link?.index ?? null,
        nftables: await this.#firewall.isApplied() ? "active" : "inactive",
        ...this.#lastRepair === undefined ? {} : { last_repair: this.#lastRepair },
      };
    });
  }

  /**
   * Adopts every bridge of ours that the kernel has, covers all in one transaction, and brings the
   * bridges up, the default one included. Idempotent; also what start-up does first.
   */
  up(): Promise<void> {
    return this.#mutex.run(async () => {
      using netlink = new RouteNetlink();
      const found = discoverSegments(netlink, this.name, this.#block)
        .filter(({ bridge }) => !this.#segments.has(bridge));
      for (const segment of found) this.#segments.set(segment.bridge, segment);
      this.#isDown = false;
      // Start-up asks twice, and each time it is applied costs a tenth of a second.
      const isCovered = found.length === 0 && await this.#firewall.isApplied() &&
        !this.#firewall.pinning.haveChanged(netlink);
      if (!isCovered) await this.#firewall.apply(netlink);
      this.#bringAllUp(netlink);
    });
  }

  /**
   * Tears down table and bridges (S001-FR-009). Known networks are remembered for a later
   * {@linkcode up}.
   * @param attached Names of the containers that are attached to managed networks.
   * @throws OutcallError `bridge.in_use` with their names, or with those of the bridges' ports.
   */
  down(attached: () => Promise<readonly string[]>): Promise<void> {
    return this.#mutex.run(async () => {
      using netlink = new RouteNetlink();
      const names = await attached();
      if (names.length > 0) throw inUse(names);
      const links = await this.#firewall.coverage.links(netlink);
      // A container that is attached from here on meets a link that is down: no unfiltered moment.
      setDownUnused(netlink, links);
      // Not before: who is refused has everything as it was, repairs included.
      this.#isDown = true;
      await this.#firewall.remove();
      this.#memory.remove(this.#memory.names);
      for (const link of links) netlink.deleteLink(link);
      log.info("torn down: {bridges}", { bridges: links.map((link) => link.name) });
    });
  }

  /**
   * Looks at links and ports, pins ports that are new, and puts right what somebody else has changed;
   * what was wrong is logged, and returned.
   * @param withTables Whether to look at the tables, too, which takes a few milliseconds.
   * @throws what kept it from being put right: agents are cut off as far as the kernel obeys.
   */
  repair(withTables: boolean): Promise<readonly string[]> {
    return this.#mutex.run(async () => {
      if (this.#isDown) return [];
      using netlink = new RouteNetlink();
      const wrong = linkProblems(
        netlink,
        this.#firewall.coverage.wanted,
        this.#segments,
        this.#firewall.pinning.pins,
      );
      if (!this.#firewall.areApplied) wrong.push("the firewall could not be applied");
      else if (withTables && !await this.#firewall.isApplied()) {
        wrong.push("the firewall was changed");
      }
      if (wrong.length > 0) {
        log.error("repairing: {wrong}", { wrong: wrong.join(", ") });
        this.#firewall.forget();
        this.#firewall.direct.distrust();
        await this.#firewall.apply(netlink);
        this.#bringAllUp(netlink);
        this.#lastRepair = { at: new Date().toISOString(), wrong };
        log.warn("repaired: {wrong}", { wrong: wrong.join(", ") });
      } else if (this.#firewall.pinning.haveChanged(netlink)) {
        await this.#firewall.applyPorts(netlink);
      }
      return wrong;
    });
  }

  /** Of what is covered. */
  #bringAllUp(netlink: RouteNetlink): void {
    for (const name of this.#firewall.coverage.wanted) {
      bringUp(netlink, name, this.#segments.get(name) ?? null);
    }
    plugIn(netlink, this.#firewall.pinning.pins);
  }
}
