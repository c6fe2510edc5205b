/**
 * What the worker answers by itself: names that are blocked, and allowed ones that are cached, asked
 * by agents it was told of. The same filter decides here as in the main isolate; everything it
 * cannot settle on the spot is handed over.
 */
import type { Agent } from "../../agents.ts";
import { decide } from "../../rules/decide.ts";
import { buildPolicy, type Policy } from "../../rules/policy.ts";
import { cacheKey, DnsCache } from "../cache.ts";
import { DnsFilter, NotHere } from "../filter.ts";
import { LookupLimits } from "../limits.ts";
import { QueryBuckets, type QueryRate } from "../rate.ts";
import type { AnswerSource } from "../resolver.ts";
import { Journal } from "./journal.ts";
import { LEASE_MS, type Shared, type ToWorker } from "./protocol.ts";

/** The main isolate has to handle the packet. */
export const HAND_OVER = Symbol("hand over");

/** What comes of a packet: a reply with any id, silence, or {@linkcode HAND_OVER}. */
export type Response = Uint8Array | null | typeof HAND_OVER;

/** A message that changes what the responder knows. */
export type Update = Exclude<ToWorker, { readonly kind: "open" | "close" | "end" }>;

interface Lease {
  readonly agent: Agent;
  readonly untilMs: number;
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
  /** Decision about the excess of each source, in this report. */
  readonly #excess = new Map<number, number>();
  #policy: Policy | null = null;
  #agent: Agent | null = null;
  #epoch: number;
  #nowMs = 0;

  constructor(shared: Shared, rate: QueryRate) {
    this.#shared = shared;
    // What happened before belongs to a predecessor; this one knows nothing, and needs a policy.
    this.#epoch = shared.epoch;
    this.#buckets = new QueryBuckets(rate, () => this.#nowMs);
    this.#filter = new DnsFilter({
      agents: { identify: () => this.#agent },
      judge: (layer, facts) => {
        if (this.#policy === null) throw NOT_HERE;
        const verdict = decide(this.#policy, layer, facts);
        // The main isolate counts the failures of rules, and tells the operator.
        if (verdict.failures !== undefined) throw NOT_HERE;
        return { verdict, generation: this.#policy.generation };
      },
      decisions: this.journal,
      resolver: this.#answers(),
      // Never asked: nothing goes upstream from here.
      limits: new LookupLimits(),
    });
  }

  #answers(): AnswerSource {
    return {
      cached: (question, dnssecOk) => {
        const key = cacheKey(question, dnssecOk);
        const hit = this.#cache.get(key);
        if (hit === null) throw NOT_HERE;
        this.journal.hit(key);
        return { ...hit, upstreamMs: null };
      },
      ask: () => {
        throw NOT_HERE;
      },
    };
  }

  /** Takes in what the main isolate says. */
  update(message: Update): void {
    this.journal.forgetReplies();
    switch (message.kind) {
      case "agent":
        this.#leases.set(addressNumber(message.agent.address), {
          agent: message.agent,
          untilMs: this.#nowMs + LEASE_MS,
        });
        return;
      case "answer": {
        const { question, dnssecOk, answer, ageSecs } = message;
        this.#cache.set(cacheKey(question, dnssecOk), question, answer, ageSecs);
        return;
      }
      case "policy":
        this.#policy = buildPolicy(message.policy);
        break;
      case "forget":
        if (message.what === "agents") this.#leases.clear();
        else this.#cache.flush();
    }
    this.#epoch = message.epoch;
  }

  /** Sets the time for everything that follows; milliseconds, never going back. */
  tick(nowMs: number): void {
    this.#nowMs = nowMs;
  }

  /**
   * Answers one packet. Does not hold on to it.
   * @param address Source address as a number, in network order.
   */
  respond(address: number, packet: Uint8Array): Response {
    const isWithinRate = this.#buckets.admits(address);
    const lease = this.#leases.get(address);
    const isKnown = lease !== undefined && this.#nowMs < lease.untilMs &&
      this.#epoch === this.#shared.epoch;
    if (isWithinRate && !isKnown) return HAND_OVER;
    if (lease === undefined) return this.#drop();
    if (!isWithinRate) return this.#refuseExcess(lease.agent, address, packet);
    const known = this.journal.recall(address, packet, this.#nowMs);
    if (known !== undefined) return known;
    if (this.journal.isFull) return this.#drop();
    return this.#filterFrom(lease.agent, address, packet);
  }

  #drop(): null {
    this.journal.drop();
    return null;
  }

  #filterFrom(agent: Agent, address: number, packet: Uint8Array): Response {
    this.#agent = agent;
    try {
      const reply = this.#filter.handle(packet, { address: agent.address, transport: "udp" });
      // A promise would mean that a part of this isolate waits for something: none does.
      if (reply instanceof Promise) return HAND_OVER;
      this.journal.remember(address, packet, reply, this.#nowMs);
      return reply;
    } catch (thrown) {
      if (thrown instanceof NotHere) return HAND_OVER;
      throw thrown;
    }
  }

  /** One refusal for each source and report; the rest of a flood is only counted. */
  #refuseExcess(agent: Agent, address: number, packet: Uint8Array): Uint8Array | null {
    const decision = this.#excess.get(address);
    if (decision !== undefined) {
      this.journal.repeat(decision);
      return null;
    }
    if (this.journal.isFull) return this.#drop();
    this.#agent = agent;
    const reply = this.#filter.refuseExcess(packet, { address: agent.address, transport: "udp" });
    this.#excess.set(address, this.journal.newest);
    return reply instanceof Promise ? null : reply;
  }

  /** What happened since the last report. */
  report(): ReturnType<Journal["take"]> {
    this.#excess.clear();
    return this.journal.take(this.#nowMs);
  }
}
