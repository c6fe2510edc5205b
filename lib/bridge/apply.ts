/** Puts a table into the kernel, and makes sure that it is there. */
import { OutcallError } from "../errors.ts";
import { applyRuleset, fingerprint, listTable } from "../linux/nft.ts";
import { logger } from "../log.ts";
import { differences, type NftTable, renderReplacement, renderUpdate } from "./table.ts";

const log = logger("bridge");

/**
 * Applies `table` and reads it back: in place, and by replacing it where that is not enough, because
 * somebody else has given it another shape.
 * @returns the fingerprint of what the kernel lists now.
 * @throws OutcallError those of nft, and `bridge.not_applied` when the kernel shows something else
 * than what was rendered.
 */
export async function applyTable(table: NftTable): Promise<string> {
  try {
    return await applyAndRead(table, renderUpdate(table));
  } catch (error) {
    const isRefused = error instanceof OutcallError &&
      (error.code === "bridge.nftables" || error.code === "bridge.not_applied");
    if (!isRefused) throw error;
    log.warn("the table cannot be updated in place, and is replaced: {reason}", {
      reason: error.message,
    });
    return await applyAndRead(table, renderReplacement(table));
  }
}

async function applyAndRead(table: NftTable, ruleset: string): Promise<string> {
  await applyRuleset(ruleset);
  const listing = await listTable(table.family, table.name);
  const found = listing === null ? ["it is not there"] : differences(table, listing);
  if (listing !== null && found.length === 0) return fingerprint(listing);
  throw new OutcallError(
    500,
    "bridge.not_applied",
    `table ${table.family} ${table.name} is not as applied: ${found.join(", ")}`,
    { hint: "look for another program that changes nftables: nft monitor" },
  );
}
