/**
 * The filter itself: from a packet to the packet that answers it. Knows no sockets.
 *
 * The order is the point: who asks, what is asked, whether policy admits it, and only then the cache
 * or an upstream. Whatever goes wrong on the way ends in a refusal, never in an answer.
 */
import { type Agent, type AgentDirectory, isSameAgent } from "../agents.ts";
import type { Decision, NewDecision, Reason } from "../decision.ts";
import { messageOf, OutcallError } from "../errors.ts";
import { hostInLog, logger } from "../log.ts";
import type { Hostname } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import { restrictedRange } from "../net/restricted.ts";
import type { Judge, Judgement } from "../policy.ts";
import type { DirectTerms } from "../rules/types.ts";
import { admitRecords, signedType } from "./answer.ts";
import { buildRefusal, buildReply, type Ede, type Reply, udpReplyLimitBytes } from "./build.ts";
import { ExtendedError, MAX_MESSAGE_BYTES, Rcode, RecordType, typeName } from "./codes.ts";
import type { AskingLimits } from "./limits.ts";
import type { ParsedQuery, Query, ResourceRecord } from "./message.ts";
import { type AddressOpener, lifeSecsOf, type OpenedAddresses } from "./opener.ts";
import { hostnameOf, nameText, type WireName } from "./name.ts";
import { parseQuery } from "./parse.ts";
import { isAnswered, judgeName, refusedAlias } from "./policy.ts";
import type { AnswerSource, Resolution } from "./resolver.ts";
import { UpstreamError } from "./upstream.ts";

const log = logger("dns");

/** Where a packet came from. */
export interface QuerySource {
  /** Dotted decimal, as the kernel reported it. */
  readonly address: string;
  readonly transport: "udp" | "tcp";
}

/** Names decisions and passes them on. */
export interface DecisionRecorder {
  /** Must not throw. */
  record(decision: NewDecision): { readonly id: string };
}

/** Everything the filter needs. */
export interface FilterParts {
  readonly agents: AgentDirectory;
  readonly judge: Judge;
  /** Of the policy in force, for refusals that it is not asked about. */
  readonly generation: () => number;
  readonly decisions: DecisionRecorder;
  readonly resolver: AnswerSource;
  readonly limits: AskingLimits;
  readonly opener: AddressOpener;
}

/** Thrown by a part that cannot do its work in this isolate: another one has to handle the packet. */
export class NotHere extends Error {
  override readonly name = "NotHere";
}

/** Answers packets: the filter, or what stands before it. */
export interface PacketHandler {
  /** See {@linkcode DnsFilter.handle}. */
  handle(packet: Uint8Array, source: QuerySource): Handled;
}

/** Queries since start-up; every one is either allowed or blocked. */
export interface FilterCounters {
  readonly total: number;
  readonly allowed: number;
  readonly blocked: number;
}

/** What a packet's handling comes to: a reply, or silence; at once where nothing has to be waited for. */
export type Handled = Uint8Array | null | Promise<Uint8Array | null>;

/** How long a client may remember a refusal (S007-FR-010). */
const BLOCK_TTL_SECS = 60;

/** `outcall.invalid`: names the filter as the source, in a domain that never exists (RFC 2606). */
const SOA_SERVER = "\x07outcall\x07invalid\0";

const BLOCKED_TEXT = "Blocked by outcall, decision";

/** One well-formed query from a known agent. */
interface Asked {
  readonly query: Query;
  readonly source: QuerySource;
  readonly agent: Agent;
  /** Queries that this one is refused for; absent: one. */
  readonly attempts?: number;
}

/** A query for a name that rules can name. */
interface AskedName extends Asked {
  readonly hostname: Hostname;
}

/** What became of one packet. */
interface Outcome {
  readonly agent: Agent | null;
  readonly source: QuerySource;
  /** Null: it was no well-formed query. */
  readonly query: Query | null;
  /** Absent: not read, or none. */
  readonly hostname?: Hostname;
  readonly verdict: Decision["verdict"];
  readonly reason: Reason;
  /** Absent or null: no policy was asked. */
  readonly judgement?: Judgement | null;
  /** Absent: one. */
  readonly attempts?: number;
  /** See {@linkcode Decision.upstreamMs}. */
  readonly upstreamMs?: number | null;
}

/** Records that the address policy admits, and what they come from. */
interface Passing {
  readonly resolution: Resolution;
  /** With the TTLs of this moment. */
  readonly answers: readonly ResourceRecord[];
  readonly authority: readonly ResourceRecord[];
}

/** The data of our SOA. */
const SOA_DATA = soaData();

function soaData(): Uint8Array {
  const data = new Uint8Array(2 * SOA_SERVER.length + 20);
  for (let i = 0; i < SOA_SERVER.length; i++) {
    data[i] = SOA_SERVER.charCodeAt(i);
    data[SOA_SERVER.length + i] = SOA_SERVER.charCodeAt(i);
  }
  const timers = new DataView(data.buffer, 2 * SOA_SERVER.length);
  // Serial, refresh, retry, expire, minimum: only the last one means anything without transfers.
  [1, 3600, 600, 86_400, BLOCK_TTL_SECS].forEach((value, i) => timers.setUint32(4 * i, value));
  return data;
}

/** An SOA that lets resolvers remember the absence of `name` (RFC 2308 §3). */
function ownSoa(name: WireName): ResourceRecord {
  return { name, type: RecordType.SOA, ttlSecs: BLOCK_TTL_SECS, data: SOA_DATA };
}

function aged(records: readonly ResourceRecord[], ageSecs: number): readonly ResourceRecord[] {
  if (ageSecs === 0) return records;
  return records.map((record) => ({ ...record, ttlSecs: Math.max(0, record.ttlSecs - ageSecs) }));
}

/** A reply without records. */
function empty(rcode: Rcode, ede: Ede | null): Reply {
  return { rcode, authoritative: false, answers: [], authority: [], ede };
}

function render(query: Query, source: QuerySource, reply: Reply): Uint8Array {
  const limit = source.transport === "udp" ? udpReplyLimitBytes(query) : MAX_MESSAGE_BYTES;
  return buildReply(query, reply, limit);
}

/** Answers agents' queries by policy. */
export class DnsFilter implements PacketHandler {
  readonly #parts: FilterParts;
  #total = 0;
  #allowed = 0;

  constructor(parts: FilterParts) {
    this.#parts = parts;
  }

  /** Counters since start-up. */
  counters(): FilterCounters {
    return {
      total: this.#total,
      allowed: this.#allowed,
      blocked: this.#total - this.#allowed,
    };
  }

  /**
   * The reply to `packet`, or null for silence. Does not hold on to `packet` after it returned.
   * Never rejects.
   * @throws NotHere when a part threw that; nothing was recorded then. Nothing else.
   */
  handle(packet: Uint8Array, source: QuerySource): Handled {
    return this.#withAgent(packet, source, (agent, parsed) => {
      const handled = this.#handleFrom(agent, parsed, source);
      return handled instanceof Promise ? this.#toWhoAsked(agent, source, handled) : handled;
    });
  }

  /**
   * The refusal, for `reason`, of a `packet` too many. As {@linkcode handle}.
   * @param attempts Queries that it stands for.
   */
  refuseExcess(packet: Uint8Array, source: QuerySource, reason: Reason, attempts = 1): Handled {
    return this.#withAgent(packet, source, (agent, parsed) => {
      return agent === null || parsed.kind !== "query"
        ? this.#handleFrom(agent, parsed, source)
        : this.#fail({ query: parsed.query, source, agent, attempts }, reason, null);
    });
  }

  #withAgent(
    packet: Uint8Array,
    source: QuerySource,
    then: (agent: Agent | null, parsed: ParsedQuery) => Handled,
  ): Handled {
    const parsed = parseQuery(packet);
    try {
      const agent = this.#parts.agents.identify(source.address);
      const handled = agent instanceof Promise
        ? this.#whenIdentified(agent, parsed, source, then)
        : then(agent, parsed);
      if (!(handled instanceof Promise)) return handled;
      return handled.catch((thrown: unknown) => this.#giveUp(parsed, source, thrown));
    } catch (thrown) {
      if (thrown instanceof NotHere) throw thrown;
      return this.#giveUp(parsed, source, thrown);
    }
  }

  async #whenIdentified(
    identifying: Promise<Agent | null>,
    parsed: ParsedQuery,
    source: QuerySource,
    then: (agent: Agent | null, parsed: ParsedQuery) => Handled,
  ): Promise<Uint8Array | null> {
    const { limits } = this.#parts;
    if (!limits.mayWait(source.address)) {
      identifying.catch(() => {}); // It is reported to those who wait for it.
      return this.#failUnjudged(parsed, source, "limit");
    }
    return await then(await limits.track(source.address, identifying), parsed);
  }

  /** A reply that took a while is for `agent`, and not for whoever has its address by then. */
  async #toWhoAsked(
    agent: Agent | null,
    { address }: QuerySource,
    replying: Promise<Uint8Array | null>,
  ): Promise<Uint8Array | null> {
    const reply = await replying;
    // Whom nobody knew was judged as nobody: that answer may go to anybody.
    if (agent === null || agent.name === "") return reply;
    return isSameAgent(agent, await this.#parts.agents.identify(address)) ? reply : null;
  }

  /** S007-FR-032: what went wrong is not answered, and not asked upstream. */
  #giveUp(parsed: ParsedQuery, source: QuerySource, thrown: unknown): Uint8Array | null {
    log.error("a query from {source} failed: {error}", {
      source: source.address,
      error: messageOf(thrown),
    });
    return this.#failUnjudged(parsed, source, "internal_error");
  }

  #failUnjudged(parsed: ParsedQuery, source: QuerySource, reason: Reason): Uint8Array | null {
    const query = parsed.kind === "query" ? parsed.query : null;
    const id = this.#record({ agent: null, source, query, verdict: "block", reason });
    if (query === null) return null;
    const ede = { code: ExtendedError.BLOCKED, text: `${BLOCKED_TEXT} ${id}` };
    return render(query, source, empty(Rcode.SERVFAIL, ede));
  }

  #handleFrom(agent: Agent | null, parsed: ParsedQuery, source: QuerySource): Handled {
    if (agent === null) return this.#refuseStranger(parsed, source);
    if (parsed.kind !== "query") {
      log.debug("malformed query from {source}: {why}", {
        source: source.address,
        why: parsed.why,
      });
      this.#record({ agent, source, query: null, verdict: "block", reason: "malformed" });
      return parsed.kind === "refusal" ? buildRefusal(parsed) : null;
    }
    const { query } = parsed;
    const hostname = hostnameOf(query.question.name);
    if (hostname === null) return this.#block({ query, source, agent }, "malformed", null);
    return this.#handleName({ query, source, agent, hostname });
  }

  /** S007-FR-039, decision D5: who is outside every managed network gets nothing here. */
  #refuseStranger(parsed: ParsedQuery, source: QuerySource): Uint8Array | null {
    const query = parsed.kind === "query" ? parsed.query : null;
    const id = this.#record({
      agent: null,
      source,
      query,
      verdict: "block",
      reason: "unknown_source",
    });
    if (query !== null) {
      const ede = { code: ExtendedError.PROHIBITED, text: `Not an agent, decision ${id}` };
      return render(query, source, empty(Rcode.REFUSED, ede));
    }
    return parsed.kind === "refusal" ? buildRefusal({ ...parsed, rcode: Rcode.REFUSED }) : null;
  }

  #handleName(asked: AskedName): Handled {
    const { query, agent, hostname } = asked;
    const judgement = this.#judge(asked);
    if (!judgement.verdict.allowed) return this.#blockBy(asked, judgement);
    const { resolver, limits } = this.#parts;
    const { name, type } = query.question;
    // Whether the name exists is learned from the type that clients ask anyway.
    const question = { name, type: isAnswered(type, judgement) ? type : RecordType.A };
    const dnssecOk = query.edns?.dnssecOk ?? false;
    const cached = resolver.cached(question, dnssecOk);
    if (cached !== null) return this.#pass(asked, judgement, cached, question.type);
    const refusal = limits.refusal(agent, hostname, judgement.verdict);
    if (refusal === "name_shape") return this.#block(asked, refusal, judgement);
    if (refusal !== null) return this.#fail(asked, refusal, judgement);
    const asking = limits.track(agent.address, resolver.ask(question, dnssecOk));
    return this.#whenResolved(asked, asking, question.type);
  }

  async #whenResolved(
    asked: AskedName,
    resolving: Promise<Resolution>,
    resolvedType: number,
  ): Promise<Uint8Array | null> {
    let resolution: Resolution;
    try {
      resolution = await resolving;
    } catch (thrown) {
      return this.#failUpstream(asked, this.#judge(asked), thrown);
    }
    // The policy may have changed while the upstream was asked.
    const judgement = this.#judge(asked);
    if (!judgement.verdict.allowed) return this.#blockBy(asked, judgement);
    return this.#pass(asked, judgement, resolution, resolvedType);
  }

  #judge({ agent, hostname, query }: AskedName): Judgement {
    return judgeName(this.#parts.judge, agent, hostname, query.question.type);
  }

  #pass(
    asked: AskedName,
    judgement: Judgement,
    resolution: Resolution,
    resolvedType: number,
  ): Handled {
    const { query, agent } = asked;
    const { answer, ageSecs } = resolution;
    const { name, type } = query.question;
    const refused = refusedAlias(this.#parts.judge, agent, answer.aliases, type);
    if (refused?.kind === "blocked") return this.#blockBy(asked, refused.judgement);
    if (refused?.kind === "unreadable") return this.#fail(asked, "upstream_failed", judgement);

    const allowPrivateIps = judgement.verdict.egress?.allowPrivateIps ?? false;
    const direct = judgement.verdict.dns?.direct;
    // Only what an A query tells is opened, so hints would lead nowhere.
    const areUsable = direct === undefined || type === RecordType.A;
    const admitted = admitRecords(
      answer.answers,
      (address) => areUsable && (allowPrivateIps || restrictedRange(address) === null),
    );
    let { records } = admitted;
    let { authority } = answer;
    if (type !== resolvedType || !isAnswered(type, judgement)) {
      records = records.filter((record) => signedType(record) === RecordType.CNAME);
      if (authority.length === 0) authority = [ownSoa(answer.aliases.at(-1) ?? name)];
    } else if (
      admitted.addressesRemoved > 0 && !records.some((record) => record.type === RecordType.A)
    ) {
      return this.#fail(asked, "restricted_address", judgement);
    }
    const passing: Passing = {
      resolution,
      answers: aged(records, ageSecs),
      authority: aged(authority, ageSecs),
    };
    return direct !== undefined && type === RecordType.A
      ? this.#open(asked, judgement, passing, direct)
      : this.#allow(asked, judgement, passing);
  }

  #allow(asked: AskedName, judgement: Judgement, passing: Passing): Uint8Array {
    const { answers, authority, resolution: { answer, upstreamMs } } = passing;
    const { reason } = judgement.verdict;
    this.#record({ ...asked, verdict: "allow", reason, judgement, upstreamMs });
    return render(asked.query, asked.source, {
      rcode: answer.rcode,
      authoritative: false,
      answers,
      authority,
      ede: null,
    });
  }

  /** Decision D12: what the rules open of an answer is open before the answer leaves. */
  #open(
    asked: AskedName,
    judgement: Judgement,
    passing: Passing,
    { openings, isOnly }: DirectTerms,
  ): Handled {
    const { agent, hostname } = asked;
    const addresses = passing.answers.filter(({ type }) => type === RecordType.A)
      .map(({ data }) => Ip.fromBytes(data));
    if (addresses.length === 0) return this.#allow(asked, judgement, passing);
    const lifeSecs = lifeSecsOf(Math.min(...passing.answers.map(({ ttlSecs }) => ttlSecs)));
    if (lifeSecs === null) {
      return isOnly
        ? this.#fail(asked, "zero_ttl", judgement)
        : this.#allow(asked, judgement, passing);
    }
    const { limits, opener } = this.#parts;
    // Asking for one cached name again and again must not fill the kernel's transactions.
    if (!limits.mayWait(agent.address)) return this.#fail(asked, "limit", judgement);
    const learned = { agent, hostname, addresses, openings, lifeSecs };
    return this.#whenOpened(asked, passing, limits.track(agent.address, opener.open(learned)));
  }

  async #whenOpened(
    asked: AskedName,
    passing: Passing,
    opening: Promise<OpenedAddresses>,
  ): Promise<Uint8Array> {
    let opened: OpenedAddresses;
    try {
      opened = await opening;
    } catch (thrown) {
      if (!(thrown instanceof OutcallError)) throw thrown;
      log.warn("{host} is not answered: {why}", {
        host: hostInLog(asked.hostname.name),
        why: thrown.message,
      });
      return this.#fail(asked, "grant_failed", this.#judge(asked));
    }
    // The policy may have changed meanwhile.
    const judgement = this.#judge(asked);
    if (!judgement.verdict.allowed) return this.#blockBy(asked, judgement);
    const { addresses, lifeSecs, refusal } = opened;
    const isOnly = judgement.verdict.dns?.direct?.isOnly ?? false;
    if (isOnly && addresses.size === 0 && refusal !== null) {
      const { reason, judgement: refusing } = refusal;
      return refusing?.verdict.allowed === false
        ? this.#block(asked, reason, refusing)
        : this.#fail(asked, reason, refusing ?? judgement);
    }
    const { records } = admitRecords(
      passing.answers,
      (address) => !isOnly || addresses.has(address.text),
    );
    const answers = addresses.size === 0
      ? records
      : records.map((record) => ({ ...record, ttlSecs: Math.min(record.ttlSecs, lifeSecs) }));
    return this.#allow(asked, judgement, { ...passing, answers });
  }

  #blockBy(asked: Asked, judgement: Judgement): Uint8Array {
    return this.#block(asked, judgement.verdict.reason, judgement);
  }

  /** S007-FR-010: the name does not exist, for a minute. */
  #block(asked: Asked, reason: Reason, judgement: Judgement | null): Uint8Array {
    const { query, source } = asked;
    const id = this.#record({ ...asked, verdict: "block", reason, judgement });
    return render(query, source, {
      rcode: Rcode.NXDOMAIN,
      authoritative: true,
      answers: [],
      authority: [ownSoa(query.question.name)],
      ede: { code: ExtendedError.BLOCKED, text: `${BLOCKED_TEXT} ${id}` },
    });
  }

  /** An allowed name that cannot be answered all the same. */
  #fail(asked: Asked, reason: Reason, judgement: Judgement | null): Uint8Array {
    const { query, source } = asked;
    const id = this.#record({ ...asked, verdict: "block", reason, judgement });
    const ede = reason === "upstream_failed"
      ? { code: ExtendedError.NO_REACHABLE_AUTHORITY, text: `No upstream answered, decision ${id}` }
      : { code: ExtendedError.BLOCKED, text: `${BLOCKED_TEXT} ${id}` };
    return render(query, source, empty(Rcode.SERVFAIL, ede));
  }

  /** @throws what was thrown, when it is a defect and no failure of the upstreams. */
  #failUpstream(asked: AskedName, judgement: Judgement, thrown: unknown): Uint8Array {
    if (!(thrown instanceof UpstreamError)) throw thrown;
    log.debug("{host} not resolved: {why}", {
      host: hostInLog(asked.hostname.name),
      why: thrown.message,
    });
    return this.#fail(asked, "upstream_failed", judgement);
  }

  /** Counts and records what became of one packet; returns the decision's id. */
  #record(outcome: Outcome): string {
    const { agent, source, query, verdict, reason, judgement, attempts = 1, upstreamMs } = outcome;
    const attempt = query === null ? {} : {
      host: outcome.hostname?.name ?? nameText(query.question.name),
      recordType: typeName(query.question.type),
    };
    const rule = judgement?.verdict.rule ?? null;
    const { id } = this.#parts.decisions.record({
      generation: judgement?.generation ?? this.#parts.generation(),
      layer: "dns",
      agent,
      source: source.address,
      attempt,
      verdict,
      reason,
      rule,
      ...(upstreamMs === undefined ? {} : { upstreamMs }),
      ...(attempts === 1 ? {} : { count: attempts }),
    });
    this.#total += attempts;
    if (verdict === "allow") this.#allowed++;
    return id;
  }
}
