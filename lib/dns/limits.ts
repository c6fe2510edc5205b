/**
 * What one agent may have asked upstream. Names carry data: whoever may resolve everything below a
 * domain can send bytes to its owner, some hundred with each new name (ADV-DNS-17). A name that a
 * rule spells out carries nothing, so the limits on names are for the others only.
 */
import type { Agent } from "../agents.ts";
import type { Reason } from "../decision.ts";
import type { Hostname } from "../net/host.ts";
import type { Verdict } from "../rules/types.ts";
import type { MonotonicClock } from "./cache.ts";
import { Shares } from "./shares.ts";

/** The longest label that honest software makes up: a SHA-256 in base 32. */
const MAX_LABEL_CHARACTERS = 52;

/** The most labels that honest software asks for: an IPv6 address under ip6.arpa (RFC 3596 §2.5). */
const MAX_LABELS = 34;

/**
 * New names an agent may ask for under one rule in {@linkcode NAME_WINDOW_MS}: enough for a mirror or
 * an object store with a name for everything, some 300 bytes a second for a tunnel.
 */
const MAX_NAMES = 120;
const NAME_WINDOW_MS = 60_000;

/** A resolver's worth of parallel new names; a browser has a few dozen. */
const MAX_WAITING_PER_AGENT = 128;

/** Of all agents together: each look-up may hold a socket until every upstream had its time. */
const MAX_WAITING = 1024;

/** Whether a name looks like data in disguise. */
function isTunnelShaped({ name }: Hostname): boolean {
  const labels = name.split(".");
  return labels.length > MAX_LABELS || labels.some((label) => label.length > MAX_LABEL_CHARACTERS);
}

/** Counts the distinct names that each agent asks for under each rule, in windows of a minute. */
class NameBudget {
  readonly #names = new Map<string, Set<string>>();
  #windowStartMs = Number.NEGATIVE_INFINITY;

  constructor(readonly maxNames: number, readonly now: MonotonicClock) {}

  /** Whether `name` is one that was asked for in this minute already, or may still be. */
  hasRoomFor(address: string, rule: string, name: string): boolean {
    const names = this.#namesOf(address, rule);
    return names.has(name) || names.size < this.maxNames;
  }

  add(address: string, rule: string, name: string): void {
    this.#names.set(`${address} ${rule}`, this.#namesOf(address, rule).add(name));
  }

  #namesOf(address: string, rule: string): Set<string> {
    const now = this.now();
    if (now - this.#windowStartMs >= NAME_WINDOW_MS) {
      // One window for all of them: nothing is kept of agents and rules that are gone.
      this.#names.clear();
      this.#windowStartMs = now;
    }
    return this.#names.get(`${address} ${rule}`) ?? new Set();
  }
}

/** Limits that tests shorten. */
export interface LookupLimitOptions {
  /** Look-ups one agent may wait for. */
  readonly maxWaiting?: number;
  /** Distinct names a minute for one agent under one rule. */
  readonly maxNames?: number;
  readonly now?: MonotonicClock;
}

/** What whoever asks upstream has to obey. */
export type AskingLimits = Pick<LookupLimits, "mayWait" | "refusal" | "track">;

function ruleIdOf({ rule }: Verdict): string {
  return rule?.id ?? "";
}

/** Decides whether an allowed name that is not cached may be asked for upstream. */
export class LookupLimits {
  readonly #waiting: Shares<string>;
  readonly #names: NameBudget;

  constructor(options: LookupLimitOptions = {}) {
    this.#waiting = new Shares(MAX_WAITING, options.maxWaiting ?? MAX_WAITING_PER_AGENT);
    const now = options.now ?? ((): number => performance.now());
    this.#names = new NameBudget(options.maxNames ?? MAX_NAMES, now);
  }

  /** Whether the agent at `address` may wait for one thing more. */
  mayWait(address: string): boolean {
    return this.#waiting.hasRoomFor(address);
  }

  /** Why `agent` may not have `hostname` asked for, or null; counts the name when it may. */
  refusal(agent: Agent, hostname: Hostname, verdict: Verdict): Reason | null {
    const refusal = this.#refusal(agent, hostname, verdict);
    const isCounted = refusal === null && verdict.dns?.namesHost !== true;
    if (isCounted) this.#names.add(agent.address, ruleIdOf(verdict), hostname.name);
    return refusal;
  }

  #refusal(agent: Agent, hostname: Hostname, verdict: Verdict): Reason | null {
    if (!this.mayWait(agent.address)) return "limit";
    if (verdict.dns?.namesHost === true) return null;
    if (isTunnelShaped(hostname)) return "name_shape";
    const { address } = agent;
    return this.#names.hasRoomFor(address, ruleIdOf(verdict), hostname.name) ? null : "name_rate";
  }

  /** The same limits for who only wants to know: nothing is counted. */
  get untouched(): AskingLimits {
    return {
      mayWait: (address) => this.mayWait(address),
      refusal: (agent, hostname, verdict) => this.#refusal(agent, hostname, verdict),
      track: (_, awaited) => awaited,
    };
  }

  /** Counts `awaited` as what the agent at `address` waits for until it settles; returns its outcome. */
  async track<T>(address: string, awaited: Promise<T>): Promise<T> {
    this.#waiting.take(address);
    try {
      return await awaited;
    } finally {
      this.#waiting.release(address);
    }
  }
}
