/** Why an attempt goes no further. */
import type { Reason } from "../decision.ts";
import { SystemError } from "../linux/libc.ts";
import type { Layer, RuleRef } from "../rules/types.ts";
import { ConnectionClosed } from "./socket.ts";
import { UnexpectedEnd } from "./stream.ts";

/** Statuses the proxy itself answers with. */
export type RefusalStatus =
  | 400
  | 403
  | 408
  | 411
  | 413
  | 417
  | 429
  | 431
  | 500
  | 502
  | 503
  | 504
  | 505;

/** What the record says beyond layer and reason. */
export interface RefusalDetails {
  readonly rule?: RuleRef | null;
  /** Generation of the policy that decided; absent when policy was not asked. */
  readonly generation?: number;
  /** Destination address, dotted decimal or RFC 5952. */
  readonly address?: string;
}

/**
 * Thrown wherever an attempt ends: what would have come after it cannot run, so a refusal that is
 * forgotten still refuses. The message is one clause for the agent: no rule, no address, no bytes
 * of the request.
 */
export class Refusal extends Error {
  override readonly name = "Refusal";

  constructor(
    readonly status: RefusalStatus,
    readonly layer: Layer,
    readonly reason: Reason,
    message: string,
    readonly details: RefusalDetails = {},
  ) {
    super(message);
  }
}

/** Whether a peer's closing or resetting explains this error, or our having closed the connection. */
export function isConnectionError(thrown: unknown): boolean {
  return thrown instanceof ConnectionClosed || thrown instanceof UnexpectedEnd ||
    thrown instanceof SystemError && CONNECTION_ERRORS.has(thrown.code);
}

const CONNECTION_ERRORS: ReadonlySet<string> = new Set([
  "ECONNABORTED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTCONN",
  "EPIPE",
  "ETIMEDOUT",
]);

/** What ends an attempt, whatever was thrown: nothing unforeseen leaves one without a record. */
export function asRefusal(thrown: unknown, layer: Layer): Refusal {
  if (thrown instanceof Refusal) return thrown;
  return isConnectionError(thrown)
    ? new Refusal(400, layer, "client_closed", "the client closed its connection")
    : new Refusal(500, layer, "internal_error", "the proxy failed");
}
