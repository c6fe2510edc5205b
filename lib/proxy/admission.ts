/** Asks policy: each function returns why an attempt may go on, or throws the refusal. */
import { restrictedRange } from "../net/restricted.ts";
import { messageOf } from "../errors.ts";
import { logger } from "../log.ts";
import type { Judge, Judgement } from "../policy.ts";
import type { RequestReads } from "../rules/reads.ts";
import {
  DEFAULT_BODY_BYTES,
  type Egress,
  type Layer,
  type RuleRef,
  type VerdictReason,
} from "../rules/types.ts";
import type { Destination } from "./destination.ts";
import { type Reading, withAddress } from "./facts.ts";
import { Refusal } from "./refusal.ts";

const log = logger("proxy");

/** An allowed attempt at one layer. */
export interface Admission {
  readonly layer: Layer;
  /** `rule`, or `observed`: what no rule allows. */
  readonly reason: VerdictReason;
  readonly rule: RuleRef | null;
  readonly generation: number;
  /** What every reading may do. */
  readonly allowPrivateIps: boolean;
  readonly tls: Egress["tls"];
  readonly maxBodyBytes: number;
}

/** The policy in force at this moment. */
export interface PolicyInForce {
  readonly judge: Judge;
  /** What its rules look at. */
  readonly reads: () => RequestReads;
}

/** Judges every reading; one that no rule allows decides what is recorded, else the first one. */
export function admit(
  { judge, reads }: PolicyInForce,
  layer: Layer,
  readings: readonly Reading[],
): Admission {
  const admitted = reads().distinct(readings)
    .map((reading) => admitReading(judge, layer, reading));
  const [first, ...others] = admitted;
  if (first === undefined) throw new TypeError("nothing to judge");
  if (others.length === 0) return first;
  const observed = admitted.find(({ reason }) => reason === "observed");
  return {
    ...(observed ?? first),
    allowPrivateIps: admitted.every(({ allowPrivateIps }) => allowPrivateIps),
    tls: admitted.every(({ tls }) => tls === "any") ? "any" : "sni",
    maxBodyBytes: Math.min(...admitted.map(({ maxBodyBytes }) => maxBodyBytes)),
  };
}

function admitReading(judge: Judge, layer: Layer, { facts, ambiguity }: Reading): Admission {
  const { verdict, generation } = judgeSafely(judge, layer, facts);
  const { allowed, egress, rule, reason } = verdict;
  if (allowed && egress !== null) {
    const { allowPrivateIps, tls, maxBodyBytes = DEFAULT_BODY_BYTES } = egress;
    return { layer, reason, rule, generation, allowPrivateIps, tls, maxBodyBytes };
  }
  if (ambiguity !== null) {
    const { status, problem } = ambiguity;
    throw new Refusal(status, layer, "malformed", problem, { rule, generation });
  }
  throw new Refusal(403, layer, allowed ? "default" : reason, "not allowed by policy", {
    rule,
    generation,
  });
}

/** S006-FR-023: when policy cannot be asked, the answer is no. */
function judgeSafely(judge: Judge, layer: Layer, facts: Reading["facts"]): Judgement {
  try {
    return judge(layer, facts);
  } catch (thrown) {
    log.error("policy could not be asked at {layer}: {error}", { layer, error: messageOf(thrown) });
    throw new Refusal(403, layer, "rule_error", "policy could not be evaluated");
  }
}

/**
 * Judges the address that is about to be dialled (decisions D14, D23): never one of this host, no
 * restricted one unless the rule says so, and the rules hear which one it is.
 */
export function admitAddress(
  policy: PolicyInForce,
  readings: readonly Reading[],
  { ip, isLocal }: Destination,
): Admission {
  const address = ip.text;
  if (isLocal) {
    throw new Refusal(403, "dial", "local_address", "the destination is this host or an agent", {
      address,
    });
  }
  const admission = admit(
    policy,
    "dial",
    readings.map((reading) => ({ ...reading, facts: withAddress(reading.facts, ip) })),
  );
  if (restrictedRange(ip) !== null && !admission.allowPrivateIps) {
    const { rule, generation } = admission;
    throw new Refusal(403, "dial", "restricted_address", "the destination is not public", {
      rule,
      generation,
      address,
    });
  }
  return admission;
}
