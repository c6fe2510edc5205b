/**
 * How the firewall reports what it drops, as data: a rule that drops sends the packet to a chain
 * that copies its head to the kernel's log group, as often as one source may, and drops it. Nobody
 * needs to listen: without a reader, or when the log fails, the packet is dropped all the same.
 *
 * The rules that send packets there count every one of them; the log is for who and where to.
 */
import type { NftRule, NftSet, NftTargetChain } from "./table.ts";

/**
 * The netfilter log group (NFLOG) that drops are written to; `oc` in ASCII. Groups belong to one
 * network namespace, as our tables do, and other programs use small numbers.
 */
export const DROP_GROUP = 0x6f63;

/** Bytes of each packet that are copied: the longest IPv4 header and the ports, and some more. */
const COPIED_BYTES = 128;

/**
 * What one source may have reported. A scan of a thousand ports is seen whole; a flood costs a
 * hundred copies a second.
 */
const PER_SOURCE = "limit rate 100/second burst 1000 packets";
/** For sources that nobody vouches for: all of them together, since they can be made up. */
const ALL_TOGETHER = "limit rate 20/second burst 200 packets";

/** Agents of 16 full networks, or ports of as many bridges; a full set reports no further ones. */
const MAX_SOURCES = 4096;
const SOURCE_TIMEOUT_SECS = 60;

/** Why a packet was dropped, as the kernel's log says: the prefix, and the name of the chain. */
export type DropPrefix =
  | "forward_denied"
  | "agent_to_agent"
  | "input_denied"
  | "spoofed"
  | "ipv6"
  | "outside_denied"
  | "neighbour"
  | "not_as_pinned"
  | "foreign_port";

/** Remembers how much each source has had reported of late. `type`: what a source is known by. */
export function reportedSet(type: readonly string[]): NftSet {
  return {
    name: "reported",
    type,
    flags: ["dynamic", "timeout"],
    bounds: { elements: MAX_SOURCES, timeoutSecs: SOURCE_TIMEOUT_SECS },
    comment: "sources of which drops were logged of late",
    elements: null,
  };
}

/**
 * The chain that reports a packet under `prefix`, and drops it.
 * @param source What its source is known by, in the language of nft and of the type of
 * {@linkcode reportedSet}; null: it may be made up, so all of them share one limit.
 */
export function reportAndDrop(prefix: DropPrefix, source: string | null): NftTargetChain {
  return {
    name: prefix,
    rules: [
      reportRule(prefix, source, "", "for the decision record"),
      { match: "", verdict: "drop", comment: "and no further" },
    ],
  };
}

/** A rule that reports what `match` says, as {@linkcode reportAndDrop} does, and lets it go on. */
export function reportRule(
  prefix: DropPrefix,
  source: string | null,
  match: string,
  comment: string,
): NftRule {
  const limit = source === null ? ALL_TOGETHER : `update @reported { ${source} ${PER_SOURCE} }`;
  return {
    match: `${match} ${limit}`.trim(),
    verdict: `log prefix "${prefix}" group ${DROP_GROUP} snaplen ${COPIED_BYTES}`,
    comment,
  };
}
