/**
 * The decision record: every layer answers every attempt with one, and its id is what the agent
 * sees (403 body and header, Extended DNS Error) and what the operator looks up.
 */
import type { Agent } from "./agents.ts";
import type { Layer, RuleRef } from "./rules/types.ts";

/** Why an attempt was allowed or blocked: stable codes, shown to agents and operators alike. */
export type Reason =
  | "rule"
  | "rule_error"
  | "default"
  | "port"
  | "unknown_source"
  | "restricted_address"
  | "local_address"
  | "malformed"
  | "sni_missing"
  | "sni_mismatch"
  | "not_tls"
  | "limit"
  /** An agent's queries come faster than they may. */
  | "query_rate"
  /** Too many new names under one rule. */
  | "name_rate"
  /** A name that looks like data in disguise. */
  | "name_shape"
  /** A defect: what cannot be judged is blocked. */
  | "internal_error"
  | "upstream_failed"
  /** The agent's side closed before there was anything else to decide. */
  | "client_closed";

/** What was attempted, as far as the layer knows. Never headers, bodies, queries or secrets. */
export interface Attempt {
  readonly host?: string;
  readonly address?: string;
  readonly port?: number;
  readonly method?: string;
  /** Without the query. */
  readonly path?: string;
  readonly recordType?: string;
  /** Of a container that was to be created. */
  readonly image?: string;
  /** Program that an agent asked to run; never its arguments. */
  readonly tool?: string;
}

/** One decision, as recorded. */
export interface Decision {
  /** Sortable by time: see {@linkcode decisionId}. */
  readonly id: string;
  /** ISO 8601, UTC, milliseconds. */
  readonly time: string;
  /** Generation of the policy snapshot that decided. */
  readonly generation: number;
  readonly layer: Layer | "kernel";
  /** Null: the source lies outside every managed network. */
  readonly agent: Agent | null;
  /** Source address as the kernel reported it. */
  readonly source: string;
  readonly attempt: Attempt;
  readonly verdict: "allow" | "block";
  readonly reason: Reason;
  readonly rule: RuleRef | null;
  /** Of a DNS answer: milliseconds the upstreams took; null: it was cached. */
  readonly upstreamMs?: number | null;
  /** Identical attempts of the same moment that this record stands for; absent: one. */
  readonly count?: number;
}

const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
let lastMs = 0;
let sequence = 0;

// Fetched many at a time: each call for randomness costs more than the rest of an id.
const randoms = new Uint32Array(256);
let randomsLeft = 0;

function randomNumber(): number {
  if (randomsLeft === 0) {
    crypto.getRandomValues(randoms);
    randomsLeft = randoms.length;
  }
  return randoms[--randomsLeft] ?? 0;
}

function base32(value: number, digits: number): string {
  let text = "";
  for (let i = 0; i < digits; i++) {
    text = ALPHABET.charAt(value % 32) + text;
    value = Math.floor(value / 32);
  }
  return text;
}

/**
 * A new id: 9 digits of time in milliseconds (good until the year 3084), 4 digits that count up
 * within a millisecond, 4 random digits against guessing; Crockford base 32, so that ids sort by
 * time and survive being read aloud.
 */
export function decisionId(nowMs: number = Date.now()): string {
  // The clock may step back; ids must not.
  if (nowMs > lastMs) {
    lastMs = nowMs;
    sequence = 0;
  } else {
    sequence++;
  }
  return base32(lastMs, 9) + base32(sequence, 4) + base32(randomNumber(), 4);
}

/** What a layer hands in; id and time are added here. */
export type NewDecision = Omit<Decision, "id" | "time">;

/** Receives each decision once. Must not throw and must return quickly. */
export type DecisionSink = (decision: Decision) => void;

/** Names and remembers decisions: a bounded ring of the newest, and sinks that see each one. */
export class DecisionLog {
  readonly #ring: Decision[] = [];
  readonly #sinks: DecisionSink[] = [];
  #next = 0;

  /** @param capacity How many of the newest decisions stay in memory. */
  constructor(readonly capacity: number = 10_000) {}

  /** Adds a receiver of every later decision. */
  addSink(sink: DecisionSink): void {
    this.#sinks.push(sink);
  }

  /** Names, stores and hands on one decision; returns it with its id. */
  record(decision: NewDecision): Decision {
    const now = Date.now();
    const named: Decision = {
      id: decisionId(now),
      time: new Date(now).toISOString(),
      ...decision,
    };
    this.add(named);
    return named;
  }

  /** Stores and hands on a decision that was named in another isolate. */
  add(decision: Decision): void {
    this.#ring[this.#next] = decision;
    this.#next = (this.#next + 1) % this.capacity;
    for (const sink of this.#sinks) sink(decision);
  }

  /** The newest decisions, oldest first, at most `limit`. */
  recent(limit: number = this.capacity): Decision[] {
    const ordered = [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)];
    return ordered.slice(Math.max(0, ordered.length - limit));
  }

  /** The decision with this id, while it is still in memory. */
  find(id: string): Decision | undefined {
    return this.#ring.find((decision) => decision.id === id);
  }
}
