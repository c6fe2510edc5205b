/** The daemon on one screen: what is up, what is loaded, what was blocked, what needs the operator. */
import { z } from "zod";
import type { PartHealth } from "../health.ts";
import { show } from "./endpoint.ts";
import type { Route } from "./router.ts";

const count = z.int().min(0);
const text = z.string();
const state = z.enum(["ok", "degraded", "failed"]);

/** One part's health as it is sent. */
const partHealth = z.object({
  name: text,
  state,
  detail: text,
}) satisfies z.ZodType<PartHealth>;

/** What is loaded, and how often it was tried. */
export interface PolicyLoads {
  readonly generation: number;
  readonly rules: number;
  readonly files: number;
  /** ISO 8601 in UTC, of the last load that succeeded; null: none has. */
  readonly loaded_at: string | null;
  /** Loads that succeeded, the one at start-up included. */
  readonly reloads: number;
  /** Loads that were refused and changed nothing. */
  readonly reloads_refused: number;
  /** Why the last load was refused; null when it succeeded. */
  readonly refusal: string | null;
}

const policyLoads = z.object({
  generation: count,
  rules: count,
  files: count,
  loaded_at: text.nullable(),
  reloads: count,
  reloads_refused: count,
  refusal: text.nullable(),
}) satisfies z.ZodType<PolicyLoads>;

/** Attempts that were alike. */
const blockedAttempts = z.object({
  /** The agent's name, or the source's address. */
  agent: text,
  layer: text,
  /** In a phrase, such as `CONNECT example.com:443`. */
  what: text,
  reason: text,
  attempts: count,
  /** The decision of the newest. */
  last_id: text,
});

/** The daemon's state. Times are ISO 8601 in UTC. */
export const daemonStatus = z.object({
  version: text,
  started_at: text,
  /** Whether agents are enforced and served: no part has failed. */
  ready: z.boolean(),
  /** The worst state of any part. */
  status: state,
  parts: z.array(partHealth).readonly(),
  policy: policyLoads,
  agents: z.array(z.object({
    /** Empty for an agent that Docker does not know. */
    name: text,
    address: text,
    network: text,
  })).readonly(),
  /** Grants in force. */
  grants: count,
  /** Live tunnels. */
  tunnels: count,
  blocked: z.object({
    since: text,
    attempts: count,
    /** What was blocked most, most first. */
    top: z.array(blockedAttempts).readonly(),
    /** Why older decisions may be missing; null: they are all there. */
    incomplete: text.nullable(),
  }),
  /** What needs an operator, most urgent first, with the command to run. */
  attention: z.array(z.object({ what: text, command: text.nullable() })).readonly(),
});

/** The daemon's state, as it is sent. */
export type DaemonStatus = z.infer<typeof daemonStatus>;

/** Tells the state. */
export interface StatusService {
  status(): Promise<DaemonStatus>;
}

/** `GET /api/v1/status` */
export function statusRoutes(service: StatusService): Route[] {
  return [show("/api/v1/status", () => service.status())];
}
