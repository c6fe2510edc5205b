/**
 * The managed bridges and the firewall around them.
 *
 * One rule holds for every operation: the table covers a bridge before the bridge can carry a
 * packet, and until after it is gone. Whatever fails in between leaves agents cut off.
 */
import type { BridgeStatus } from "../api/services.ts";
import { messageOf, OutcallError } from "../errors.ts";
import { SystemError } from "../linux/libc.ts";
import { applyRuleset, deleteTable, listTable } from "../linux/nft.ts";
import { type Link, RouteNetlink } from "../linux/rtnetlink.ts";
import { hostInLog, logger } from "../log.ts";
import { Mutex } from "../mutex.ts";
import { Cidr } from "../net/cidr.ts";
import { Ip } from "../net/ip.ts";
import { AppliedTables } from "./apply.ts";
import type { DirectGrant, Opened } from "./direct.ts";
import { coveredBridges, FIREWALL_TABLE, firewallTable } from "./firewall.ts";
import {
  assertBridgeName,
  bridgeName,
  DEFAULT_BRIDGE,
  firstNames,
  isInterfaceName,
  isManagedName,
} from "./names.ts";
import { type Grant, type GrantRequest, Grants } from "./grants.ts";
import {
  bringUp,
  inUse,
  isolate,
  linkProblems,
  notABridge,
  plugIn,
  removeBridges,
  setDownUnused,
} from "./links.ts";
import { BridgeMemory } from "./memory.ts";
import { type DirectAsk, DirectOpener } from "./opener.ts";
import { listedPins, PORT_TABLE, portTable } from "./port_table.ts";
import { type Pin, pinPorts, type Pins, type PortView } from "./ports.ts";
import type { NftTable } from "./table.ts";
import { type Listening, NOTHING_LISTENS, type Segment } from "./segment.ts";

const log = logger("bridge");

/**
 * Names that are covered whether or not there is such a bridge: after a boot Docker makes its bridges
 * anew and starts containers on them before it answers anybody, us included. As many as there are
 * networks in the default block; those by the default name too, which are left from runs without
 * `--bridge`.
 */
const RESERVED_NAMES = 256;

/** Both tables of the firewall. */
const TABLES = [FIREWALL_TABLE, PORT_TABLE];

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

/** What a look at the ports showed. */
interface PortLook extends Pins {
  readonly ports: readonly Link[];
}

/** One text for all looks from which the same tables follow. */
function portsKey(ports: readonly Link[], pins: readonly Pin[]): string {
  return JSON.stringify([ports.map(({ name, index }) => [name, index]), pins]);
}

/** The managed bridges of this host. All operations run one at a time. */
export class Bridges {
  readonly #options: BridgesOptions;
  readonly #block: Cidr;
  readonly #memory: BridgeMemory;
  readonly #segments = new Map<string, Segment>();
  readonly #mutex = new Mutex();
  #listening: Listening = NOTHING_LISTENS;
  readonly #tables = new AppliedTables(TABLES);
  readonly #grants = new Grants();
  readonly #direct = new DirectOpener(this.#tables);
  /** Null until those of an earlier run were looked for in the kernel. */
  #pins: readonly Pin[] | null = null;
  readonly #newPinListeners: (() => void)[] = [];
  /** Names of the bridges that the tables cover. */
  #covered: readonly string[] = [];
  /** The ports and pins that the tables hold. */
  #appliedPorts = "";
  /** Ports without a pin and why, to say it once. */
  #refused: ReadonlyMap<string, string> = new Map();
  /** Torn down on request: nothing is to be repaired. */
  #isDown = false;
  #lastRepair: BridgeStatus["last_repair"];
  #onGrantsEnded: (ids: readonly string[]) => void = () => {};

  /** @throws OutcallError `bridge.name`, or RangeError when the block is not one. */
  constructor(options: BridgesOptions) {
    assertBridgeName(options.name);
    const block = Cidr.parse(options.subnetBlock);
    if (block === null) throw new RangeError(`'${options.subnetBlock}' is not a subnet block`);
    this.#options = options;
    this.#block = block;
    this.#memory = new BridgeMemory(options.memoryPath);
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
   * The managed networks that the kernel shows: bridges named as ours with an address inside the
   * block. A network whose name is not known yet has its bridge's.
   */
  discover(): Segment[] {
    using netlink = new RouteNetlink();
    return this.#discover(netlink);
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
        await this.#apply(netlink);
      } catch (error) {
        if (before === undefined) this.#segments.delete(segment.bridge);
        else this.#segments.set(segment.bridge, before);
        throw error;
      }
      bringUp(netlink, segment.bridge, segment);
      log.info("attached {network} to {bridge}", { ...segment });
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
      await this.#apply(netlink);
      if (segment.bridge === this.name) bringUp(netlink, this.name, null);
      log.info("detached {network} from {bridge}", { ...segment });
    });
  }

  /** Covers bridges of these names from now on, here or to come; their agents reach nothing. */
  cover(names: readonly string[]): Promise<void> {
    return this.#mutex.run(async () => {
      const missing = names.filter((name) =>
        !this.#covered.includes(name) && !this.#memory.has(name)
      );
      if (missing.length === 0) return;
      log.warn("bridges of another --bridge are covered, and not served: {bridges}", {
        bridges: missing,
      });
      this.#memory.add(missing);
      using netlink = new RouteNetlink();
      await this.#apply(netlink);
    });
  }

  /** Renders the table from what is known now and replaces the kernel's. */
  apply(): Promise<void> {
    return this.#mutex.run(async () => {
      using netlink = new RouteNetlink();
      await this.#apply(netlink);
    });
  }

  /** The grants in force. */
  grants(): readonly Grant[] {
    return this.#grants.list(Date.now());
  }

  /** Which port may speak as whom. */
  pins(): readonly Pin[] {
    return this.#pins ?? [];
  }

  /** Calls `listener` when ports are pinned that were not before. */
  onNewPins(listener: () => void): void {
    this.#newPinListeners.push(listener);
  }

  /** Addresses of the agents whose ports are pinned. */
  agentAddresses(): readonly string[] {
    return (this.#pins ?? []).map(({ address }) => address);
  }

  /**
   * Lets agents open connections for a time (decision D12), all of them or none; in force when this
   * resolves.
   * @throws OutcallError `grant.no_agent` (404) when no port is pinned to that address, those of
   * {@linkcode Grants.add}, and those of nft; then nothing is granted.
   */
  grant(requests: readonly GrantRequest[]): Promise<readonly Grant[]> {
    return this.#mutex.run(async () => {
      const added: Grant[] = [];
      using netlink = new RouteNetlink();
      try {
        for (const request of requests) {
          if (!this.agentAddresses().includes(request.agent)) {
            throw new OutcallError(404, "grant.no_agent", `no agent has address ${request.agent}`);
          }
          added.push(this.#grants.add(request, Date.now()));
        }
        await this.#apply(netlink);
      } catch (error) {
        for (const { id } of added) this.#grants.revoke(id);
        throw error;
      }
      for (const { agent, destination, protocol, port, ttlSecs, id } of added) {
        log.info("grant {id}: {agent} may reach {destination} {protocol}/{port} for {time}", {
          id,
          agent,
          destination: hostInLog(destination),
          protocol,
          port,
          time: ttlSecs === null ? "good" : `${ttlSecs} s`,
        });
      }
      return added;
    });
  }

  /** Has `listener` called with the ids of grants that ended with their agents. It must not throw. */
  onGrantsEnded(listener: (ids: readonly string[]) => void): void {
    this.#onGrantsEnded = listener;
  }

  /** The grants in force that follow from DNS answers. */
  directGrants(): readonly DirectGrant[] {
    return this.#direct.list();
  }

  /** Those and the ones that have expired, whose connections go on. */
  allDirectGrants(): readonly DirectGrant[] {
    return this.#direct.all();
  }

  /**
   * Opens what a DNS answer may lead to; in force when this resolves. See {@linkcode DirectOpener.ask}.
   */
  openDirect(ask: DirectAsk): Promise<readonly Opened[]> {
    return this.#direct.ask(ask, () => {
      void this.#mutex.run(() => {
        this.#direct.commit(this.agentAddresses());
        if (!this.#direct.isInSync) this.#tables.forget(); // to be repaired
        return Promise.resolve();
      });
    });
  }

  /**
   * Takes the direct grants away that `isKept` does not want kept, and their connections with them.
   * @param isKept Called at the moment of the transaction. Must not throw.
   * @returns how many were taken away, expired ones included.
   * @throws OutcallError those of nft; then it is tried again at every repair.
   */
  reviewDirect(isKept: (grant: DirectGrant) => boolean): Promise<number> {
    return this.#mutex.run(async () => {
      const revoked = this.#direct.all().filter((grant) => !isKept(grant));
      await this.#revokeDirect(revoked);
      return revoked.length;
    });
  }

  async #revokeDirect(grants: readonly DirectGrant[]): Promise<void> {
    this.#direct.revoke(grants);
    if (this.#direct.isInSync) return;
    this.#tables.forget();
    using netlink = new RouteNetlink();
    await this.#apply(netlink);
  }

  /** Takes a grant away, and its connections with it; whether there was one. */
  revoke(id: string): Promise<boolean> {
    return this.#mutex.run(async () => {
      const direct = this.#direct.all().filter((grant) => grant.id === id);
      if (direct.length > 0) {
        await this.#revokeDirect(direct);
        return true;
      }
      const wasThere = this.#grants.revoke(id);
      using netlink = new RouteNetlink();
      await this.#apply(netlink);
      if (wasThere) log.info("grant {id} is revoked", { id });
      return wasThere;
    });
  }

  /** Takes all grants away, and their connections with them; returns how many were in force. */
  flushGrants(): Promise<number> {
    return this.#mutex.run(async () => {
      const count = this.#grants.flush(Date.now()) + this.#direct.list().length;
      this.#direct.revoke(this.#direct.all());
      using netlink = new RouteNetlink();
      await this.#apply(netlink);
      log.info("all grants are revoked: {count}", { count });
      return count;
    });
  }

  /** Opens the services at these gateways to their agents, and closes all others. */
  open(listening: Listening): Promise<void> {
    return this.#mutex.run(async () => {
      const isOpen = JSON.stringify(listening) === JSON.stringify(this.#listening);
      if (isOpen && this.#tables.areApplied) return;
      using netlink = new RouteNetlink();
      this.#listening = listening;
      await this.#apply(netlink);
    });
  }

  /**
   * Closes every service: agents reach nothing; bridges and table stay (decision D2, S001-FR-010).
   * When it fails the live table stays.
   */
  close(): Promise<void> {
    return this.#mutex.run(async () => {
      using netlink = new RouteNetlink();
      this.#listening = NOTHING_LISTENS;
      this.#grants.flush(Date.now());
      this.#direct.revoke(this.#direct.all());
      await this.#apply(netlink);
      log.info("closed: agents reach nothing until the daemon is back");
    });
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
        nftables: await this.#isApplied() ? "active" : "inactive",
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
      const found = this.#discover(netlink).filter(({ bridge }) => !this.#segments.has(bridge));
      for (const segment of found) this.#segments.set(segment.bridge, segment);
      this.#isDown = false;
      // Start-up asks twice, and each time it is applied costs a tenth of a second.
      const isCovered = found.length === 0 && await this.#isApplied() &&
        !this.#havePortsChanged(netlink);
      if (!isCovered) await this.#apply(netlink);
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
      const links = await this.#coveredLinks(netlink);
      this.#isDown = true;
      // A container that is attached from here on meets a link that is down: no unfiltered moment.
      setDownUnused(netlink, links);
      for (const { family, name } of TABLES) {
        try {
          await deleteTable(family, name);
        } catch (error) {
          log.warn("table {family} {name} could not be deleted: {reason}", {
            family,
            name,
            reason: messageOf(error),
          });
        }
      }
      this.#tables.forget();
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
      const wrong = linkProblems(netlink, this.#bridgeNames(), this.#segments, this.#pins ?? []);
      if (!this.#tables.areApplied) wrong.push("the firewall could not be applied");
      else if (withTables && !await this.#isApplied()) wrong.push("the firewall was changed");
      if (wrong.length > 0) {
        log.error("repairing: {wrong}", { wrong: wrong.join(", ") });
        this.#tables.forget();
        this.#direct.distrust();
        await this.#apply(netlink);
        this.#bringAllUp(netlink);
        this.#lastRepair = { at: new Date().toISOString(), wrong };
        log.warn("repaired: {wrong}", { wrong: wrong.join(", ") });
      } else if (this.#havePortsChanged(netlink)) {
        await this.#applyPorts(netlink);
      }
      return wrong;
    });
  }

  /** Bridges that are to be there, the default network's first. */
  #bridgeNames(): readonly string[] {
    return [...new Set([this.name, ...this.#segments.keys()])];
  }

  /** Of what is covered. */
  #bringAllUp(netlink: RouteNetlink): void {
    for (const name of this.#bridgeNames()) {
      bringUp(netlink, name, this.#segments.get(name) ?? null);
    }
    plugIn(netlink, this.#pins ?? []);
  }

  #discover(netlink: RouteNetlink): Segment[] {
    const addresses = netlink.addresses();
    const bridges = netlink.links().filter((link) =>
      link.kind === "bridge" && isManagedName(this.name, link.name)
    );
    return bridges.flatMap((link) => {
      for (const { linkIndex, address, prefixLength } of addresses) {
        const ip = Ip.parse(address);
        if (linkIndex !== link.index || ip === null) continue;
        const subnet = Cidr.containing(ip, prefixLength);
        if (!subnet.within(this.#block)) continue;
        return [{
          network: this.#segments.get(link.name)?.network ?? link.name,
          bridge: link.name,
          subnet: subnet.toString(),
          gateway: address,
        }];
      }
      return [];
    });
  }

  /**
   * Every bridge in the kernel that must not be without cover: those of our naming, and those that
   * the table covers now, which may have got their names from an earlier `--bridge`.
   */
  async #coveredLinks(netlink: RouteNetlink): Promise<Link[]> {
    const covered = new Set(coveredBridges(await this.#listAwake() ?? []));
    return netlink.links().filter((link) =>
      link.kind === "bridge" &&
      (covered.has(link.name) || this.#segments.has(link.name) ||
        this.#memory.has(link.name) || isManagedName(this.name, link.name))
    );
  }

  /** The table's listing. A dormant one, which nft may fail to list, is put back to work for it. */
  async #listAwake(): Promise<readonly unknown[] | null> {
    const { family, name } = FIREWALL_TABLE;
    try {
      return await listTable(family, name);
    } catch (error) {
      log.warn("the table cannot be read: {reason}", { reason: messageOf(error) });
      await applyRuleset(`table ${family} ${name}\n`); // clears its flags
      return await listTable(family, name);
    }
  }

  async #apply(netlink: RouteNetlink): Promise<void> {
    const known = [this.name, ...this.#segments.keys()];
    // Covering an ordinary interface would cut the host itself off.
    const others = netlink.links().filter(({ kind }) => kind !== "bridge");
    for (const link of others) if (known.includes(link.name)) throw notABridge(link);
    const byName = [this.name, DEFAULT_BRIDGE].flatMap((name) => firstNames(name, RESERVED_NAMES));
    const reserved = [...byName, ...this.#memory.names]
      .filter((name) => !others.some((link) => link.name === name));
    const covered = (await this.#coveredLinks(netlink)).map((link) => link.name);
    const extraBridges = [...new Set([...reserved, ...covered])]
      .filter((name) => !this.#segments.has(name));
    this.#covered = [...new Set([...known, ...covered])];
    this.#memory.add(this.#covered);
    this.#pins ??= await this.#adoptPins(netlink);
    const ports = this.#isolatePorts(netlink);
    const firewall = firewallTable({
      listening: this.#listening,
      segments: this.segments(),
      extraBridges,
      granted: this.#grants.elements(),
      dnsPort: this.#options.dnsPort,
      proxyPort: this.#options.proxyPort,
    });
    const { family, name } = FIREWALL_TABLE;
    const isUntouched = this.#direct.isInSync && this.#tables.isUntouched();
    await this.#tables.apply([firewall, this.#portTable(ports)], (isReplaced) => {
      const opened = this.#grants.renderOpen(family, name, Date.now());
      return isUntouched && !isReplaced ? opened : opened + this.#direct.render();
    });
    this.#direct.trust();
    this.#appliedPorts = portsKey(ports, this.#pins);
    log.info("rules applied: bridges {bridges}, services at {gateways}", {
      bridges: this.#covered,
      gateways: [...new Set([...this.#listening.dns, ...this.#listening.proxy])],
    });
  }

  /** Isolates and pins the ports of now; returns them. */
  #isolatePorts(netlink: RouteNetlink): readonly Link[] {
    const { ports, pins, refused } = this.#lookAtPorts(netlink);
    this.#reportRefused(refused);
    const isolated = new Set(
      ports.filter((port) => isolate(netlink, port)).map(({ index }) => index),
    );
    const plugged = new Set(ports.map(({ index }) => index));
    const before = this.#pins ?? [];
    this.#pins = pins.filter(({ index }) => isolated.has(index) || !plugged.has(index));
    // By port, not by address: who gets an old address inherits nothing.
    const kept = new Set(this.#pins.map(({ index }) => index));
    const gone = before.filter(({ index }) => !kept.has(index)).map(({ address }) => address);
    const known = new Set(before.map(({ index }) => index));
    if (this.#pins.some(({ index }) => !known.has(index))) {
      for (const listener of this.#newPinListeners) listener();
    }
    const ended = this.#grants.dropAgents(gone);
    if (ended.length > 0) this.#onGrantsEnded(ended);
    this.#direct.dropAgents(gone);
    return ports;
  }

  #portTable(ports: readonly Link[]): NftTable {
    return portTable({
      ports: ports.map(({ name }) => name),
      pins: this.#pins ?? [],
      subnets: this.segments().map(({ subnet }) => subnet),
      gateways: this.segments().map(({ gateway }) => gateway),
    });
  }

  /** Brings the ports' table alone up to date: an agent that starts waits for it. */
  async #applyPorts(netlink: RouteNetlink): Promise<void> {
    const granted = this.#grants.elements().length;
    const ports = this.#isolatePorts(netlink);
    // With an agent its grants end, which are in the other table.
    const haveGrantsEnded = this.#grants.elements().length < granted || !this.#direct.isInSync;
    if (!this.#tables.areApplied || haveGrantsEnded) return await this.#apply(netlink);
    await this.#tables.apply([this.#portTable(ports)]);
    this.#appliedPorts = portsKey(ports, this.#pins ?? []);
    log.info("{count} agents' ports are pinned", { count: this.#pins?.length ?? 0 });
  }

  /** The ports of all covered bridges, and the pins that follow from what is seen there now. */
  #lookAtPorts(netlink: RouteNetlink): PortLook {
    const links = netlink.links();
    const bridges = new Map(
      links.filter(({ name }) => this.#covered.includes(name)).map((link) => [link.index, link]),
    );
    // A name that nft would not take literally gets no pin, so the port stays cut off.
    const ports = links.filter(({ name, master }) =>
      master !== null && bridges.has(master) && isInterfaceName(name)
    );
    const kept = (this.#pins ?? []).filter((pin) => {
      const link = links.find(({ index }) => index === pin.index);
      // One whose bridge was removed comes back to it.
      return link?.name === pin.port && (link.master === null || bridges.has(link.master));
    });
    const pinned = new Set(kept.map(({ index }) => index));
    const views = ports.map(({ name: port, index, master, peer }): PortView => {
      const bridge = bridges.get(master ?? 0);
      const other = pinned.has(index) || peer === null ? null : netlink.peer(peer);
      return {
        port,
        index,
        segment: this.#segments.get(bridge?.name ?? "") ?? null,
        bridgeMac: bridge?.mac ?? null,
        agent: other === null ? null : { mac: other.link.mac, addresses: other.addresses },
      };
    });
    return { ports, ...pinPorts(kept, views) };
  }

  #havePortsChanged(netlink: RouteNetlink): boolean {
    const { ports, pins, refused } = this.#lookAtPorts(netlink);
    this.#reportRefused(refused);
    return portsKey(ports, pins) !== this.#appliedPorts;
  }

  /**
   * The pins of an earlier run whose ports are still there: an agent may have changed its interface
   * since, so what it looks like now counts for nothing.
   */
  async #adoptPins(netlink: RouteNetlink): Promise<readonly Pin[]> {
    const listing = await listTable(PORT_TABLE.family, PORT_TABLE.name);
    const links = netlink.links();
    return listedPins(listing ?? []).flatMap((pin) => {
      const link = links.find(({ name }) => name === pin.port);
      const bridge = links.find(({ index }) => index === link?.master);
      return link === undefined || bridge === undefined
        ? []
        : [{ ...pin, index: link.index, bridge: bridge.name }];
    });
  }

  #reportRefused(refused: PortLook["refused"]): void {
    const reasons = new Map(refused.map(({ port, reason }) => [port, reason]));
    for (const [port, reason] of reasons) {
      if (this.#refused.get(port) !== reason) {
        log.error("port {port} stays cut off: {reason}", { port, reason });
      }
    }
    this.#refused = reasons;
  }

  async #isApplied(): Promise<boolean> {
    try {
      return await this.#tables.areInForce();
    } catch (error) {
      if (!(error instanceof OutcallError || error instanceof SystemError)) throw error;
      log.warn("the tables cannot be read: {reason}", { reason: error.message });
      return false;
    }
  }
}
