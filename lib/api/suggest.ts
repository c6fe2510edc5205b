/** `GET /api/v1/suggest`: rules for what an agent was seen to do. */
import { z } from "zod";
import { success } from "./envelope.ts";
import { MAX_DECISIONS } from "./decisions.ts";
import { readQuery, type Route } from "./router.ts";
import type { HostServices } from "./services.ts";

const suggestQuery = z.strictObject({
  agent: z.string(),
  since: z.iso.datetime({ offset: true }).transform((text) => Date.parse(text)),
  /** Cover what was refused for want of a rule, too. */
  blocked: z.enum(["true", "false"]).default("false"),
});

/** A suggestion, as it is sent. */
export const suggestion = z.object({
  /** A rule file with its tests. */
  file: z.string(),
  rules: z.int(),
  tests: z.int(),
  /** Attempts that the rules cover. */
  covered: z.int(),
  not_covered: z.array(z.object({ attempt: z.string(), count: z.int(), why: z.string() })),
  /** Why older attempts may be missing; null: all of that time are there. */
  incomplete: z.string().nullable(),
});

/** A suggestion, as it is sent. */
export type SuggestionReply = z.output<typeof suggestion>;

/** The endpoint. */
export function suggestRoutes({ policy, decisions }: HostServices): Route[] {
  return [{
    method: "GET",
    path: "/api/v1/suggest",
    handle: async (c) => {
      const { agent, since, blocked } = readQuery(c, suggestQuery);
      const found = await decisions.query({ agent, sinceMs: since, limit: MAX_DECISIONS });
      const { notCovered, ...rest } = policy.suggest(found.decisions, {
        agent,
        includeBlocked: blocked === "true",
      });
      const reply: SuggestionReply = {
        ...rest,
        not_covered: [...notCovered],
        incomplete: found.incomplete ??
          (found.decisions.length < MAX_DECISIONS
            ? null
            : `only the newest ${MAX_DECISIONS} decisions were read`),
      };
      return c.json(success(reply));
    },
  }];
}
