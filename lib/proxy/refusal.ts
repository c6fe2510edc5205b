/** Why an attempt goes no further. */
import type { Reason } from "../decision.ts";
import type { Layer, RuleRef } from "../rules/types.ts";

/** Statuses the proxy itself answers with. */
export type RefusalStatus = 400 | 403 | 408 | 411 | 413 | 417 | 429 | 431 | 502 | 503 | 504 | 505;

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
