/** What the kernel has counted, exactly, of the packets that the firewall dropped. */
import { z } from "zod";
import { listTable } from "../../linux/nft.ts";
import { FIREWALL_TABLE } from "../firewall.ts";
import { PORT_TABLE } from "../port_table.ts";

/** One rule that drops. */
export interface FirewallCounter {
  /** Family of the table: `inet`, or `bridge` for what ports are pinned by. */
  readonly table: string;
  /** The rule's comment. */
  readonly rule: string;
  /** Since the rules were applied last. */
  readonly packets: number;
}

/** Two readers of the same moment cost as much as one. */
const FRESH_MS = 1_000;

const countedRule = z.object({
  rule: z.object({
    comment: z.string(),
    expr: z.array(z.record(z.string(), z.unknown())),
  }),
});
const counterPart = z.object({ counter: z.object({ packets: z.number() }) });

/** The rules of a listing that count packets and drop them, or send them to where they are dropped. */
function dropCounters(table: string, listing: readonly unknown[]): FirewallCounter[] {
  return listing.flatMap((object) => {
    const rule = countedRule.safeParse(object).data?.rule;
    const last = rule?.expr.at(-1) ?? {};
    if (rule === undefined || !("drop" in last || "goto" in last)) return [];
    const counter = rule.expr.map((part) => counterPart.safeParse(part).data?.counter)
      .find((part) => part !== undefined);
    return counter === undefined ? [] : [{ table, rule: rule.comment, packets: counter.packets }];
  });
}

/** Reads the counters from the kernel, at most once a second. */
export class FirewallCounters {
  #reading: Promise<readonly FirewallCounter[]> | null = null;

  /** @throws OutcallError those of nft. */
  read(): Promise<readonly FirewallCounter[]> {
    if (this.#reading === null) {
      this.#reading = readAll();
      const forget = (): void => void (this.#reading = null);
      const timer = setTimeout(forget, FRESH_MS);
      Deno.unrefTimer(timer);
    }
    return this.#reading;
  }
}

async function readAll(): Promise<readonly FirewallCounter[]> {
  const listings = await Promise.all(
    [FIREWALL_TABLE, PORT_TABLE].map(async ({ family, name }) =>
      dropCounters(family, await listTable(family, name) ?? [])
    ),
  );
  return listings.flat();
}
