/** Counts client connections, so that no agent can starve another one or the host. */

/** Why no connection more is taken. */
export type Full = "all" | "agent";

/**
 * The last eighth of all places is for agents that have fewer connections than this, so that a few
 * greedy agents cannot lock the others out.
 */
const FEW_CONNECTIONS = 32;
const RESERVED_SHARE = 1 / 8;

/** The client connections that are open. */
export class ClientCount {
  readonly #byAddress = new Map<string, number>();
  #total = 0;
  readonly #reserved: number;

  constructor(readonly maxTotal: number, readonly maxPerAddress: number) {
    this.#reserved = Math.floor(maxTotal * RESERVED_SHARE);
  }

  /** How many are open. */
  get total(): number {
    return this.#total;
  }

  /** Counts one in, or says which limit is reached. */
  enter(address: string): Full | null {
    const count = this.#byAddress.get(address) ?? 0;
    if (count >= this.maxPerAddress) return "agent";
    const reserved = count < FEW_CONNECTIONS ? 0 : this.#reserved;
    if (this.#total >= this.maxTotal - reserved) return "all";
    this.#byAddress.set(address, count + 1);
    this.#total++;
    return null;
  }

  /** Counts one out that was counted in. */
  leave(address: string): void {
    const count = this.#byAddress.get(address) ?? 0;
    if (count > 1) this.#byAddress.set(address, count - 1);
    else this.#byAddress.delete(address);
    this.#total--;
  }
}
