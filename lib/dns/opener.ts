/** What an answer's addresses have to wait for when rules let agents connect to them directly. */
import type { Agent } from "../agents.ts";
import type { Reason } from "../decision.ts";
import type { Hostname } from "../net/host.ts";
import type { Ip } from "../net/ip.ts";
import type { Judgement } from "../policy.ts";
import type { Opening } from "../rules/types.ts";

/** Decision D12: how long an answer's addresses stay open, whatever its TTL. */
const MIN_LIFE_SECS = 10;
const MAX_LIFE_SECS = 300;

/** Addresses that an agent is about to learn. */
export interface LearnedAddresses {
  readonly agent: Agent;
  readonly hostname: Hostname;
  /** IPv4. */
  readonly addresses: readonly Ip[];
  /** To be judged with each of them. */
  readonly openings: readonly Opening[];
  readonly lifeSecs: number;
}

/** Why an address was not opened. */
export interface OpeningRefusal {
  readonly reason: Reason;
  /** Null: it is no matter of policy. */
  readonly judgement: Judgement | null;
}

/** What came of it. */
export interface OpenedAddresses {
  /** Canonical texts of those that the agent can connect to by now. */
  readonly addresses: ReadonlySet<string>;
  /** Whole seconds for which all of them stay open; 0 without any. */
  readonly lifeSecs: number;
  /** Of the first address that is not among them; null: all are. */
  readonly refusal: OpeningRefusal | null;
}

/** Opens addresses to agents. */
export interface AddressOpener {
  /**
   * Settles when what the rules admit is open.
   * @throws NotHere, at once; rejects with an OutcallError when it could not be opened.
   */
  open(learned: LearnedAddresses): Promise<OpenedAddresses>;
}

/** How long to keep addresses open that were learned with this TTL; null: not at all. */
export function lifeSecsOf(ttlSecs: number): number | null {
  return ttlSecs <= 0 ? null : Math.min(MAX_LIFE_SECS, Math.max(MIN_LIFE_SECS, ttlSecs));
}
