/** Resolving a name for the proxy: the same cache and upstreams, addresses instead of packets. */
import type { Agent } from "../agents.ts";
import type { Hostname } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import type { Judge } from "../policy.ts";
import { Rcode, RecordType } from "./codes.ts";
import { wireNameOf } from "./name.ts";
import { refusedAlias } from "./policy.ts";
import type { Resolver } from "./resolver.ts";
import { UpstreamError } from "./upstream.ts";
import type { Waiting } from "./waiting.ts";

/** Why a name has no address. */
export type LookupFailure =
  /** There is no such name. */
  | "nxdomain"
  /** The name exists, without an IPv4 address. */
  | "nodata"
  /** It is an alias for a name that a rule blocks. */
  | "blocked_alias"
  /** The agent waits for too many look-ups already. */
  | "limit"
  /** No upstream gave a usable answer. */
  | "upstream_failed";

/** A name could not be resolved. */
export class LookupError extends Error {
  override readonly name = "LookupError";

  constructor(readonly failure: LookupFailure, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** What a look-up needs. */
export interface LookupParts {
  readonly judge: Judge;
  readonly resolver: Resolver;
  readonly waiting: Waiting;
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
  if (!parts.waiting.admits(agent.address)) {
    throw new LookupError("limit", `too many look-ups are waiting; ${name} was not asked`);
  }
  const question = { name: wireNameOf(hostname), type: RecordType.A };
  try {
    const resolving = parts.resolver.resolve(question, false);
    const { answer } = resolving instanceof Promise
      ? await parts.waiting.track(agent.address, resolving)
      : resolving;
    if (refusedAlias(parts.judge, agent, answer.aliases, question.type) !== null) {
      throw new LookupError("blocked_alias", `${name} is an alias for a name that is not allowed`);
    }
    if (answer.rcode === Rcode.NXDOMAIN) {
      throw new LookupError("nxdomain", `${name} does not exist`);
    }
    const addresses = answer.answers
      .filter((record) => record.type === RecordType.A)
      .map((record) => Ip.fromBytes(record.data));
    if (addresses.length === 0) throw new LookupError("nodata", `${name} has no IPv4 address`);
    return addresses;
  } catch (thrown) {
    if (!(thrown instanceof UpstreamError)) throw thrown;
    throw new LookupError("upstream_failed", `${name} could not be resolved`, { cause: thrown });
  }
}
