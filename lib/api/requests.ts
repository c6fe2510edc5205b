/** The operator's side of rule requests: what is sent and accepted, and the endpoints. */
import { z } from "zod";
import { checkProposal, type Proposal } from "../agent/candidate.ts";
import type { Approval, Extension } from "../agent/requests.ts";
import { messageOf } from "../errors.ts";
import type { RequestEvent, RequestStatus, StoredRequest } from "../store/requests.ts";
import { act } from "./endpoint.ts";
import { success } from "./envelope.ts";
import { nothing } from "./parse.ts";
import { type ApiContext, readBody, readQuery, type Route } from "./router.ts";

/** Rule requests as the host API needs them; lib/agent/requests.ts has the errors. */
export interface RuleRequestService {
  list(status: RequestStatus | "all"): readonly StoredRequest[];
  get(id: string): StoredRequest;
  events(id: string): readonly RequestEvent[];
  approve(id: string, approval: Approval): Promise<{ readonly rulesLoaded: number }>;
  extend(id: string, extension: Extension): Promise<{ readonly expiresMs: number | null }>;
  reject(id: string, reason: string | null, by: string): Promise<void>;
}

const time = z.string().nullable();

/** One rule request with its history. Times are ISO 8601 in UTC. */
export const ruleRequest = z.object({
  id: z.string(),
  status: z.enum(["pending", "approved", "rejected", "expired"]),
  /** Empty for an agent that Docker does not know. */
  agent: z.string(),
  container_id: z.string().nullable(),
  address: z.string(),
  network: z.string(),
  /** The file that is or was in force, else the one that was asked for. */
  rule_file: z.string(),
  /** The operator changed what was asked for. */
  edited: z.boolean(),
  /** Why, in the agent's words. */
  reason: z.string().nullable(),
  /** How long the agent would like to have it. */
  for_secs: z.number().nullable(),
  /** How often the same was asked. */
  hits: z.number(),
  created_at: z.string(),
  last_asked_at: z.string(),
  decided_at: time,
  decided_by: z.string().nullable(),
  /** The operator's words. */
  answer: z.string().nullable(),
  /** Null while pending, and for an approval without end. */
  expires_at: time,
  /** What the rules open. */
  rules: z.array(z.object({
    id: z.string(),
    action: z.enum(["allow", "block"]),
    condition: z.string(),
    hosts: z.array(z.string()).readonly().nullable(),
  })).readonly(),
  warnings: z.array(z.string()).readonly(),
  /** What happened, in order; `by` an agent or an operator, null: by itself. */
  history: z.array(z.object({
    at: z.string(),
    event: z.enum(["asked", "approved", "rejected", "extended", "replaced", "expired"]),
    by: z.string().nullable(),
    /** When an approval ends; null for ever, and for other events. */
    until: time,
    /** The words that came with it; for `replaced`, the request that did. */
    note: z.string().nullable(),
  })).readonly(),
});

/** One rule request as it is sent. */
export type RuleRequestReply = z.infer<typeof ruleRequest>;

/** Requests, oldest first. */
export const ruleRequestList = z.object({ requests: z.array(ruleRequest) });
/** What an approval did. */
export const ruleRequestApproved = z.object({ id: z.string(), rules_loaded: z.number() });
/** What an extension did. */
export const ruleRequestExtended = z.object({ id: z.string(), expires_at: time });
/** What a rejection did. */
export const ruleRequestRejected = z.object({ id: z.string() });

const statusQuery = z.strictObject({
  status: z.enum(["pending", "approved", "rejected", "expired", "all"]).default("pending"),
});

/** When the operator does not say how long. */
export const APPROVAL_DEFAULT_SECS = 3_600;
/** A year; longer is for ever. */
export const APPROVAL_MAX_SECS = 31_536_000;
/** S003-IF-009. */
const MAX_REASON_BYTES = 1024;

const reason = z.string().min(1, "must not be empty").refine(
  (text) => new TextEncoder().encode(text).length <= MAX_REASON_BYTES,
  `must not be longer than ${MAX_REASON_BYTES} bytes`,
).refine((text) => !/\p{Cc}/u.test(text) && text.trim() !== "", "must be one line of text");

const approveBody = z.strictObject({
  /** Null: for ever. */
  for_secs: z.int().min(1).max(APPROVAL_MAX_SECS).nullable().default(APPROVAL_DEFAULT_SECS),
  /** Instead of the agent's: narrowed or edited. */
  rule_file: z.string().min(1).max(65_536).nullish(),
  reason: reason.nullish(),
});

const extendBody = approveBody.omit({ rule_file: true });

const rejectBody = z.strictObject({ reason: reason.nullish() });

/** The endpoints over `requests`. */
export function requestRoutes(requests: RuleRequestService): Route[] {
  const reply = (request: StoredRequest): RuleRequestReply =>
    ruleRequestReply(request, requests.events(request.id));
  return [
    {
      method: "GET",
      path: "/api/v1/requests/rules",
      handle: (c) => {
        const { status } = readQuery(c, statusQuery);
        return c.json(success({ requests: requests.list(status).map(reply) }));
      },
    },
    {
      method: "GET",
      path: "/api/v1/requests/rules/:id",
      handle: (c) => {
        readQuery(c, nothing);
        return c.json(success(reply(requests.get(c.req.param("id") ?? ""))));
      },
    },
    act("/api/v1/requests/rules/:id/approve", async (c) => {
      const id = c.req.param("id") ?? "";
      const body = await optionalBody(c, approveBody);
      const { rulesLoaded } = await requests.approve(id, {
        forSecs: body.for_secs,
        ruleFile: body.rule_file ?? null,
        reason: body.reason ?? null,
        by: operatorOf(c),
      });
      return c.json(success({ id, rules_loaded: rulesLoaded }));
    }),
    act("/api/v1/requests/rules/:id/extend", async (c) => {
      const id = c.req.param("id") ?? "";
      const body = await optionalBody(c, extendBody);
      const { expiresMs } = await requests.extend(id, {
        forSecs: body.for_secs,
        reason: body.reason ?? null,
        by: operatorOf(c),
      });
      return c.json(success({ id, expires_at: isoOrNull(expiresMs) }));
    }),
    act("/api/v1/requests/rules/:id/reject", async (c) => {
      const id = c.req.param("id") ?? "";
      const body = await optionalBody(c, rejectBody);
      await requests.reject(id, body.reason ?? null, operatorOf(c));
      return c.json(success({ id }));
    }),
  ];
}

function operatorOf(c: ApiContext): string {
  return `uid ${c.env.peer.uid}`;
}

/** S003-IF-008: no body means that the defaults will do. */
function optionalBody<S extends z.ZodType>(c: ApiContext, schema: S): Promise<z.output<S>> {
  return c.req.header("content-type") === undefined
    ? Promise.resolve(schema.parse({}))
    : readBody(c, schema);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

function isoOrNull(ms: number | null): string | null {
  return ms === null ? null : iso(ms);
}

/** A stored request as operators see it. */
function ruleRequestReply(
  request: StoredRequest,
  events: readonly RequestEvent[],
): RuleRequestReply {
  const ruleFile = request.approved_file ?? request.rule_file;
  return {
    id: request.id,
    status: request.status,
    agent: request.agent,
    container_id: request.container_id,
    address: request.address,
    network: request.network,
    rule_file: ruleFile,
    edited: request.approved_file !== null,
    reason: request.reason,
    for_secs: request.for_secs,
    hits: request.hits,
    created_at: iso(request.created_ms),
    last_asked_at: iso(request.asked_ms),
    decided_at: isoOrNull(request.decided_ms),
    decided_by: request.decided_by,
    answer: request.answer,
    expires_at: isoOrNull(request.expires_ms),
    ...explained(ruleFile),
    history: events.map(({ at_ms, event, by, until_ms, note }) => ({
      ...{ at: iso(at_ms), event, by, until: isoOrNull(until_ms), note },
    })),
  };
}

/** A file that a former version accepted and this one does not is still shown. */
function explained(ruleFile: string): Proposal {
  try {
    return checkProposal("request.yaml", ruleFile);
  } catch (thrown) {
    return { rules: [], warnings: [messageOf(thrown)] };
  }
}
