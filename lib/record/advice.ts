/**
 * What to do about a decision, for the reasons that a new rule does not answer: advice that would do
 * nothing is worse than none.
 */
import type { Decision, Reason } from "../decision.ts";
import { Ip } from "../net/ip.ts";
import { restrictedRange } from "../net/restricted.ts";
import type { ExplainedStep } from "../rules/explain.ts";
import { attemptText } from "../rules/words.ts";

/** What a reason means, in a clause. */
const MEANINGS: Readonly<Record<Reason, string>> = {
  rule: "a rule decided",
  rule_error: "a block rule could not be evaluated, which blocks",
  default: "no rule allows it",
  port: "a rule allows the host, but not this port",
  observed: "no rule allows it; it passed because the agent is observed",
  proxy_only: "the rule that decides admits the proxy alone",
  unknown_source: "the source is no agent: it is outside every managed network",
  restricted_address: "the name leads to an address that is not public",
  local_address: "the destination is this host, or another agent",
  malformed: "what the agent sent is malformed or ambiguous",
  sni_missing: "the agent's TLS names no server",
  sni_mismatch: "the agent's TLS names another server than the CONNECT",
  not_tls: "what the agent sent into the tunnel is not TLS",
  limit: "a limit was reached",
  query_rate: "the agent's queries come faster than they may",
  name_rate:
    "too many new names, or questions that no cache answers, under one rule within a minute",
  name_shape: "the name looks like data in disguise",
  grant_limit: "so much is open to the agent in the kernel that nothing more can be",
  grant_failed: "the kernel did not open what the rules allow",
  zero_ttl: "an answer that must not be kept for a second opens nothing",
  internal_error: "the daemon failed, and what cannot be judged is blocked",
  upstream_failed: "the destination, or the resolver, did not answer properly",
  forward_denied: "packets past the DNS filter and the proxy go nowhere",
  input_denied: "of the host agents reach the DNS filter and the proxy, and nothing else",
  agent_to_agent: "agents do not reach each other",
  outside_denied: "nobody outside reaches agents or their gateways",
  spoofed: "the sender's address or MAC is not its own",
  unpinned: "it came before the agent was known, a moment after its start",
  ipv6: "all IPv6 of agents is dropped",
  foreign_ethertype: "only IPv4 and ARP without VLAN tags leave an agent",
  client_closed: "the agent closed its connection",
};

/** What a reason means, in a clause. */
export function meaningOf(reason: Reason): string {
  return MEANINGS[reason];
}

/** What the advice is given on. */
export interface Circumstances {
  readonly decision: Decision;
  /** By the rules in force now; empty where rules were not asked. */
  readonly now: readonly ExplainedStep[];
  /** Rules that would allow it are shown. */
  readonly hasProposals: boolean;
  /** One of them is kept from it by a block rule. */
  readonly isBlockedInFront: boolean;
}

function ruleText({ id, file, line }: { id: string; file: string; line: number }): string {
  return `${id} (${file}:${line})`;
}

/** The allow rule that admitted the attempt as far as it went, by the rules of now. */
function admittingRule(now: readonly ExplainedStep[]): string | null {
  const rule = now.findLast(({ verdict }) => verdict.allowed)?.rule ?? null;
  return rule === null ? null : ruleText(rule);
}

/** What helps against what the kernel drops, where it is not the way out. */
function kernelAdvice(decision: Decision): string[] {
  switch (decision.reason) {
    case "input_denied":
      return [
        "Nothing opens this: of the host agents reach the DNS filter and the proxy on their gateway, and no other address or port.",
      ];
    case "agent_to_agent":
      return ["Nothing opens this: agents do not reach each other, by whatever way."];
    case "outside_denied":
      return [
        "Nothing opens this: nobody outside reaches agents or their gateways. The host itself does.",
      ];
    case "spoofed":
      return [
        "No rule changes this. Something in the agent writes packets of its own, or has changed its interface: find out what runs there.",
        "Both need NET_RAW or NET_ADMIN, which outcall container create takes away.",
      ];
    case "unpinned":
      return [
        "It passes a moment after the agent's start. If it goes on, the daemon's log says why the port stays cut off.",
      ];
    case "ipv6":
    case "foreign_ethertype":
      return ["Nothing opens this: managed networks carry IPv4 alone, without VLAN tags."];
    default:
      return wayOutAdvice(decision);
  }
}

function wayOutAdvice({ attempt }: Decision): string[] {
  const { port, protocol } = attempt;
  const advice = [
    "The packet went past the DNS filter and the proxy; no rule that goes through the proxy can let it pass.",
  ];
  if (port === 53) {
    return [
      ...advice,
      "Have the agent use its gateway as the only resolver: /etc/resolv.conf of the container.",
    ];
  }
  if (protocol === "udp" && port === 443) {
    return [...advice, "This is QUIC, which clients give up for HTTPS through the proxy."];
  }
  return [
    ...advice,
    "HTTP and HTTPS: have the agent use the proxy (HTTP_PROXY and HTTPS_PROXY), and allow the host by a rule.",
    "Other protocols: a rule with egress { mode: direct_ip } for the name that the agent looks up; or for a time: outcall grants allow --agent <name> --to <address>:<port>. Addresses of this host and of other agents are never opened.",
  ];
}

function tlsAdvice(admitted: string | null): string[] {
  return [
    "No rule about hosts helps: the CONNECT was allowed, and what came through the tunnel does not fit it.",
    `If the client cannot be mended: egress { tls: any } on ${
      admitted ?? "the rule that allows the CONNECT"
    } lets any bytes pass to that host. Nobody then checks which server they are meant for.`,
  ];
}

/** What to do about a blocked attempt, one sentence or two each. */
export function adviceFor(circumstances: Circumstances): readonly string[] {
  const { decision, now, isBlockedInFront } = circumstances;
  if (decision.verdict === "allow") return [];
  const blocking = now.find(({ verdict }) => !verdict.allowed);
  const general = isBlockedInFront
    ? [
      `Pasting a rule is not enough: ${
        blocking?.rule === null || blocking === undefined
          ? "a block rule"
          : `block rule ${ruleText(blocking.rule)}`
      } decides first. Narrow it, or give the allow rule a lower priority number.`,
    ]
    : [];
  if (decision.layer === "kernel") return kernelAdvice(decision);
  switch (decision.reason) {
    case "rule":
    case "default":
    case "port":
      return [...general, ...rulesAdvice(circumstances)];
    case "rule_error":
      return blocking?.rule === null || blocking === undefined ? general : [
        `Mend the condition of ${
          ruleText(blocking.rule)
        }: it fails on attempts like this one, and so blocks them.`,
      ];
    case "restricted_address":
      return [
        `A new rule behind it changes nothing. If the host is meant to be inside your network: egress { allow_private_ips: true } on ${
          admittingRule(now) ?? "the rule that allows it"
        }, best with network.ip.inCidr(…) in its condition.`,
        "If it is not, somebody points the name at your network: leave it blocked.",
      ];
    case "observed":
      return [];
    case "proxy_only":
      return [
        `Have the agent use the proxy. What cannot: egress { mode: direct_ip } on ${
          decision.rule === null ? "the rule that allows it" : ruleText(decision.rule)
        }.`,
      ];
    case "grant_limit":
    case "grant_failed":
      return [`No rule changes this: the daemon's log says more about ${decision.id}.`];
    case "zero_ttl":
      return ["No rule changes this: the name's owner wants no answer kept. Use the proxy for it."];
    case "local_address":
      return ["Nothing opens this: agents reach neither the host nor each other."];
    case "sni_missing":
    case "sni_mismatch":
    case "not_tls":
      return tlsAdvice(admittingRule(now));
    case "query_rate":
      return ["No rule changes this. If the agent is sound: raise --dns-query-rate."];
    case "name_rate":
    case "name_shape":
      return [
        "Names can carry data out. A rule that spells the name out (http.host == …, no suffix) is not limited.",
      ];
    case "limit":
      return ["No rule changes this: see the limits in docs/configuration.md."];
    case "malformed":
      return ["No rule changes this: the client has to send what can be read in one way only."];
    case "unknown_source":
      return ["Attach the container to a managed network: outcall network list."];
    case "upstream_failed":
      return ["No rule changes this: it was allowed, and failed on the way."];
    case "forward_denied":
    case "input_denied":
    case "agent_to_agent":
    case "outside_denied":
    case "spoofed":
    case "unpinned":
    case "ipv6":
    case "foreign_ethertype":
      return kernelAdvice(decision);
    case "internal_error":
      return [`No rule changes this: the daemon's log says more about ${decision.id}.`];
    default:
      return [];
  }
}

function rulesAdvice({ decision, now, hasProposals }: Circumstances): string[] {
  if (hasProposals) return [];
  if (decision.layer === "container") {
    return ["Only rules that read docker.* decide about containers: see docs/containers.md."];
  }
  if (now.length > 0 && now.every(({ verdict }) => verdict.allowed)) {
    return [`The rules in force now allow it: ${attemptText(decision)}.`];
  }
  const ip = Ip.parse(decision.attempt.address ?? decision.attempt.host ?? "");
  if (ip !== null && restrictedRange(ip) !== null) {
    return [
      "The address is not public: only a rule with egress { allow_private_ips: true } can open it, and none opens this host's own or other agents' addresses.",
    ];
  }
  return ["No rule could be found that allows just this: see docs/rules.md."];
}
