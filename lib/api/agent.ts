/**
 * The agent API on the agent socket: verdicts and acknowledgements go in, and nothing about rules,
 * the host or other agents comes out (S004-FR-010).
 */
import { z } from "zod";
import type { Agent } from "../agents.ts";
import { ACTION_TYPES, checkPermission, type CheckServices } from "../agent/check.ts";
import type { AgentIdentity } from "../agent/identity.ts";
import { RateLimited, type Session, type Sessions, spend } from "../agent/sessions.ts";
import type { RuleRequests } from "../agent/requests.ts";
import type { Caller } from "../agent/caller.ts";
import { OutcallError } from "../errors.ts";
import type { PeerCredentials } from "../linux/peer.ts";
import { logger } from "../log.ts";
import type { StoredRequest } from "../store/requests.ts";
import { presentable, sendFailure, success } from "./envelope.ts";
import { nothing } from "./parse.ts";
import { type ApiApp, apiApp, type ApiContext, readBody, readQuery, type Route } from "./router.ts";

/** S004-EC-010: of every body. */
const AGENT_MAX_BODY_BYTES = 65_536;
/** Longest time that one call waits for an operator's answer, in seconds. */
const AGENT_MAX_WAIT_SECS = 60;

/** What the agent API works with. */
export interface AgentServices {
  readonly identity: AgentIdentity;
  readonly sessions: Sessions;
  readonly check: CheckServices;
  readonly requests: RuleRequests;
  /** Who connected, as the server noted when it accepted the connection. */
  readonly callerOf: (peer: PeerCredentials) => Caller | undefined;
}

/** What may be sent beside an action's type and target. */
const MAX_TARGET_CHARACTERS = 8192;
const text = z.string().max(32_768);
const checkBody = z.strictObject({
  action_type: z.enum(ACTION_TYPES),
  target: z.string().min(1).max(MAX_TARGET_CHARACTERS)
    // It reaches logs and terminals.
    .regex(/^\P{Cc}*$/u, "control characters are not accepted"),
  metadata: z.record(z.string().max(128), text).default({}),
});

/** How long an agent may ask for a rule at once: a year. */
const MAX_FOR_SECS = 31_536_000;
const MAX_REASON_CHARACTERS = 1024;
const submitBody = z.strictObject({
  rule_file: z.string().min(1),
  reason: z.string().max(MAX_REASON_CHARACTERS).regex(
    /^\P{Cc}*$/u,
    "control characters are not accepted",
  ).nullish(),
  for_secs: z.int().min(1).max(MAX_FOR_SECS).nullish(),
});

const waitQuery = z.strictObject({
  wait: z.string().regex(/^[0-9]{1,3}$/, "expected seconds").transform(Number)
    .pipe(z.int().min(0).max(AGENT_MAX_WAIT_SECS)).default(0),
});

const log = logger("agent_api");

/** The agent API over `services`. Serve it with {@linkcode serveUnix}. */
export function agentApp(services: AgentServices): ApiApp {
  const { identity, sessions, check, requests } = services;

  const agentOf = (c: ApiContext): Promise<Agent> => {
    const caller = services.callerOf(c.env.peer);
    if (caller === undefined) {
      throw new OutcallError(403, "peer.forbidden", "peer identity could not be verified");
    }
    return identity.identify(caller);
  };
  const sessionOf = async (c: ApiContext): Promise<{ agent: Agent; session: Session }> => {
    const agent = await agentOf(c);
    return { agent, session: sessions.authorize(agent, c.req.header("authorization")) };
  };

  const routes: Route[] = [
    {
      method: "POST",
      path: "/v1/checkin",
      handle: async (c) => {
        readQuery(c, nothing);
        if (hasBody(c)) await readBody(c, nothing, AGENT_MAX_BODY_BYTES);
        const agent = await agentOf(c);
        const session = sessions.checkIn(agent);
        log.debug("check-in of {agent} ({container})", described(agent));
        return c.json(success({
          container_id: agent.containerId ?? null,
          session_token: session.token,
          context_keys: ["action_type", "target", "metadata"],
        }));
      },
    },
    {
      method: "POST",
      path: "/v1/permissions/check",
      handle: async (c) => {
        readQuery(c, nothing);
        const { agent, session } = await sessionOf(c);
        spend(session.permissions, sessions.now());
        const question = await readBody(c, checkBody, AGENT_MAX_BODY_BYTES);
        log.debug("permission check of {agent} ({container}): {action}", {
          action: question.action_type,
          ...described(agent),
        });
        return c.json(success(await checkPermission(check, agent, question)));
      },
    },
    {
      method: "POST",
      path: "/v1/requests/rules",
      handle: async (c) => {
        readQuery(c, nothing);
        const { agent, session } = await sessionOf(c);
        spend(session.submissions, sessions.now());
        const body = await readBody(c, submitBody, AGENT_MAX_BODY_BYTES);
        const request = requests.submit(agent, {
          ruleFile: body.rule_file,
          reason: body.reason ?? null,
          forSecs: body.for_secs ?? null,
        });
        log.info("rule request {id} of {agent} ({container})", {
          id: request.id,
          ...described(agent),
        });
        return c.json(success(requestReply(request)), request.hits === 1 ? 201 : 200);
      },
    },
    {
      method: "GET",
      path: "/v1/requests/rules/:id",
      handle: async (c) => {
        const { wait } = readQuery(c, waitQuery);
        const { agent } = await sessionOf(c);
        const asked = c.req.param("id") ?? "";
        const request = await requests.ownWhenAnswered(agent, asked, wait * 1_000);
        log.debug("status query of {agent} ({container}): {id} is {status}", {
          id: request.id,
          status: request.status,
          ...described(agent),
        });
        return c.json(success(requestReply(request)));
      },
    },
    {
      method: "GET",
      path: "/v1/whoami",
      handle: async (c) => {
        readQuery(c, nothing);
        const agent = await agentOf(c);
        const { permissions, submissions } = sessions.rates;
        return c.json(success({
          name: agent.name,
          container_id: agent.containerId ?? null,
          address: agent.address,
          network: agent.network,
          limits: {
            permission_checks: { count: permissions.count, window_secs: permissions.windowSecs },
            rule_requests: { count: submissions.count, window_secs: submissions.windowSecs },
            body_bytes: AGENT_MAX_BODY_BYTES,
            wait_secs: AGENT_MAX_WAIT_SECS,
          },
          how_to_ask: "outcall-agent request <url> --reason <why> --wait",
        }));
      },
    },
  ];
  const app = apiApp(routes, "agent_api");
  app.onError((thrown, c) => {
    const error = presentable(thrown, "agent_api");
    if (error instanceof RateLimited) c.header("Retry-After", String(error.retryAfterSecs));
    return sendFailure(c, error);
  });
  return app;
}

function described(agent: Agent): { readonly agent: string; readonly container: string } {
  return { agent: agent.name, container: agent.containerId ?? agent.address };
}

/** S004-FR-004: an empty check-in says all there is to say. */
function hasBody(c: ApiContext): boolean {
  const length = c.req.header("content-length");
  return (length !== undefined && length !== "0") ||
    c.req.header("transfer-encoding") !== undefined;
}

/** What an agent learns of its own request: who answered is the operator's business. */
function requestReply(request: StoredRequest): object {
  return {
    id: request.id,
    status: request.status,
    reason: request.answer ?? approvedAt(request),
    /** What is in force is not what was asked for. */
    edited: request.approved_file !== null,
    expires_at: request.expires_ms === null ? null : new Date(request.expires_ms).toISOString(),
  };
}

function approvedAt({ status, decided_ms: at }: StoredRequest): string | null {
  return status === "approved" && at !== null
    ? `operator approved at ${new Date(at).toISOString()}`
    : null;
}
