/** Decisions on the host API: the list, one of them, counts, and the stream (server-sent events). */
import { stream } from "hono/streaming";
import { z } from "zod";
import { type Decision, DECISION_LAYERS } from "../decision.ts";
import { OutcallError } from "../errors.ts";
import { pause } from "../pause.ts";
import { decisionSchema } from "../record/schema.ts";
import type { StreamEvent, Subscription } from "../record/streams.ts";
import type { DecisionStats, Tally } from "../record/table.ts";
import { success } from "./envelope.ts";
import { nothing } from "./parse.ts";
import { type ApiContext, readQuery, type Route } from "./router.ts";
import type { DecisionService } from "./services.ts";

/** Most decisions in one list. */
export const MAX_DECISIONS = 10_000;

/** A comment this often keeps a silent stream from looking dead to the client. */
const HEARTBEAT_MS = 10_000;

/**
 * Pause between two writes: what comes meanwhile goes out as one. With the bound of what waits it
 * also keeps a reader from costing more than some 5,000 events a second.
 */
const PAUSE_MS = 200;

/** Client's wait before it comes back, in milliseconds. */
const RETRY = "retry: 1000\n\n";

const time = z.iso.datetime({ offset: true }).transform((text) => Date.parse(text));

const filter = {
  agent: z.string().optional(),
  verdict: z.enum(["allow", "block"]).optional(),
  layer: z.enum(DECISION_LAYERS).optional(),
  host: z.string().optional(),
};

/** `GET /api/v1/decisions` */
const listQuery = z.strictObject({
  ...filter,
  since: time.optional(),
  limit: z.string().regex(/^[0-9]{1,5}$/, `expected a number from 1 to ${MAX_DECISIONS}`)
    .transform(Number).pipe(z.int().min(1).max(MAX_DECISIONS)).default(100),
});

/** `GET /api/v1/decisions/stats` */
const statsQuery = z.strictObject({ ...filter, since: time.optional() });

/** `GET /api/v1/events` */
const eventsQuery = z.strictObject(filter);

/** A list of decisions, as the client checks it. */
export const decisionList = z.object({
  decisions: z.array(decisionSchema).readonly(),
  incomplete: z.string().nullable(),
  last_event_id: z.string(),
});

const tally = z.object({
  name: z.string(),
  allowed: z.int(),
  blocked: z.int(),
}) satisfies z.ZodType<Tally>;

/** Counts over decisions, as the client checks them. */
export const decisionStats = z.object({
  allowed: z.int(),
  blocked: z.int(),
  hosts: z.array(tally).readonly(),
  agents: z.array(tally).readonly(),
  rules: z.array(tally).readonly(),
  layers: z.array(tally).readonly(),
}) satisfies z.ZodType<DecisionStats>;

/** What an event says that its reader missed some. */
export const lostEvent = z.object({ count: z.int().nullable(), why: z.string() });

/** The routes. */
export function decisionRoutes(decisions: DecisionService): Route[] {
  return [
    {
      method: "GET",
      path: "/api/v1/decisions",
      handle: async (c) => {
        const { since, ...query } = readQuery(c, listQuery);
        // Before the list is made: what comes meanwhile may be there twice, but is not missed.
        const last_event_id = String(decisions.sequence);
        return c.json(
          success({ ...await decisions.query({ ...query, sinceMs: since }), last_event_id }),
        );
      },
    },
    {
      method: "GET",
      path: "/api/v1/decisions/stats",
      handle: async (c) => {
        const { since, ...query } = readQuery(c, statsQuery);
        return c.json(success(await decisions.stats({ ...query, sinceMs: since })));
      },
    },
    {
      method: "GET",
      path: "/api/v1/decisions/:id",
      handle: async (c) => {
        readQuery(c, nothing);
        return c.json(success(await findDecision(c, decisions)));
      },
    },
    {
      method: "GET",
      path: "/api/v1/events",
      handle: (c) =>
        streamEvents(c, decisions.subscribe(readQuery(c, eventsQuery), resumeAfter(c))),
    },
  ];
}

/**
 * The decision that the path names.
 * @throws OutcallError `decisions.not_found` (404)
 */
export async function findDecision(
  c: ApiContext,
  decisions: Pick<DecisionService, "find">,
): Promise<Decision> {
  const id = c.req.param("id") ?? "";
  const decision = await decisions.find(id);
  if (decision === undefined) {
    throw new OutcallError(404, "decisions.not_found", `decision not found: "${id}"`, {
      hint: "It may be older than what is kept, or mistyped: ids are 17 letters and digits.",
    });
  }
  return decision;
}

/** Where the client was, by the header that event sources send; null: it is new. */
function resumeAfter(c: ApiContext): number | null {
  const text = c.req.header("last-event-id");
  if (text === undefined || text === "") return null;
  const sequence = Number(text);
  if (/^[0-9]+$/.test(text) && Number.isSafeInteger(sequence)) return sequence;
  throw new OutcallError(422, "request.invalid", "invalid Last-Event-ID", {
    hint: "Send the id of an event of this stream.",
  });
}

/** Server-sent events (WHATWG HTML, section 9.2). */
function streamEvents(c: ApiContext, subscription: Subscription): Response {
  c.header("Content-Type", "text/event-stream");
  c.header("Cache-Control", "no-store");
  return stream(c, async (body) => {
    body.onAbort(() => subscription.close());
    let isWriting = false;
    const write = async (text: string): Promise<void> => {
      isWriting = true;
      await body.write(text);
      isWriting = false;
    };
    const heartbeat = setInterval(() => isWriting || void write(":\n\n"), HEARTBEAT_MS);
    try {
      await write(RETRY);
      for (;;) {
        const events = await subscription.next();
        if (events === null || body.aborted) return;
        await write(events.map(eventText).join(""));
        await pause(PAUSE_MS);
      }
    } finally {
      clearInterval(heartbeat);
      subscription.close();
    }
  });
}

/** JSON has no line breaks, so one `data` field holds it. */
function eventText(event: StreamEvent): string {
  if (event.kind === "lost") {
    const { count, why } = event;
    return `event: lost\ndata: ${JSON.stringify({ count, why })}\n\n`;
  }
  const name = event.change === "new" ? "decision" : "update";
  return `id: ${event.sequence}\nevent: ${name}\ndata: ${JSON.stringify(event.decision)}\n\n`;
}
