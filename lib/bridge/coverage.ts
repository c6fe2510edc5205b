/** Which bridges the tables cover: those of known networks, and whatever else may be or become one. */
import { messageOf } from "../errors.ts";
import { applyRuleset, listTable } from "../linux/nft.ts";
import type { Link, RouteNetlink } from "../linux/rtnetlink.ts";
import { logger } from "../log.ts";
import { coveredBridges, FIREWALL_TABLE } from "./firewall.ts";
import { notABridge } from "./links.ts";
import type { BridgeMemory } from "./memory.ts";
import { DEFAULT_BRIDGE, firstNames, isManagedName } from "./names.ts";
import type { Segment } from "./segment.ts";

const log = logger("bridge");

/**
 * Names that are covered whether or not there is such a bridge: after a boot Docker makes its bridges
 * anew and starts containers on them before it answers anybody, us included. As many as there are
 * networks in the default block; those by the default name too, which are left from runs without
 * `--bridge`.
 */
const RESERVED_NAMES = 256;

/** The names that the tables cover. */
export class Coverage {
  readonly #defaultBridge: string;
  readonly #segments: ReadonlyMap<string, Segment>;
  readonly #memory: BridgeMemory;
  #covered: readonly string[] = [];

  /** @param segments The known networks by their bridges' names; whoever calls keeps them current. */
  constructor(
    defaultBridge: string,
    segments: ReadonlyMap<string, Segment>,
    memory: BridgeMemory,
  ) {
    this.#defaultBridge = defaultBridge;
    this.#segments = segments;
    this.#memory = memory;
  }

  /** Bridges that were there at the last {@linkcode extend}, or are to be. */
  get covered(): readonly string[] {
    return this.#covered;
  }

  /** Bridges that are to be there, the default network's first. */
  get wanted(): readonly string[] {
    return [...new Set([this.#defaultBridge, ...this.#segments.keys()])];
  }

  /**
   * Covers what is to be there, what the kernel has and what may come back, for good.
   * @returns the names without a known network, for the table.
   * @throws OutcallError `bridge.not_a_bridge`; those of nft.
   */
  async extend(netlink: RouteNetlink): Promise<readonly string[]> {
    const { wanted } = this;
    // Covering an ordinary interface would cut the host itself off.
    const others = netlink.links().filter(({ kind }) => kind !== "bridge");
    for (const link of others) if (wanted.includes(link.name)) throw notABridge(link);
    const byName = [this.#defaultBridge, DEFAULT_BRIDGE]
      .flatMap((name) => firstNames(name, RESERVED_NAMES));
    const reserved = [...byName, ...this.#memory.names]
      .filter((name) => !others.some((link) => link.name === name));
    const present = (await this.links(netlink)).map((link) => link.name);
    this.#covered = [...new Set([...wanted, ...present])];
    this.#memory.add(this.#covered);
    return [...new Set([...reserved, ...present])].filter((name) => !this.#segments.has(name));
  }

  /**
   * Every bridge in the kernel that must not be without cover: those of our naming, and those that
   * the table covers now, which may have got their names from an earlier `--bridge`.
   * @throws OutcallError those of nft.
   */
  async links(netlink: RouteNetlink): Promise<Link[]> {
    const listed = new Set(coveredBridges(await listAwake() ?? []));
    return netlink.links().filter((link) =>
      link.kind === "bridge" &&
      (listed.has(link.name) || this.#segments.has(link.name) ||
        this.#memory.has(link.name) || isManagedName(this.#defaultBridge, link.name))
    );
  }
}

/** The table's listing. A dormant one, which nft may fail to list, is put back to work for it. */
async function listAwake(): Promise<readonly unknown[] | null> {
  const { family, name } = FIREWALL_TABLE;
  try {
    return await listTable(family, name);
  } catch (error) {
    log.warn("the table cannot be read: {reason}", { reason: messageOf(error) });
    await applyRuleset(`table ${family} ${name}\n`); // clears its flags
    return await listTable(family, name);
  }
}
