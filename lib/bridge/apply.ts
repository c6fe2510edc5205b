/** Puts tables into the kernel, makes sure that they are there, and knows whether they still are. */
import { OutcallError } from "../errors.ts";
import { applyRuleset, fingerprint, listTable } from "../linux/nft.ts";
import { Nftables, type SetChange } from "../linux/nftables.ts";
import { logger } from "../log.ts";
import { differences, type NftTable, renderReplacement, renderUpdate } from "./table.ts";

const log = logger("bridge");

/** Statements that fill sets which a table leaves to others; those of replaced tables are empty. */
export type Fill = (isReplaced: boolean) => string;

type TableName = Pick<NftTable, "family" | "name">;

function keyOf({ family, name }: TableName): string {
  return `${family} ${name}`;
}

/** The next generation; the kernel leaves out 0 (nf_tables_commit). */
function next(generation: number): number {
  return generation === 0xffff_ffff ? 1 : generation + 1;
}

/** The tables of ours that the kernel holds. */
export class AppliedTables {
  readonly #names: readonly TableName[];
  /** What the kernel showed of each right after the last change of ours. */
  readonly #fingerprints = new Map<string, string>();
  /**
   * The kernel's generation at which they were seen to be so. As long as it stays nobody has changed
   * any ruleset, and nothing need be listed and compared.
   */
  #generation: number | null = null;
  readonly #kernel = new Nftables();

  /** @param names All of them. */
  constructor(names: readonly TableName[]) {
    this.#names = names;
  }

  /** Whether all were applied, by what is known here. */
  get areApplied(): boolean {
    return this.#names.every((name) => this.#fingerprints.has(keyOf(name)));
  }

  /** They are to be applied again. */
  forget(): void {
    this.#fingerprints.clear();
    this.#generation = null;
  }

  /**
   * Applies `tables` in one transaction and reads them back: in place, and by replacing them where
   * that is not enough, because somebody else has given one another shape. When it fails, none is
   * known to be applied.
   * @throws OutcallError those of nft, and `bridge.not_applied` when the kernel shows something else
   * than what was rendered.
   */
  async apply(tables: readonly NftTable[], fill: Fill = () => ""): Promise<void> {
    const others = new Map(this.#fingerprints);
    this.forget();
    const { generation, listed } = await applyTables(this.#kernel, tables, fill);
    for (const [key, print] of [...others, ...listed]) this.#fingerprints.set(key, print);
    // What others did to tables that were not read back just now shows when all are looked at.
    if (tables.length === this.#names.length) this.#generation = generation;
  }

  /** Nobody has changed any ruleset since the tables were last seen. @throws SystemError */
  isUntouched(): boolean {
    return this.#generation !== null && this.#generation === this.#kernel.generation();
  }

  /**
   * Changes elements of sets whose elements the tables leave to others, as one transaction.
   * @throws SystemError
   */
  changeElements(table: string, changes: readonly SetChange[]): void {
    const before = this.#kernel.generation();
    this.#kernel.changeElements(table, changes);
    const after = this.#kernel.generation();
    // Otherwise there was a transaction of somebody else's in between.
    if (this.#generation === before && after === next(before)) this.#generation = after;
  }

  /** Whether the kernel still holds them as they were. @throws OutcallError those of nft. */
  async areInForce(): Promise<boolean> {
    if (!this.areApplied) return false;
    const generation = this.#kernel.generation();
    if (generation === this.#generation) return true;
    const listings = await Promise.all(
      this.#names.map(async (name) => ({
        key: keyOf(name),
        listing: await listTable(name.family, name.name),
      })),
    );
    const areSame = listings.every(({ key, listing }) =>
      listing !== null && fingerprint(listing) === this.#fingerprints.get(key)
    );
    this.#generation = areSame ? generation : null;
    return areSame;
  }
}

/** What the kernel shows after a transaction of ours. */
interface Shown {
  /** Of a moment after the transaction and before the listing. */
  readonly generation: number;
  readonly listed: readonly (readonly [key: string, fingerprint: string])[];
}

async function applyTables(
  kernel: Nftables,
  tables: readonly NftTable[],
  fill: Fill,
): Promise<Shown> {
  try {
    return await applyAndRead(kernel, tables, renderUpdate, fill(false));
  } catch (error) {
    const isRefused = error instanceof OutcallError &&
      (error.code === "bridge.nftables" || error.code === "bridge.not_applied");
    if (!isRefused) throw error;
    log.warn("the tables cannot be updated in place, and are replaced: {reason}", {
      reason: error.message,
    });
    return await applyAndRead(kernel, tables, renderReplacement, fill(true));
  }
}

async function applyAndRead(
  kernel: Nftables,
  tables: readonly NftTable[],
  render: (table: NftTable) => string,
  filling: string,
): Promise<Shown> {
  await applyRuleset([...tables.map(render), filling].join("\n"));
  const generation = kernel.generation();
  const found: string[] = [];
  const listed = await Promise.all(tables.map(async (table) => {
    const { family, name } = table;
    const listing = await listTable(family, name);
    const wrong = listing === null ? ["it is not there"] : differences(table, listing);
    found.push(...wrong.map((difference) => `table ${keyOf(table)}: ${difference}`));
    return [keyOf(table), fingerprint(listing ?? [])] as const;
  }));
  if (found.length === 0) return { generation, listed };
  throw new OutcallError(
    500,
    "bridge.not_applied",
    `the firewall is not as applied: ${found.join(", ")}`,
    { hint: "look for another program that changes nftables: nft monitor" },
  );
}
