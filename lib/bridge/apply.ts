/** Puts a table into the kernel, and makes sure that it is there. */
import { OutcallError } from "../errors.ts";
import { applyRuleset, fingerprint, listTable } from "../linux/nft.ts";
import { logger } from "../log.ts";
import { differences, type NftTable, renderReplacement, renderUpdate } from "./table.ts";

const log = logger("bridge");

/**
 * Applies `tables` in one transaction and reads them back: in place, and by replacing them where
 * that is not enough, because somebody else has given one another shape.
 * @param more Statements of the same transaction that fill sets which the tables leave to others.
 * @returns the fingerprint of what the kernel lists now, for each table.
 * @throws OutcallError those of nft, and `bridge.not_applied` when the kernel shows something else
 * than what was rendered.
 */
export async function applyTables(
  tables: readonly NftTable[],
  more = "",
): Promise<readonly string[]> {
  try {
    return await applyAndRead(tables, renderUpdate, more);
  } catch (error) {
    const isRefused = error instanceof OutcallError &&
      (error.code === "bridge.nftables" || error.code === "bridge.not_applied");
    if (!isRefused) throw error;
    log.warn("the tables cannot be updated in place, and are replaced: {reason}", {
      reason: error.message,
    });
    return await applyAndRead(tables, renderReplacement, more);
  }
}

async function applyAndRead(
  tables: readonly NftTable[],
  render: (table: NftTable) => string,
  more: string,
): Promise<readonly string[]> {
  await applyRuleset([...tables.map(render), more].join("\n"));
  const found: string[] = [];
  const prints = await Promise.all(tables.map(async (table) => {
    const { family, name } = table;
    const listing = await listTable(family, name);
    const wrong = listing === null ? ["it is not there"] : differences(table, listing);
    found.push(...wrong.map((difference) => `table ${family} ${name}: ${difference}`));
    return fingerprint(listing ?? []);
  }));
  if (found.length === 0) return prints;
  throw new OutcallError(
    500,
    "bridge.not_applied",
    `the firewall is not as applied: ${found.join(", ")}`,
    { hint: "look for another program that changes nftables: nft monitor" },
  );
}

/** Whether the kernel lists for each of `tables` what has that fingerprint. */
export async function areListed(
  tables: readonly Pick<NftTable, "family" | "name">[],
  fingerprints: readonly string[],
): Promise<boolean> {
  const listings = await Promise.all(tables.map(({ family, name }) => listTable(family, name)));
  return listings.every((listing, i) =>
    listing !== null && fingerprint(listing) === fingerprints[i]
  );
}
