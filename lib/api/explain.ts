/** `GET /api/v1/decisions/:id/explain`: why a decision came out as it did, and what would change it. */
import { z } from "zod";
import { decisionSchema } from "../record/schema.ts";
import type { Walk } from "../record/explain.ts";
import { findDecision } from "./decisions.ts";
import { success } from "./envelope.ts";
import { nothing } from "./parse.ts";
import { explainStep } from "./replies.ts";
import { readQuery, type Route } from "./router.ts";
import { stepReply } from "./rules.ts";
import type { HostServices } from "./services.ts";

const walk = z.object({ generation: z.int(), steps: z.array(explainStep) });

/** The explanation; see lib/record/explain.ts for what its parts mean. */
export const decisionExplanation = z.object({
  decision: decisionSchema,
  meaning: z.string(),
  rules: z.enum(["same", "changed", "forgotten", "not_asked"]),
  then: walk.nullable(),
  now: walk.nullable(),
  advice: z.array(z.string()),
  proposals: z.array(z.object({
    width: z.enum(["request", "host", "domain"]),
    id: z.string(),
    rule: z.string(),
    opens: z.array(z.string()),
    warnings: z.array(z.string()),
    in_front: z.object({
      id: z.string(),
      file: z.string(),
      line: z.int(),
      priority: z.int(),
      layer: explainStep.shape.layer,
    }).nullable(),
    also_admits: z.object({ count: z.int(), examples: z.array(z.string()) }),
  })),
});

/** The explanation as it is sent. */
export type DecisionExplanationReply = z.output<typeof decisionExplanation>;

function walkReply(walk: Walk | null): object | null {
  return walk && { generation: walk.generation, steps: walk.steps.map(stepReply) };
}

/** The endpoint. */
export function explainRoutes({ policy, decisions }: HostServices): Route[] {
  return [{
    method: "GET",
    path: "/api/v1/decisions/:id/explain",
    handle: async (c) => {
      readQuery(c, nothing);
      const { then, now, proposals, ...rest } = policy.explainDecision(
        await findDecision(c, decisions),
        decisions.recent(),
      );
      return c.json(success({
        ...rest,
        then: walkReply(then),
        now: walkReply(now),
        proposals: proposals.map(({ inFront, alsoAdmits, ...proposal }) => ({
          ...proposal,
          in_front: inFront,
          also_admits: alsoAdmits,
        })),
      }));
    },
  }];
}
