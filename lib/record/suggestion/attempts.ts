/** What one agent did, sorted into what rules are to cover and what not. */
import type { Decision } from "../../decision.ts";
import type { Policy } from "../../rules/policy.ts";
import { isAdmitted } from "../../rules/propose.ts";
import { type Subject, subjectOf, walkOf } from "../../rules/replay.ts";
import type { Step } from "../../rules/request.ts";
import { attemptText } from "../../rules/words.ts";
import { meaningOf } from "../advice.ts";

/** Kinds of attempts that are covered; more would make no rule set that anybody reads. */
const MAX_KINDS = 2_000;

/** Their hosts: each may need a rule of its own, and every rule costs the daemon's time to prove. */
const MAX_HOSTS = 500;

/** Their names and paths together: agents choose these, and a rule file has a limit of its own. */
const MAX_LENGTH = 256 * 1024;

/** What to suggest rules for. */
export interface SuggestionRequest {
  readonly agent: string;
  /** Cover what was refused because no rule allowed it, too, and not only what was observed. */
  readonly includeBlocked: boolean;
}

/** Attempts that the suggestion leaves out. */
export interface NotCovered {
  readonly attempt: string;
  readonly count: number;
  readonly why: string;
}

/** Attempts that are alike. */
export interface Kind {
  readonly subject: Subject;
  readonly steps: readonly Step[];
  readonly text: string;
  count: number;
}

/** Subjects of one kind. */
export type Of<K extends Subject["kind"]> = Extract<Subject, { readonly kind: K }>;

interface Left {
  readonly attempt: string;
  count: number;
  readonly why: string;
  readonly key: string;
}

function keyOf(subject: Subject | null): string {
  return JSON.stringify(subject);
}

/** Why what was refused is left out, unless asked for. */
export const REFUSED = "it was refused, and not observed";

/** Why a record is nothing to cover; null: it is. */
function exclusion(decision: Decision, includeBlocked: boolean): string | null {
  if (decision.reason === "observed") return null;
  if (decision.reason === "default" || decision.reason === "port") {
    return includeBlocked ? null : REFUSED;
  }
  return meaningOf(decision.reason);
}

/** What happened, sorted into what is to be covered and what is not. */
export class Attempts {
  readonly kinds = new Map<string, Kind>();
  readonly #left = new Map<string, Left>();
  readonly #hosts = new Set<string>();
  #length = 0;

  constructor(policy: Policy, recorded: Iterable<Decision>, request: SuggestionRequest) {
    for (const decision of recorded) {
      if ((decision.agent?.name ?? null) !== request.agent) continue;
      // What a rule decided is as the operator wants it.
      if (decision.reason === "rule" || decision.layer === "container") continue;
      const why = exclusion(decision, request.includeBlocked);
      if (why === null) this.#add(policy, decision);
      else this.leave(attemptText(decision), decision.count ?? 1, why, keyOf(subjectOf(decision)));
    }
  }

  /** What no rule of the suggestion covers, the most frequent first. */
  get left(): readonly NotCovered[] {
    return [...this.#left.values()]
      // Before the observation began, or after it: the rules are for it, too.
      .filter(({ why, key }) => why !== REFUSED || !this.kinds.has(key))
      .map(({ attempt, count, why }) => ({ attempt, count, why }))
      .sort((a, b) => b.count - a.count);
  }

  #add(policy: Policy, decision: Decision): void {
    const subject = subjectOf(decision);
    const text = attemptText(decision);
    const count = decision.count ?? 1;
    if (subject === null) return this.leave(text, count, "the record does not say enough");
    // Observation opens nothing past the proxy, and neither does what is written from it.
    if (subject.kind === "direct") return this.leave(text, count, "it went past the proxy");
    const key = keyOf(subject);
    const kind = this.kinds.get(key);
    if (kind !== undefined) {
      kind.count += count;
      return;
    }
    const steps = walkOf(decision);
    if (steps.length === 0) return this.leave(text, count, "no rule can name it");
    if (isAdmitted(policy, steps)) return; // by a rule that is in force by now
    if (!this.#hasRoomFor(subject, key.length)) {
      return this.leave(text, count, "it is too much for one set");
    }
    this.#length += key.length;
    if ("host" in subject) this.#hosts.add(subject.host);
    this.kinds.set(key, { subject, steps, text, count });
  }

  #hasRoomFor(subject: Subject, length: number): boolean {
    const isNewHost = "host" in subject && !this.#hosts.has(subject.host);
    return this.kinds.size < MAX_KINDS && this.#length + length <= MAX_LENGTH &&
      !(isNewHost && this.#hosts.size >= MAX_HOSTS);
  }

  /** @param key Of the kind that it would be. */
  leave(attempt: string, count: number, why: string, key = ""): void {
    const entry = this.#left.get(`${attempt} ${why}`);
    if (entry === undefined) this.#left.set(`${attempt} ${why}`, { attempt, count, why, key });
    else entry.count += count;
  }

  of<K extends Subject["kind"]>(wanted: K): (Kind & { readonly subject: Of<K> })[] {
    return [...this.kinds.values()].filter((kind): kind is Kind & { readonly subject: Of<K> } =>
      kind.subject.kind === wanted
    );
  }

  /** Attempts with a host, look-ups included. */
  countOf(hosts: ReadonlySet<string>): number {
    return [...this.kinds.values()].reduce(
      (sum, { subject, count }) => "host" in subject && hosts.has(subject.host) ? sum + count : sum,
      0,
    );
  }
}
