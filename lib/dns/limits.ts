/**
 * What one agent may have asked upstream. Names carry data: whoever may resolve everything below a
 * domain can send bytes to its owner, some hundred with each new name (ADV-DNS-17). A name that a
 * rule spells out carries nothing, so the limits on names are for the others only.
 */
import type { Agent } from "../agents.ts";
import type { Reason } from "../decision.ts";
import type { Hostname } from "../net/host.ts";
import type { Verdict } from "../rules/types.ts";
import { Shares } from "../shares.ts";
import type { MonotonicClock } from "./cache.ts";

/** The longest label that honest software makes up: a SHA-256 in base 32. */
const MAX_LABEL_CHARACTERS = 52;

/** The most labels that honest software asks for: an IPv6 address under ip6.arpa (RFC 3596 §2.5). */
const MAX_LABELS = 34;

/**
 * New names an agent may ask for under one rule in {@linkcode WINDOW_MS}: enough for a mirror or an
 * object store with a name for everything, some 300 bytes a second for a tunnel.
 */
const MAX_NAMES = 120;

/**
 * Questions about them in {@linkcode WINDOW_MS} that the cache does not answer. A zone's owner may
 * have nothing cached (TTL 0): then the order of names and types is data as well. Each question
 * carries up to 24 bits, so these are 60 bytes a second more.
 */
const MAX_QUESTIONS = 1_200;
const WINDOW_MS = 60_000;

/** A resolver's worth of parallel new names; a browser has a few dozen. */
const MAX_WAITING_PER_AGENT = 128;

/** Of all agents together: each look-up may hold a socket until every upstream had its time. */
const MAX_WAITING = 1024;

/** Whether a name looks like data in disguise. */
function isTunnelShaped({ name }: Hostname): boolean {
  const labels = name.split(".");
  return labels.length > MAX_LABELS || labels.some((label) => label.length > MAX_LABEL_CHARACTERS);
}

/** What one agent asked for under one rule. */
interface Use {
  readonly names: Set<string>;
  questions: number;
}

/** Counts what each agent asks for under each rule, in windows of a minute. */
class NameBudget {
  readonly #uses = new Map<string, Use>();
  #windowStartMs = Number.NEGATIVE_INFINITY;

  constructor(
    readonly maxNames: number,
    readonly maxQuestions: number,
    readonly now: MonotonicClock,
  ) {}

  /** Whether one more question, about `name`, may be asked in this minute. */
  hasRoomFor(address: string, rule: string, name: string): boolean {
    const { names, questions } = this.#useOf(address, rule);
    return questions < this.maxQuestions && (names.has(name) || names.size < this.maxNames);
  }

  add(address: string, rule: string, name: string): void {
    const use = this.#useOf(address, rule);
    use.names.add(name);
    use.questions++;
    this.#uses.set(`${address} ${rule}`, use);
  }

  #useOf(address: string, rule: string): Use {
    const now = this.now();
    if (now - this.#windowStartMs >= WINDOW_MS) {
      // One window for all of them: nothing is kept of agents and rules that are gone.
      this.#uses.clear();
      this.#windowStartMs = now;
    }
    return this.#uses.get(`${address} ${rule}`) ?? { names: new Set(), questions: 0 };
  }
}

/** Limits that tests shorten. */
export interface LookupLimitOptions {
  /** Look-ups one agent may wait for. */
  readonly maxWaiting?: number;
  /** Distinct names a minute for one agent under one rule. */
  readonly maxNames?: number;
  /** Questions a minute of one agent under one rule that the cache does not answer. */
  readonly maxQuestions?: number;
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
    const { maxNames = MAX_NAMES, maxQuestions = MAX_QUESTIONS } = options;
    this.#names = new NameBudget(maxNames, maxQuestions, now);
  }

  /** Whether the agent at `address` may wait for one thing more. */
  mayWait(address: string): boolean {
    return this.#waiting.hasRoomFor(address);
  }

  /** Why `agent` may not have `hostname` asked for, or null; counts the question when it may. */
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
