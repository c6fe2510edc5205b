/** Resolving a name for the proxy: the same cache and upstreams, addresses instead of packets. */
import type { Agent } from "../agents.ts";
import type { Reason } from "../decision.ts";
import { type Hostname, isLinkLocalName } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import type { Judge, Judgement } from "../policy.ts";
import type { RuleRef } from "../rules/types.ts";
import { Rcode, RecordType } from "./codes.ts";
import { wireNameOf } from "./name.ts";
import type { LookupLimits } from "./limits.ts";
import type { Question } from "./message.ts";
import { judgeName, refusedAlias } from "./policy.ts";
import type { AnswerSource, Resolution } from "./resolver.ts";
import { UpstreamError } from "./upstream.ts";

/** Why a name has no address. */
export type LookupFailure =
  /** There is no such name. */
  | "nxdomain"
  /** The name exists, without an IPv4 address. */
  | "nodata"
  /** It is an alias for a name that a rule blocks. */
  | "blocked_alias"
  /** The agent asks for too much, or for what looks like data in disguise. */
  | "limit"
  /** No upstream gave a usable answer. */
  | "upstream_failed";

/** What a decision record says of a look-up that policy or a limit forbade. */
export interface LookupRefusal {
  readonly reason: Reason;
  readonly rule: RuleRef | null;
  readonly generation: number;
}

function refusalBy({ verdict, generation }: Judgement, reason: Reason): LookupRefusal {
  return { reason, rule: verdict.rule, generation };
}

/** A name could not be resolved. */
export class LookupError extends Error {
  override readonly name = "LookupError";

  /** @param refusal Null: nobody forbade it. */
  constructor(
    readonly failure: LookupFailure,
    message: string,
    readonly refusal: LookupRefusal | null,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What a look-up needs. */
export interface LookupParts {
  readonly judge: Judge;
  readonly resolver: AnswerSource;
  readonly limits: LookupLimits;
}

/** @throws LookupError `limit`; or what {@linkcode AnswerSource.ask} throws. */
async function ask(
  { judge, resolver, limits }: LookupParts,
  agent: Agent,
  hostname: Hostname,
  question: Question,
): Promise<Resolution> {
  const judgement = judgeName(judge, agent, hostname, question.type);
  const reason = limits.refusal(agent, hostname, judgement.verdict);
  if (reason !== null) {
    const message = `${hostname.name} was not asked for: ${reason}`;
    throw new LookupError("limit", message, refusalBy(judgement, reason));
  }
  return await limits.track(agent.address, resolver.ask(question, false));
}

/**
 * The IPv4 addresses of `hostname`, at least one, restricted ones among them: the caller has judged
 * the name, and judges each address before it dials it.
 * @throws LookupError
 */
export async function lookupAddresses(
  parts: LookupParts,
  agent: Agent,
  hostname: Hostname,
): Promise<readonly Ip[]> {
  const { name } = hostname;
  const question = { name: wireNameOf(hostname), type: RecordType.A };
  // The proxy judges requests, not names, so no verdict has kept it from asking.
  if (isLinkLocalName(name)) throw new LookupError("nxdomain", `${name} is never asked for`, null);
  try {
    const { answer } = parts.resolver.cached(question, false) ??
      await ask(parts, agent, hostname, question);
    const refused = refusedAlias(parts.judge, agent, answer.aliases, question.type);
    if (refused !== null) {
      throw new LookupError(
        "blocked_alias",
        `${name} is an alias for a name that is not allowed`,
        refused.kind === "blocked"
          ? refusalBy(refused.judgement, refused.judgement.verdict.reason)
          : null,
      );
    }
    if (answer.rcode === Rcode.NXDOMAIN) {
      throw new LookupError("nxdomain", `${name} does not exist`, null);
    }
    const addresses = answer.answers
      .filter((record) => record.type === RecordType.A)
      .map((record) => Ip.fromBytes(record.data));
    if (addresses.length === 0) {
      throw new LookupError("nodata", `${name} has no IPv4 address`, null);
    }
    return addresses;
  } catch (thrown) {
    if (!(thrown instanceof UpstreamError)) throw thrown;
    throw new LookupError("upstream_failed", `${name} could not be resolved`, null, {
      cause: thrown,
    });
  }
}
