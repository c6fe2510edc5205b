/**
 * The firewall in the kernel: both tables follow from what is known here, and this puts them there.
 * Whoever calls sees to it that one thing happens at a time.
 */
import { messageOf, OutcallError } from "../errors.ts";
import { SystemError } from "../linux/libc.ts";
import { deleteTable } from "../linux/nft.ts";
import type { Link, RouteNetlink } from "../linux/rtnetlink.ts";
import { logger } from "../log.ts";
import { AppliedTables } from "./apply.ts";
import { Coverage } from "./coverage.ts";
import { FIREWALL_TABLE, firewallTable } from "./firewall.ts";
import { Grants } from "./grants.ts";
import type { BridgeMemory } from "./memory.ts";
import { DirectOpener } from "./opener.ts";
import { Pinning } from "./pinning.ts";
import { PORT_TABLE, portTable } from "./port_table.ts";
import { type Listening, NOTHING_LISTENS, type Segment } from "./segment.ts";
import type { NftTable } from "./table.ts";

const log = logger("bridge");

/** Both tables of the firewall. */
const TABLES = [FIREWALL_TABLE, PORT_TABLE];

/** Settings of {@linkcode KernelFirewall}. */
export interface KernelFirewallOptions {
  /** The default network's bridge. */
  readonly defaultBridge: string;
  /** The DNS filter's port on every gateway. */
  readonly dnsPort: number;
  /** The proxy's port on every gateway; null without a proxy. */
  readonly proxyPort: number | null;
  readonly memory: BridgeMemory;
}

/** What the kernel's tables are made of. */
export class KernelFirewall {
  readonly #options: KernelFirewallOptions;
  readonly #tables = new AppliedTables(TABLES);
  /** The known networks by their bridges' names. */
  readonly segments = new Map<string, Segment>();
  /** Where services are open to agents. */
  listening: Listening = NOTHING_LISTENS;
  /** What operators have opened. */
  readonly grants = new Grants();
  /** What DNS answers have opened. */
  readonly direct = new DirectOpener(this.#tables);
  readonly coverage: Coverage;
  readonly pinning: Pinning;
  #onGrantsEnded: (ids: readonly string[]) => void = () => {};

  constructor(options: KernelFirewallOptions) {
    this.#options = options;
    this.coverage = new Coverage(options.defaultBridge, this.segments, options.memory);
    this.pinning = new Pinning(this.coverage, this.segments);
  }

  /** Whether both tables were applied, by what is known here. */
  get areApplied(): boolean {
    return this.#tables.areApplied;
  }

  /** Has `listener` called with the ids of grants that ended with their agents. It must not throw. */
  onGrantsEnded(listener: (ids: readonly string[]) => void): void {
    this.#onGrantsEnded = listener;
  }

  /** The kernel may hold something else: the tables are to be applied again. */
  forget(): void {
    this.#tables.forget();
  }

  /** Whether the kernel holds the tables as they were applied. */
  async isApplied(): Promise<boolean> {
    try {
      return await this.#tables.areInForce();
    } catch (error) {
      if (!(error instanceof OutcallError || error instanceof SystemError)) throw error;
      log.warn("the tables cannot be read: {reason}", { reason: error.message });
      return false;
    }
  }

  /**
   * Renders both tables from what is known now, the ports looked at afresh, and replaces the kernel's.
   * @throws OutcallError `bridge.not_a_bridge`, `bridge.not_applied`, and those of nft.
   */
  async apply(netlink: RouteNetlink): Promise<void> {
    const extraBridges = await this.coverage.extend(netlink);
    await this.pinning.adopt(netlink);
    const ports = this.#pinPorts(netlink);
    const firewall = firewallTable({
      listening: this.listening,
      segments: [...this.segments.values()],
      extraBridges,
      granted: this.grants.elements(),
      dnsPort: this.#options.dnsPort,
      proxyPort: this.#options.proxyPort,
    });
    const { family, name } = FIREWALL_TABLE;
    const isUntouched = this.direct.isInSync && this.#tables.isUntouched();
    await this.#tables.apply([firewall, this.#portTable(ports)], (isReplaced) => {
      const opened = this.grants.renderOpen(family, name, Date.now());
      return isUntouched && !isReplaced ? opened : opened + this.direct.render();
    });
    this.direct.trust();
    this.pinning.applied(ports);
    log.info("rules applied: bridges {bridges}, services at {gateways}", {
      bridges: this.coverage.covered,
      gateways: [...new Set([...this.listening.dns, ...this.listening.proxy])],
    });
  }

  /** Brings the ports' table alone up to date: an agent that starts waits for it. */
  async applyPorts(netlink: RouteNetlink): Promise<void> {
    const granted = this.grants.elements().length;
    const ports = this.#pinPorts(netlink);
    // With an agent its grants end, which are in the other table.
    const haveGrantsEnded = this.grants.elements().length < granted || !this.direct.isInSync;
    if (!this.areApplied || haveGrantsEnded) return await this.apply(netlink);
    await this.#tables.apply([this.#portTable(ports)]);
    this.pinning.applied(ports);
    log.info("{count} agents' ports are pinned", { count: this.pinning.pins.length });
  }

  /** Takes all grants away, for the next {@linkcode apply}; returns how many were in force. */
  revokeAll(): number {
    const count = this.grants.flush(Date.now()) + this.direct.list().length;
    this.direct.revoke(this.direct.all());
    return count;
  }

  /** Deletes both tables, as far as the kernel obeys. */
  async remove(): Promise<void> {
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
    this.forget();
  }

  #pinPorts(netlink: RouteNetlink): readonly Link[] {
    const { ports, gone } = this.pinning.update(netlink);
    const ended = this.grants.dropAgents(gone);
    if (ended.length > 0) this.#onGrantsEnded(ended);
    this.direct.dropAgents(gone);
    return ports;
  }

  #portTable(ports: readonly Link[]): NftTable {
    const segments = [...this.segments.values()];
    return portTable({
      ports: ports.map(({ name }) => name),
      pins: this.pinning.pins,
      subnets: segments.map(({ subnet }) => subnet),
      gateways: segments.map(({ gateway }) => gateway),
    });
  }
}
