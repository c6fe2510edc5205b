/**
 * What the worker answers by itself: names that are blocked, and allowed ones that are cached, asked
 * by agents it was told of. The same filter decides here as in the main isolate; everything it
 * cannot settle on the spot is handed over.
 */
import type { Agent } from "../../agents.ts";
import type { Decision, Reason } from "../../decision.ts";
import type { Rate } from "../../rate.ts";
import { decide } from "../../rules/decide.ts";
import { buildPolicy, type Policy } from "../../rules/policy.ts";
import { cacheKey, DnsCache } from "../cache.ts";
import { DnsFilter, NotHere } from "../filter.ts";
import { LookupLimits } from "../limits.ts";
import { QueryBuckets } from "../rate.ts";
import type { AnswerSource } from "../resolver.ts";
import { ttlOffsets } from "../ttl.ts";
import { Backlog } from "./backlog.ts";
import { Floods } from "./floods.ts";
import { Journal } from "./journal.ts";
import { LEASE_MS, type Report, type Shared, type ToWorker } from "./protocol.ts";
import { KnownReplies, type KnownReply } from "./replies.ts";

/** The main isolate has to handle the packet, and is to be given it at once. */
export const HAND_OVER = Symbol("hand over");

/** What comes of a packet: a reply with any id, silence, or {@linkcode HAND_OVER}. */
export type Response = Uint8Array | null | typeof HAND_OVER;

/** A message that changes what the responder knows. */
export type Update = Exclude<ToWorker, { readonly kind: "open" | "close" | "report" | "end" }>;

/**
 * Replies that are kept, and decisions that are waiting to be repeated. When there are more, all of
 * them are forgotten: that costs a moment's work. No reply is kept to a packet longer than honest
 * ones, so some 14 MB is what it may ever hold.
 */
const MAX_REPLIES = 8192;
const MAX_REPEATED_PACKET_BYTES = 512;

interface Lease {
  readonly agent: Agent;
  untilMs: number;
  /** When it is time to ask for another one, so that nobody has to wait for it. */
  renewAtMs: number;
}

/** Why a source is refused once in each report, and then only counted. */
type ExcessReason = Extract<Reason, "query_rate" | "limit">;

/** The newest decision about a source that asks for too much. */
interface Excess {
  readonly outline: number;
  decision: number;
  report: number;
}

/** What the filter was told from the cache while it handled a packet. */
interface CacheUse {
  readonly key: string;
  readonly expiresAtMs: number;
  readonly agesAtMs: number;
}

function isSameAgent(one: Agent, other: Agent): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** Where the message `reply` ends with `id`, as those with an error text do; null: it does not. */
function trailingIdAt(reply: Uint8Array, id: string): number | null {
  const at = reply.length - id.length;
  for (let i = 0; i < id.length; i++) if (reply[at + i] !== id.charCodeAt(i)) return null;
  return at;
}

function writeAscii(bytes: Uint8Array, at: number, text: string): void {
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
}

// One for all: a stack trace for each packet would cost more than the packet.
const NOT_HERE = new NotHere();

function addressNumber(address: string): number {
  return address.split(".").reduce((number, part) => number * 256 + Number(part), 0);
}

/** Answers what can be answered at once. */
export class Responder {
  readonly journal = new Journal();
  readonly #shared: Shared;
  readonly #leases = new Map<number, Lease>();
  readonly #buckets: QueryBuckets<number>;
  readonly #cache = new DnsCache(() => this.#nowMs);
  readonly #filter: DnsFilter;
  readonly #replies = new KnownReplies();
  readonly floods: Floods;
  readonly #excess: Readonly<Record<ExcessReason, Map<number, Excess>>> = {
    query_rate: new Map(),
    limit: new Map(),
  };
  readonly #backlog: Backlog;
  #renewals: string[] = [];
  #policy: Policy | null = null;
  /** Who is being answered, and where. */
  #agent: Agent | null = null;
  #address = 0;
  #cacheUse: CacheUse | null = null;
  #newest: Pick<Decision, "id" | "reason"> | null = null;
  #epoch: number;
  #nowMs = 0;

  constructor(shared: Shared, rate: Rate) {
    this.#shared = shared;
    this.#backlog = new Backlog(shared);
    // What happened before belongs to a predecessor; this one knows nothing, and needs a policy.
    this.#epoch = shared.epoch;
    this.#buckets = new QueryBuckets(rate, () => this.#nowMs);
    this.floods = new Floods(rate);
    this.#filter = new DnsFilter({
      agents: { identify: () => this.#agent },
      judge: (layer, facts) => {
        if (this.#policy === null) throw NOT_HERE;
        const verdict = decide(this.#policy, layer, facts);
        // The main isolate counts the failures of rules, and tells the operator.
        if (verdict.failures !== undefined) throw NOT_HERE;
        return { verdict, generation: this.#policy.generation };
      },
      // Before the first policy: as of the empty one that the daemon starts with.
      generation: () => this.#policy?.generation ?? 0,
      decisions: {
        record: (decision) => {
          const id = this.journal.record(decision, this.#address);
          this.#newest = { id, reason: decision.reason };
          return { id };
        },
      },
      resolver: this.#answers(),
      // Never asked: nothing goes upstream from here.
      limits: new LookupLimits(),
      // What is opened must be in the kernel first: the main isolate sees to that.
      opener: {
        open: () => {
          throw NOT_HERE;
        },
      },
    });
  }

  #answers(): AnswerSource {
    return {
      cached: (question, dnssecOk) => {
        const key = cacheKey(question, dnssecOk);
        const hit = this.#cache.get(key);
        if (hit === null) throw NOT_HERE;
        const { answer, ageSecs, storedAtMs } = hit;
        this.#cacheUse = {
          key,
          expiresAtMs: storedAtMs + 1000 * answer.lifetimeSecs,
          agesAtMs: storedAtMs + 1000 * (ageSecs + 1),
        };
        this.journal.hit(key);
        return { answer, ageSecs, upstreamMs: null };
      },
      ask: () => {
        throw NOT_HERE;
      },
    };
  }

  /** Takes in what the main isolate says. */
  update(message: Update): void {
    switch (message.kind) {
      case "agent":
        return this.#lease(message.agent);
      case "answer": {
        const { question, dnssecOk, answer, ageSecs } = message;
        this.#cache.set(cacheKey(question, dnssecOk), question, answer, ageSecs);
        return;
      }
      case "policy":
        this.#policy = buildPolicy(message.policy);
        this.#forgetReplies();
        break;
      case "forget":
        if (message.what === "agents") this.#endLeases();
        else this.#forgetAnswers();
    }
    this.#epoch = message.epoch;
  }

  #lease(agent: Agent): void {
    const address = addressNumber(agent.address);
    const known = this.#leases.get(address)?.agent;
    this.#leases.set(address, {
      // Replies belong to an agent, not to an address: they are good for this very object.
      agent: known !== undefined && isSameAgent(known, agent) ? known : agent,
      untilMs: this.#nowMs + LEASE_MS,
      renewAtMs: this.#nowMs + LEASE_MS / 2,
    });
  }

  #endLeases(): void {
    for (const lease of this.#leases.values()) lease.untilMs = Number.NEGATIVE_INFINITY;
    this.#forgetExcess();
    // Whoever has the address next did not flood.
    this.floods.forget();
  }

  #forgetAnswers(): void {
    this.#cache.flush();
    this.#forgetReplies();
  }

  #forgetExcess(): void {
    for (const sources of Object.values(this.#excess)) sources.clear();
  }

  #forgetReplies(): void {
    this.#replies.clear();
    this.#forgetExcess();
    this.journal.closeOutlines();
  }

  /** Before a decision is made: its own outline has to stay open. */
  #makeRoom(): void {
    if (this.journal.outlines >= MAX_REPLIES) this.#forgetReplies();
  }

  /** Sets the time for everything that follows; milliseconds, never going back. */
  tick(nowMs: number): void {
    this.#nowMs = nowMs;
    this.floods.tick(nowMs);
  }

  /**
   * Answers the packet of `length` bytes at `start` of `bytes`. Holds on to neither; the reply is
   * good until the next call.
   * @param address Source address as a number, in network order.
   */
  respond(address: number, bytes: Uint8Array, start: number, length: number): Response {
    const isWithinRate = this.#buckets.admits(address);
    const lease = this.#leases.get(address);
    const isKnown = lease !== undefined && this.#nowMs < lease.untilMs &&
      this.#epoch === this.#shared.epoch;
    if (isKnown && this.#nowMs >= lease.renewAtMs) this.#renew(lease);
    if (isKnown && isWithinRate) {
      const known = this.#replies.find(address, bytes, start, length, this.#nowMs);
      if (known !== undefined && known.agent === lease.agent) return this.#again(known);
    }
    const packet = bytes.subarray(start, start + length);
    if (!isKnown) {
      return isWithinRate
        ? this.#handOver(null, address, packet)
        : this.#dropUnknown(lease, address);
    }
    if (!isWithinRate) {
      this.floods.exceeded(address);
      return this.#refuse("query_rate", lease.agent, address, packet);
    }
    if (!this.journal.hasRoomFor(address)) return this.#drop();
    return this.#filterFrom(lease.agent, address, packet);
  }

  #renew(lease: Lease): void {
    lease.renewAtMs = Number.POSITIVE_INFINITY;
    this.#renewals.push(lease.agent.address);
  }

  /** Addresses whose leases are to be renewed, each once. */
  takeRenewals(): readonly string[] {
    const renewals = this.#renewals;
    if (renewals.length > 0) this.#renewals = [];
    return renewals;
  }

  /** Identical packets of one report share a decision; in the next one they get another. */
  #again(known: KnownReply): Response {
    const { journal } = this;
    if (known.report === journal.report) {
      journal.repeat(known.decision);
      return known.reply;
    }
    if (!journal.hasRoomFor(known.address)) return this.#drop();
    const id = journal.repeatOutline(known.outline, known.address);
    known.report = journal.report;
    known.decision = journal.newest;
    if (known.cacheKey !== null) journal.hit(known.cacheKey);
    if (known.idAt !== null && known.reply !== null) writeAscii(known.reply, known.idAt, id);
    return known.reply;
  }

  #drop(): null {
    this.journal.drop();
    return null;
  }

  /**
   * Drops what is beyond the rate of whoever is at `address` by now: to refuse it would be to say that
   * the agent did it who was there last.
   */
  #dropUnknown(last: Lease | undefined, address: number): null {
    if (last !== undefined) {
      this.floods.exceeded(address);
      for (const sources of Object.values(this.#excess)) sources.delete(address);
      if (this.#nowMs >= last.renewAtMs) this.#renew(last);
    }
    return this.#drop();
  }

  #filterFrom(agent: Agent, address: number, packet: Uint8Array): Response {
    this.#makeRoom();
    this.#agent = agent;
    this.#address = address;
    this.#cacheUse = null;
    try {
      const reply = this.#filter.handle(packet, { address: agent.address, transport: "udp" });
      // A promise would mean that a part of this isolate waits for something: none does.
      if (reply instanceof Promise) return this.#handOver(agent, address, packet);
      this.#remember(agent, address, packet, reply);
      return reply;
    } catch (thrown) {
      if (thrown instanceof NotHere) return this.#handOver(agent, address, packet);
      throw thrown;
    }
  }

  /** @param agent Null: it is not known who is at `address`. */
  #handOver(agent: Agent | null, address: number, packet: Uint8Array): Response {
    if (this.#backlog.admits(address)) return HAND_OVER;
    return agent === null ? this.#drop() : this.#refuse("limit", agent, address, packet);
  }

  #remember(agent: Agent, address: number, packet: Uint8Array, reply: Uint8Array | null): void {
    if (packet.length > MAX_REPEATED_PACKET_BYTES) return;
    const { journal } = this;
    // What failed once may do so for a reason that is gone the next time.
    if (this.#newest === null || this.#newest.reason === "internal_error") return;
    const use = this.#cacheUse;
    this.#replies.add(packet, {
      address,
      agent,
      reply,
      idAt: reply === null ? null : trailingIdAt(reply, this.#newest.id),
      ttlsAt: reply === null || use === null ? [] : ttlOffsets(reply),
      cacheKey: use?.key ?? null,
      expiresAtMs: use?.expiresAtMs ?? Number.POSITIVE_INFINITY,
      agesAtMs: use?.agesAtMs ?? Number.POSITIVE_INFINITY,
      outline: journal.newestOutline,
      decision: journal.newest,
      report: journal.report,
    });
  }

  /** One refusal for each source and report; the rest of a flood is only counted. */
  #refuse(
    reason: ExcessReason,
    agent: Agent,
    address: number,
    packet: Uint8Array,
  ): Uint8Array | null {
    const { journal } = this;
    const sources = this.#excess[reason];
    const excess = sources.get(address);
    if (excess !== undefined && excess.report === journal.report) {
      journal.repeat(excess.decision);
      return null;
    }
    if (!this.journal.hasRoomFor(address)) return this.#drop();
    this.#makeRoom();
    this.#agent = agent;
    this.#address = address;
    const source = { address: agent.address, transport: "udp" } as const;
    const reply = this.#filter.refuseExcess(packet, source, reason);
    sources.set(address, {
      outline: journal.newestOutline,
      decision: journal.newest,
      report: journal.report,
    });
    return reply instanceof Promise ? null : reply;
  }

  /** Takes stock of who floods, and who is muted from now on. */
  lookAtFloods(): void {
    // What they might send has gathered meanwhile and would come at once; the others would wait.
    for (const source of this.floods.look(this.#nowMs)) this.#buckets.empty(source);
  }

  /** Counts packets that the kernel dropped before we could: for a muted source, if there is but one. */
  dropped(packets: number, muted: ReadonlySet<number>): void {
    const { journal } = this;
    const [source, ...others] = muted;
    if (source === undefined || others.length > 0) return journal.drop(packets);
    const excess = this.#excess.query_rate.get(source);
    if (excess === undefined) return journal.drop(packets);
    if (excess.report === journal.report) return journal.repeat(excess.decision, packets);
    if (!journal.hasRoomFor(source)) return journal.drop(packets);
    journal.repeatOutline(excess.outline, source);
    excess.decision = journal.newest;
    excess.report = journal.report;
    journal.repeat(excess.decision, packets - 1);
  }

  /** What happened since the last report. */
  report(): Report {
    return this.journal.take(this.#nowMs);
  }
}
