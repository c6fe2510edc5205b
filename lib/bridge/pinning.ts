/** Looks at the ports of covered bridges, and keeps each pinned (ports.ts) for as long as it is there. */
import { listTable } from "../linux/nft.ts";
import type { Link, RouteNetlink } from "../linux/rtnetlink.ts";
import { logger } from "../log.ts";
import type { Coverage } from "./coverage.ts";
import { isolate } from "./links.ts";
import { isInterfaceName } from "./names.ts";
import { listedPins, PORT_TABLE } from "./port_table.ts";
import { type Pin, pinPorts, type Pins, type PortView } from "./ports.ts";
import type { Segment } from "./segment.ts";

const log = logger("bridge");

/** What a look at the ports showed. */
interface PortLook extends Pins {
  readonly ports: readonly Link[];
}

/** What became of the ports. */
export interface PinnedPorts {
  /** All ports of covered bridges. */
  readonly ports: readonly Link[];
  /** Addresses of agents whose ports are gone. */
  readonly gone: readonly string[];
}

/** One text for all looks from which the same tables follow. */
function portsKey(ports: readonly Link[], pins: readonly Pin[]): string {
  return JSON.stringify([ports.map(({ name, index }) => [name, index]), pins]);
}

/** The pins of this host. */
export class Pinning {
  readonly #coverage: Coverage;
  readonly #segments: ReadonlyMap<string, Segment>;
  /** Null until those of an earlier run were looked for in the kernel. */
  #pins: readonly Pin[] | null = null;
  /** The ports and pins that the tables hold. */
  #applied = "";
  /** Ports without a pin and why, to say it once. */
  #refused: ReadonlyMap<string, string> = new Map();
  readonly #newPinListeners: (() => void)[] = [];

  /** @param segments The known networks by their bridges' names; whoever calls keeps them current. */
  constructor(coverage: Coverage, segments: ReadonlyMap<string, Segment>) {
    this.#coverage = coverage;
    this.#segments = segments;
  }

  /** Which port may speak as whom. */
  get pins(): readonly Pin[] {
    return this.#pins ?? [];
  }

  /** Addresses of the agents whose ports are pinned. */
  get agentAddresses(): readonly string[] {
    return this.pins.map(({ address }) => address);
  }

  /** Calls `listener` when ports are pinned that were not before. */
  onNewPins(listener: () => void): void {
    this.#newPinListeners.push(listener);
  }

  /**
   * Takes over the pins of an earlier run whose ports are still there: an agent may have changed its
   * interface since, so what it looks like now counts for nothing. Does so once.
   * @throws OutcallError those of nft.
   */
  async adopt(netlink: RouteNetlink): Promise<void> {
    if (this.#pins !== null) return;
    const listing = await listTable(PORT_TABLE.family, PORT_TABLE.name);
    const links = netlink.links();
    this.#pins = listedPins(listing ?? []).flatMap((pin) => {
      const link = links.find(({ name }) => name === pin.port);
      const bridge = links.find(({ index }) => index === link?.master);
      return link === undefined || bridge === undefined
        ? []
        : [{ ...pin, index: link.index, bridge: bridge.name }];
    });
  }

  /** Isolates and pins the ports of now. The tables are to follow, and then {@linkcode applied}. */
  update(netlink: RouteNetlink): PinnedPorts {
    const { ports, pins, refused } = this.#look(netlink);
    this.#reportRefused(refused);
    const isolated = new Set(
      ports.filter((port) => isolate(netlink, port)).map(({ index }) => index),
    );
    const plugged = new Set(ports.map(({ index }) => index));
    const before = this.pins;
    this.#pins = pins.filter(({ index }) => isolated.has(index) || !plugged.has(index));
    // By port, not by address: who gets an old address inherits nothing.
    const kept = new Set(this.#pins.map(({ index }) => index));
    const gone = before.filter(({ index }) => !kept.has(index)).map(({ address }) => address);
    const known = new Set(before.map(({ index }) => index));
    if (this.#pins.some(({ index }) => !known.has(index))) {
      for (const listener of this.#newPinListeners) listener();
    }
    return { ports, gone };
  }

  /** The tables hold these ports and the pins of now. */
  applied(ports: readonly Link[]): void {
    this.#applied = portsKey(ports, this.pins);
  }

  /** Whether the tables are behind what is seen now. */
  haveChanged(netlink: RouteNetlink): boolean {
    const { ports, pins, refused } = this.#look(netlink);
    this.#reportRefused(refused);
    return portsKey(ports, pins) !== this.#applied;
  }

  /** The ports of all covered bridges, and the pins that follow from what is seen there now. */
  #look(netlink: RouteNetlink): PortLook {
    const links = netlink.links();
    const bridges = new Map(
      links.filter(({ name }) => this.#coverage.covered.includes(name))
        .map((link) => [link.index, link]),
    );
    // A name that nft would not take literally gets no pin, so the port stays cut off.
    const ports = links.filter(({ name, master }) =>
      master !== null && bridges.has(master) && isInterfaceName(name)
    );
    const kept = this.pins.filter((pin) => {
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

  #reportRefused(refused: PortLook["refused"]): void {
    const reasons = new Map(refused.map(({ port, reason }) => [port, reason]));
    for (const [port, reason] of reasons) {
      if (this.#refused.get(port) !== reason) {
        log.error("port {port} stays cut off: {reason}", { port, reason });
      }
    }
    this.#refused = reasons;
  }
}
