/** What the policy is asked about names. */
import { type Agent, agentFacts } from "../agents.ts";
import type { Hostname } from "../net/host.ts";
import type { Judge, Judgement } from "../policy.ts";
import type { Facts } from "../rules/types.ts";
import { RecordType, typeName } from "./codes.ts";
import { hostnameOf, type WireName } from "./name.ts";

/**
 * What is known when an agent asks for `name`. The request that follows will be
 * for that host, so `network.hostname` and `http.host` are known to be the name; everything else
 * about it is not.
 * @param name Normalised, as in `Hostname.name`.
 * @param recordType As {@linkcode typeName} gives it.
 */
function dnsFacts(
  name: string,
  recordType: string,
  agent: NonNullable<Facts["agent"]>,
): Facts {
  return {
    network: { hostname: name },
    http: { host: name },
    dns: { query: name, record_type: recordType },
    agent,
  };
}

/** Whether `agent` may resolve `hostname`. */
export function judgeName(judge: Judge, agent: Agent, hostname: Hostname, type: number): Judgement {
  return judge("dns", dnsFacts(hostname.name, typeName(type), agentFacts(agent)));
}

/** The types that every allowed name is answered with: what a client needs to connect. */
const COMMON_TYPES: ReadonlySet<number> = new Set([
  RecordType.A,
  RecordType.CNAME,
  RecordType.SVCB,
  RecordType.HTTPS,
]);

/**
 * Whether records of `type` pass. Where not, the client is told that the name exists and has no such
 * record. AAAA never passes: managed networks are IPv4 (decision D27).
 */
export function isAnswered(type: number, { verdict }: Judgement): boolean {
  return COMMON_TYPES.has(type) ||
    (type !== RecordType.AAAA && verdict.dns?.namesRecordType === true);
}

/** Why a chain of aliases must not be followed. */
export type AliasRefusal =
  /** A block rule is about the alias. */
  | { readonly kind: "blocked"; readonly judgement: Judgement }
  /** It is no hostname, so that no rule could be about it. */
  | { readonly kind: "unreadable" };

/**
 * The first refusal among the names that a chain of CNAMEs leads to, or null (ADV-DNS-07).
 *
 * An allowed name stays allowed when it is an alias for a name that no rule mentions: that is how
 * content networks work, and their names change. A rule that blocks a name, though, blocks it under
 * every alias.
 */
export function refusedAlias(
  judge: Judge,
  agent: Agent,
  aliases: readonly WireName[],
  type: number,
): AliasRefusal | null {
  for (const alias of aliases) {
    const hostname = hostnameOf(alias);
    if (hostname === null) return { kind: "unreadable" };
    const judgement = judgeName(judge, agent, hostname, type);
    if (!judgement.verdict.allowed && judgement.verdict.reason !== "default") {
      return { kind: "blocked", judgement };
    }
  }
  return null;
}
