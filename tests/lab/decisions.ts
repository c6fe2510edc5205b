/** What the product says of its decisions: the records of its layers, the counters of the kernel. */
import { z } from "zod";
import type { Lab } from "./lab.ts";

const decisionSchema = z.object({
  id: z.string(),
  layer: z.string(),
  agent: z.object({ name: z.string(), network: z.string() }).nullable(),
  source: z.string(),
  attempt: z.object({
    host: z.string().optional(),
    address: z.string().optional(),
    port: z.number().optional(),
    method: z.string().optional(),
    path: z.string().optional(),
    recordType: z.string().optional(),
    protocol: z.string().optional(),
    claimedSource: z.string().optional(),
  }),
  verdict: z.enum(["allow", "block"]),
  reason: z.string(),
  rule: z.object({ id: z.string(), file: z.string(), line: z.number() }).nullable(),
  count: z.number().optional(),
  targets: z.object({ distinct: z.number(), first: z.array(z.string()) }).optional(),
});

/** One decision as the host API sends it. */
export type RecordedDecision = z.infer<typeof decisionSchema>;

const decisionsReply = z.object({ ok: z.literal(true), decisions: z.array(decisionSchema) });

/** The newest decisions (at most 1000), oldest first. */
export async function recordedDecisions(lab: Lab): Promise<RecordedDecision[]> {
  const { body } = await lab.api("GET", "/api/v1/decisions?limit=1000");
  return decisionsReply.parse(body).decisions;
}

const tableListing = z.object({
  nftables: z.array(z.object({
    rule: z.object({
      comment: z.string().optional(),
      expr: z.array(z.looseObject({ counter: z.object({ packets: z.number() }).optional() })),
    }).optional(),
  })),
});

/** Packets dropped by each rule of the product's table, by the rule's comment. */
async function kernelDrops(lab: Lab): Promise<Map<string, number>> {
  const json = await lab.host.must(["nft", "-j", "list", "table", "inet", "outcall"]);
  const drops = new Map<string, number>();
  for (const { rule } of tableListing.parse(JSON.parse(json)).nftables) {
    const counter = rule?.expr.find((part) => part.counter !== undefined)?.counter;
    if (counter !== undefined) drops.set(rule?.comment ?? "unnamed rule", counter.packets);
  }
  return drops;
}

/** What was decided since {@linkcode DecisionWatch.start}. */
export interface Decided {
  readonly records: readonly RecordedDecision[];
  /** Comments of the kernel's rules that dropped something. */
  readonly drops: readonly string[];
}

/** Watches for decisions from now on. */
export class DecisionWatch {
  private constructor(
    readonly lab: Lab,
    /** Null while there is no daemon to ask. */
    readonly known: ReadonlySet<string> | null,
    readonly drops: ReadonlyMap<string, number>,
  ) {}

  /** Begins. Without a daemon only the kernel is asked, whose counters outlive it. */
  static async start(lab: Lab, daemonRuns = true): Promise<DecisionWatch> {
    const known = daemonRuns ? await recordedDecisions(lab) : null;
    return new DecisionWatch(
      lab,
      known === null ? null : new Set(known.map(({ id }) => id)),
      await kernelDrops(lab),
    );
  }

  /** What was decided about `source`, an agent's address, since then. */
  async decided(source: string): Promise<Decided> {
    const { known } = this;
    const records = known === null
      ? []
      : (await recordedDecisions(this.lab)).filter((record) =>
        record.source === source && !known.has(record.id)
      );
    const drops = [...await kernelDrops(this.lab)]
      .filter(([comment, packets]) => packets > (this.drops.get(comment) ?? 0))
      .map(([comment]) => comment);
    return { records, drops };
  }
}
