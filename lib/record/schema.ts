/** A decision as JSON, checked: for whoever reads one from a socket or from disk. */
import { z } from "zod";
import { type Attempt, type Decision, DECISION_LAYERS, REASONS, TUNNEL_ENDS } from "../decision.ts";

const count = z.int().min(0);
const text = z.string().exactOptional();

/** A type for each field: one that is forgotten here would be lost on its way. */
type Fields<T> = Readonly<Record<keyof Required<T>, z.ZodType>>;

/** One decision. Fields that a newer version may have added are passed over. */
export const decisionSchema = z.object(
  {
    schema: z.literal(1),
    id: z.string(),
    time: z.string(),
    generation: z.int(),
    layer: z.enum(DECISION_LAYERS),
    agent: z.object({
      name: z.string(),
      containerId: text,
      cable: text,
      address: z.string(),
      network: z.string(),
    }).nullable(),
    source: z.string(),
    attempt: z.object(
      {
        host: text,
        address: text,
        port: z.int().exactOptional(),
        protocol: text,
        claimedSource: text,
        method: text,
        path: text,
        recordType: text,
        image: text,
        tool: text,
      } satisfies Fields<Attempt>,
    ),
    verdict: z.enum(["allow", "block"]),
    reason: z.enum(REASONS),
    rule: z.object({ id: z.string(), file: z.string(), line: z.int() }).nullable(),
    upstreamMs: z.number().nullable().exactOptional(),
    count: count.exactOptional(),
    targets: z.object({ distinct: count, first: z.array(z.string()) }).exactOptional(),
    durationMs: z.number().exactOptional(),
    tunnel: z.object({ upBytes: count, downBytes: count, end: z.enum(TUNNEL_ENDS) })
      .exactOptional(),
    updated: text,
  } satisfies Fields<Decision>,
) satisfies z.ZodType<Decision>;
