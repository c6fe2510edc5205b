/**
 * The decision record: every layer answers every attempt with one, and its id is what the agent
 * sees (403 body and header, Extended DNS Error) and what the operator looks up.
 */
import type { Agent } from "./agents.ts";
import { LAYERS, type RuleRef } from "./rules/types.ts";

/** Why attempts are allowed or blocked: stable codes, shown to agents and operators alike. */
export const REASONS = [
  "rule",
  "rule_error",
  "default",
  "port",
  /** No rule allows it; it passed because the agent is observed. */
  "observed",
  /** The rule that decides admits the proxy alone. */
  "proxy_only",
  "unknown_source",
  "restricted_address",
  "local_address",
  "malformed",
  "sni_missing",
  "sni_mismatch",
  "not_tls",
  "limit",
  /** An agent's queries come faster than they may. */
  "query_rate",
  /** Too many new names, or questions that go upstream, under one rule. */
  "name_rate",
  /** A name that looks like data in disguise. */
  "name_shape",
  /** So much is open to the agent in the kernel that nothing more can be. */
  "grant_limit",
  /** The kernel did not open what the rules allow. */
  "grant_failed",
  /** An answer that must not be kept for a second opens nothing. */
  "zero_ttl",
  /** A defect: what cannot be judged is blocked. */
  "internal_error",
  "upstream_failed",
  /** Dropped by the kernel: past the DNS filter and the proxy, to the outside. */
  "forward_denied",
  /** Dropped by the kernel: to the host, where no service of ours listens. */
  "input_denied",
  /** Dropped by the kernel: to another agent. */
  "agent_to_agent",
  /** Dropped by the kernel: from outside, to an agent or a gateway. */
  "outside_denied",
  /** Dropped by the kernel: under an address or MAC that is not the sender's. */
  "spoofed",
  /** Dropped by the kernel: from an agent that was not known yet, a moment after its start. */
  "unpinned",
  /** Dropped by the kernel: all IPv6 of agents is. */
  "ipv6",
  /** Dropped by the kernel: neither IPv4 nor ARP, or with a VLAN tag. */
  "foreign_ethertype",
  /** The agent's side closed before there was anything else to decide. */
  "client_closed",
] as const;

/** One of {@linkcode REASONS}. */
export type Reason = typeof REASONS[number];

/** What was attempted, as far as the layer knows. Never headers, bodies, queries or secrets. */
export interface Attempt {
  readonly host?: string;
  readonly address?: string;
  readonly port?: number;
  /** Of packets that the kernel dropped or was told to let pass: `tcp`, `udp`, `icmp`, or the protocol's number. */
  readonly protocol?: string;
  /** The address that a packet gave as its sender's, where that is not who sent it. */
  readonly claimedSource?: string;
  readonly method?: string;
  /** Without the query. */
  readonly path?: string;
  readonly recordType?: string;
  /** Of a container that was to be created. */
  readonly image?: string;
  /** Program that an agent asked to run; never its arguments. */
  readonly tool?: string;
}

/** How tunnels end. */
export const TUNNEL_ENDS = [
  /** Both sides closed. */
  "closed",
  /** A connection broke. */
  "broken",
  /** Neither side said anything for too long. */
  "idle",
  /** The rules of a reload do not admit it. */
  "policy",
  /** The container is gone, or its address is another's. */
  "agent_gone",
  /** The daemon stopped. */
  "stopped",
] as const;

/** One of {@linkcode TUNNEL_ENDS}. */
export type TunnelEnd = typeof TUNNEL_ENDS[number];

/** What moved through a tunnel that has ended. */
export interface TunnelUse {
  /** Bytes from the agent. */
  readonly upBytes: number;
  /** Bytes to the agent. */
  readonly downBytes: number;
  readonly end: TunnelEnd;
}

/** Where the attempts went that one record stands for, when that is more than one place. */
export interface Targets {
  readonly distinct: number;
  /** The first few, as `address:port`, or what else tells them apart. */
  readonly first: readonly string[];
}

/**
 * Version of the shape below as JSON. It rises when a field changes its meaning or goes away; a new
 * field does not change it.
 */
export const DECISION_SCHEMA = 1;

/** Where decisions are made: every layer of the policy, and the kernel's firewall. */
export const DECISION_LAYERS = [...LAYERS, "kernel"] as const;

/** One of {@linkcode DECISION_LAYERS}. */
export type DecisionLayer = typeof DECISION_LAYERS[number];

/** One decision, as recorded. It may grow afterwards: see {@linkcode DecisionLog.update}. */
export interface Decision {
  readonly schema: typeof DECISION_SCHEMA;
  /** Sortable by time: see {@linkcode decisionId}. */
  readonly id: string;
  /** ISO 8601, UTC, milliseconds. */
  readonly time: string;
  /** Generation of the policy snapshot that decided. */
  readonly generation: number;
  readonly layer: DecisionLayer;
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
  /** Attempts that this record stands for, alike but for {@linkcode targets}; absent: one. */
  readonly count?: number;
  readonly targets?: Targets;
  /** Milliseconds from the attempt to its end: the answer, or the close of the tunnel. */
  readonly durationMs?: number;
  /** Of a tunnel that has ended. */
  readonly tunnel?: TunnelUse;
  /** When it grew last, as `time`; absent: never. */
  readonly updated?: string;
}

/** What may come to be known after a decision was recorded. */
export type DecisionChanges = Partial<
  Pick<Decision, "attempt" | "count" | "targets" | "durationMs" | "tunnel">
>;

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

/** Sorts before every id of this millisecond and later, and after all earlier ones. */
export function earliestIdAt(timeMs: number): string {
  return base32(timeMs, 9);
}

/** What a layer hands in; the rest is added here. */
export type NewDecision = Omit<Decision, "schema" | "id" | "time" | "updated">;

/**
 * Gives a decision its id and time.
 * @param timeText `nowMs` as ISO 8601: whoever names many at a time makes it once.
 */
export function nameDecision(decision: NewDecision, nowMs: number, timeText: string): Decision {
  return { schema: DECISION_SCHEMA, id: decisionId(nowMs), time: timeText, ...decision };
}

/** Whether a decision is seen for the first time, or a newer version of one that was seen before. */
export type Change = "new" | "update";

/**
 * Receives each decision once as new, and each newer version of it. Must not throw and must return
 * quickly.
 * @param sequence Rises with each change, over restarts too: a reader that knows everything up to
 * one number lacks exactly what has a higher one.
 */
export type DecisionSink = (decision: Decision, change: Change, sequence: number) => void;

/** A version of a decision, and when in the order of all changes it came. */
export interface Recorded {
  readonly decision: Decision;
  readonly sequence: number;
}

/** Changes a millisecond, on average over a daemon's life, that keep sequences rising over a restart. */
const SEQUENCES_PER_MS = 1000;

/** The sequence that changes at this time have or exceed; safe integers until the year 2255. */
export function sequenceAt(timeMs: number): number {
  return timeMs * SEQUENCES_PER_MS;
}

/** Names and remembers decisions: a bounded ring of the newest, and sinks that see each one. */
export class DecisionLog {
  readonly #ring: Recorded[] = [];
  readonly #sinks: DecisionSink[] = [];
  #next = 0;
  #sequence: number;
  #forgotten: number;

  /** @param capacity How many of the newest decisions stay in memory. */
  constructor(readonly capacity: number = 10_000) {
    this.#sequence = sequenceAt(Date.now());
    this.#forgotten = this.#sequence;
  }

  /** Sequence of the newest change. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Changes up to this sequence may be missing from {@linkcode since}; later ones are all there. */
  get forgotten(): number {
    return this.#forgotten;
  }

  /**
   * Goes on after what an earlier daemon recorded, also when the clock has been set back since. To be
   * called before the first decision.
   */
  resumeAfter(sequence: number): void {
    this.#sequence = Math.max(this.#sequence, sequence);
    this.#forgotten = this.#sequence;
  }

  /** Adds a receiver of every later change. */
  addSink(sink: DecisionSink): void {
    this.#sinks.push(sink);
  }

  /** Names, stores and hands on one decision; returns it with its id. */
  record(decision: NewDecision): Decision {
    const now = Date.now();
    const named = nameDecision(decision, now, new Date(now).toISOString());
    this.add(named);
    return named;
  }

  /** Stores and hands on a decision that was named in another isolate. */
  add(decision: Decision): void {
    const sequence = ++this.#sequence;
    this.#remember({ decision, sequence });
    for (const sink of this.#sinks) sink(decision, "new", sequence);
  }

  /**
   * Adds to a decision what came to be known later.
   * @param decision Its newest version: whoever makes a record grow keeps it, because this log may
   * have forgotten it by then.
   * @returns the version that is the newest now.
   */
  update(decision: Decision, changes: DecisionChanges): Decision {
    const sequence = ++this.#sequence;
    const updated: Decision = { ...decision, ...changes, updated: new Date().toISOString() };
    const slot = this.#slotOf(decision.id);
    // What was forgotten is news again.
    if (slot === null) this.#remember({ decision: updated, sequence });
    else this.#ring[slot] = { decision: updated, sequence };
    for (const sink of this.#sinks) sink(updated, "update", sequence);
    return updated;
  }

  #remember(recorded: Recorded): void {
    this.#forgotten = Math.max(this.#forgotten, this.#ring[this.#next]?.sequence ?? 0);
    this.#ring[this.#next] = recorded;
    this.#next = (this.#next + 1) % this.capacity;
  }

  /** Backwards from the newest: what grows is mostly young. */
  #slotOf(id: string): number | null {
    const { length } = this.#ring;
    for (let back = 1; back <= length; back++) {
      const slot = (this.#next - back + length) % length;
      if (this.#ring[slot]?.decision.id === id) return slot;
    }
    return null;
  }

  #ordered(): Recorded[] {
    return [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)];
  }

  /** What changed after `sequence`, in that order, as far as it is in memory. */
  since(sequence: number): Recorded[] {
    return this.#ring.filter((recorded) => recorded.sequence > sequence)
      .sort((a, b) => a.sequence - b.sequence);
  }

  /** The newest decisions, oldest first, at most `limit`. */
  recent(limit: number = this.capacity): Decision[] {
    const ordered = this.#ordered();
    return ordered.slice(Math.max(0, ordered.length - limit)).map(({ decision }) => decision);
  }

  /** The decision with this id, while it is still in memory. */
  find(id: string): Decision | undefined {
    return this.#ring.find(({ decision }) => decision.id === id)?.decision;
  }
}
