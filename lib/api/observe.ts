/** Observations on the host API: what goes in, what comes out, the routes. */
import { z } from "zod";
import { act, show } from "./endpoint.ts";
import { success } from "./envelope.ts";
import { readBody, type Route } from "./router.ts";

/** One agent that is observed. */
const activeObservation = z.object({
  /** Empty for an agent without a name. */
  agent: z.string(),
  /** Container id, or name of a namespace agent's cable. */
  key: z.string(),
  /** ISO 8601 in UTC. */
  began_at: z.string(),
  ends_in_secs: z.int(),
});

/** `GET /api/v1/observations` */
export const observationList = z.object({ observations: z.array(activeObservation).readonly() });

/** `POST /api/v1/observations/end`: name or key of the agent. */
const observationEnd = z.strictObject({ agent: z.string() });

/** How many were ended. */
export const observationsEnded = z.object({ ended: z.int() });

/** One agent that is observed. */
export type ActiveObservation = z.output<typeof activeObservation>;

/** Agents that are let out, and recorded, where no rule allows or blocks. */
export interface ObservationService {
  /** Oldest first. */
  list(): readonly ActiveObservation[];
  /** Ends those of this name or key; throws `observe.unknown` (404). */
  end(agent: string): Promise<number>;
}

/** The endpoints. */
export function observationRoutes(observations: ObservationService): Route[] {
  return [
    show("/api/v1/observations", () => ({ observations: observations.list() })),
    act("/api/v1/observations/end", async (c) => {
      const { agent } = await readBody(c, observationEnd);
      return c.json(success({ ended: await observations.end(agent) }));
    }),
  ];
}
