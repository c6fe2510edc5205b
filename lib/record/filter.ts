/** Which decisions somebody wants to see: the same words in the API, the stream and the history. */
import type { Decision, DecisionLayer } from "../decision.ts";

/** All that is given must hold. */
export interface DecisionFilter {
  /** Name as rules see it. */
  readonly agent?: string | undefined;
  readonly verdict?: Decision["verdict"] | undefined;
  readonly layer?: DecisionLayer | undefined;
  /** A host or address; with a dot in front, the host and all below it. */
  readonly host?: string | undefined;
}

/** Which decisions to list: the newest that suit. */
export interface DecisionQuery extends DecisionFilter {
  /** Milliseconds since 1970. */
  readonly sinceMs?: number | undefined;
  readonly limit: number;
}

/** Decisions, oldest first. */
export interface DecisionList {
  readonly decisions: readonly Decision[];
  /** Why older ones may be missing; null: they are all there. */
  readonly incomplete: string | null;
}

/** The host that an attempt was about, or its address; empty when neither is known. */
export function hostOf({ host, address }: Decision["attempt"]): string {
  return host ?? address ?? "";
}

function matchesHost(wanted: string, { host, address }: Decision["attempt"]): boolean {
  if (!wanted.startsWith(".")) return wanted === host || wanted === address;
  return host !== undefined && (host.endsWith(wanted) || host === wanted.slice(1));
}

/** Whether a decision is wanted. */
export function matches(filter: DecisionFilter, decision: Decision): boolean {
  const { agent, verdict, layer, host } = filter;
  return (verdict === undefined || verdict === decision.verdict) &&
    (layer === undefined || layer === decision.layer) &&
    (agent === undefined || agent === (decision.agent?.name ?? "")) &&
    (host === undefined || matchesHost(host.toLowerCase(), decision.attempt));
}
