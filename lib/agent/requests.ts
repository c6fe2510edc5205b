/**
 * Rule requests from the agent's asking to the end of the operator's answer (S003-FR-024, S004-FR-011).
 *
 * The database is the authority. A granted file counts only while its request is approved and not
 * over: {@linkcode RuleRequests.isWithdrawn} says so to whoever loads the rules directory, so that
 * neither a crash between two steps nor a file that cannot be removed lengthens a grant.
 */
import type { DatabaseSync } from "node:sqlite";
import type { Agent } from "../agents.ts";
import { messageOf, OutcallError } from "../errors.ts";
import { logger } from "../log.ts";
import { Mutex } from "../mutex.ts";
import {
  type RequestEvent,
  type RequestStatus,
  RequestStore,
  type StoredRequest,
} from "../store/requests.ts";
import { checkProposal, type Proposal } from "./candidate.ts";
import { grantPath, removeGrant, requestOf, writeGrant } from "./grants.ts";
import { agentKey } from "./sessions.ts";

const log = logger("agent_api");

/** Pending requests of one agent: more than that nobody reads. */
const MAX_PENDING_PER_AGENT = 32;
/** Requests with their history; the oldest that are over make room. */
const MAX_REQUESTS = 10_000;
const PRUNED_AT_ONCE = 100;
/** Calls of one agent that wait for an answer at the same time. */
const MAX_WAITING_PER_AGENT = 8;
/** Timers count on a clock of their own: after a step of the wall clock they must not be far off. */
const LONGEST_TIMER_MS = 30_000;

/** The part of the policy in force that requests work on. */
export interface GrantingPolicy {
  /** Loads the rules directory; throws, and keeps what was, when it is not valid. */
  reload(): Promise<{ readonly rules_loaded: number }>;
  /** Takes the rules of one file out; cannot fail. */
  withdraw(path: string): Promise<void>;
}

/** What {@linkcode RuleRequests} works with. */
export interface RuleRequestOptions {
  readonly database: DatabaseSync;
  readonly rulesDir: string;
  readonly policy: GrantingPolicy;
  /** Told of each new request; must not throw. */
  readonly onNew?: (request: StoredRequest, proposal: Proposal) => void;
}

/** What an agent submits. */
export interface Submission {
  readonly ruleFile: string;
  /** Why, in the agent's words. */
  readonly reason: string | null;
  /** How long it would like to have it, in seconds. */
  readonly forSecs: number | null;
}

/** An operator's yes. */
export interface Approval {
  /** Seconds; null: for ever. */
  readonly forSecs: number | null;
  /** Replaces the agent's file: narrowed or edited. */
  readonly ruleFile: string | null;
  readonly reason: string | null;
  /** Who says so. */
  readonly by: string;
}

/** More time for what was approved. */
export type Extension = Omit<Approval, "ruleFile">;

/** All rule requests of one daemon. */
export class RuleRequests {
  readonly #store: RequestStore;
  readonly #options: RuleRequestOptions;
  readonly #mutex = new Mutex();
  /** Being approved at this moment: their files count though the database does not know yet. */
  readonly #approving = new Set<string>();
  /** Being replaced by an approval at this moment. */
  readonly #replaced = new Set<string>();
  readonly #waiting = new Map<string, Set<() => void>>();
  readonly #waitingOf = new Map<string, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(options: RuleRequestOptions) {
    this.#options = options;
    this.#store = new RequestStore(options.database);
  }

  /** Whether a file of the rules directory is a grant that does not hold (any more). */
  isWithdrawn(path: string): boolean {
    const id = requestOf(path);
    if (id === null || this.#approving.has(id)) return false;
    if (this.#replaced.has(id)) return true;
    const request = this.#store.find(id);
    return request?.status !== "approved" || isOver(request, Date.now());
  }

  /** Ends what ran out while nobody looked, and from now on everything when its time is over. */
  async start(): Promise<void> {
    await this.#expire();
  }

  /** Answers whoever waits, and closes the database. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const id of [...this.#waiting.keys()]) this.#wake(id);
    await this.#mutex.run(() => Promise.resolve(this.#options.database.close()));
  }

  /**
   * Stores a request durably, or counts one that is pending already.
   * @throws OutcallError `requests.invalid` (422), `requests.too_many` (429), `requests.full` (503).
   */
  submit(agent: Agent, { ruleFile, reason, forSecs }: Submission): StoredRequest {
    const key = agentKey(agent);
    const proposal = checkProposal("request.yaml", ruleFile);
    const known = this.#store.findPending(key, ruleFile);
    if (known !== undefined) {
      this.#store.repeat(known.id, Date.now());
      return this.#existing(known.id);
    }
    if (this.#store.countPending(key) >= MAX_PENDING_PER_AGENT) {
      throw new OutcallError(429, "requests.too_many", "too many requests wait for an answer", {
        hint: "Wait until the operator has answered some of them.",
      });
    }
    if (this.#store.count() >= MAX_REQUESTS) this.#store.prune(PRUNED_AT_ONCE);
    if (this.#store.count() >= MAX_REQUESTS) {
      throw new OutcallError(503, "requests.full", "rule requests cannot be taken at the moment");
    }
    const id = `rr-${
      Array.from(
        crypto.getRandomValues(new Uint8Array(6)),
        (byte) => byte.toString(16).padStart(2, "0"),
      ).join("")
    }`;
    this.#store.add({
      id,
      agent_key: key,
      agent: agent.name,
      container_id: agent.containerId ?? null,
      address: agent.address,
      network: agent.network,
      rule_file: ruleFile,
      reason,
      for_secs: forSecs,
      created_ms: Date.now(),
    });
    const stored = this.#existing(id);
    this.#options.onNew?.(stored, proposal);
    return stored;
  }

  /**
   * An agent's own request.
   * @throws OutcallError `requests.not_found` (404), which another agent's request is as well.
   */
  own(agent: Agent, id: string): StoredRequest {
    const request = this.#store.find(id);
    if (request === undefined || request.agent_key !== agentKey(agent)) throw notFound();
    return request;
  }

  /**
   * An agent's own request as soon as it is answered and in force, at the latest after `waitMs`.
   * @throws OutcallError as {@linkcode own}, and `requests.too_many` (429).
   */
  async ownWhenAnswered(agent: Agent, id: string, waitMs: number): Promise<StoredRequest> {
    const request = this.own(agent, id);
    if (request.status !== "pending" || waitMs === 0 || this.#closed) return request;
    const key = agentKey(agent);
    const waiting = this.#waitingOf.get(key) ?? 0;
    if (waiting >= MAX_WAITING_PER_AGENT) {
      throw new OutcallError(429, "requests.too_many", "too many calls wait for an answer");
    }
    this.#waitingOf.set(key, waiting + 1);
    try {
      await this.#change(id, waitMs);
    } finally {
      const left = (this.#waitingOf.get(key) ?? 1) - 1;
      if (left === 0) this.#waitingOf.delete(key);
      else this.#waitingOf.set(key, left);
    }
    return this.#closed ? request : this.own(agent, id);
  }

  /** Requests of one status, or all of them; oldest first. */
  list(status: RequestStatus | "all"): readonly StoredRequest[] {
    return this.#store.list(status);
  }

  /**
   * One request.
   * @throws OutcallError `requests.not_found` (404).
   */
  get(id: string): StoredRequest {
    return this.#existing(id);
  }

  /** What happened to a request, in order. */
  events(id: string): readonly RequestEvent[] {
    return this.#store.events(id);
  }

  /**
   * Puts a request's rules in force. Checked against the rules of this moment; on any failure the
   * request stays pending and the policy as it was. What the same agent has by now under the same
   * rule ids ends in the same instant: it asked for it anew, wider or for longer.
   * @throws OutcallError `requests.not_found` (404), `requests.answered` (409),
   * `requests.invalid` and `rules.invalid` (422), `requests.file_exists` (500).
   */
  approve(id: string, approval: Approval): Promise<{ readonly rulesLoaded: number }> {
    return this.#mutex.run(async () => {
      const request = this.#pending(id);
      const text = approval.ruleFile ?? request.rule_file;
      const { rules } = checkProposal(`agent-${id}.yaml`, text);
      const { rulesDir, policy } = this.#options;
      const path = grantPath(rulesDir, id);
      const replaced = this.#liveWith(request.agent_key, rules.map(({ id }) => id));
      writeGrant(path, text);
      this.#approving.add(id);
      for (const each of replaced) this.#replaced.add(each);
      try {
        const { rules_loaded: rulesLoaded } = await policy.reload();
        const now = Date.now();
        this.#store.answer(id, {
          status: "approved",
          decided_ms: now,
          decided_by: approval.by,
          answer: approval.reason,
          expires_ms: endOf(approval, now),
          approved_file: approval.ruleFile,
        });
        for (const each of replaced) {
          this.#store.end(each, { event: "replaced", at_ms: now, by: approval.by, note: id });
          await this.#end(grantPath(rulesDir, each));
        }
        this.#arm();
        this.#wake(id);
        return { rulesLoaded };
      } catch (thrown) {
        this.#approving.delete(id);
        for (const each of replaced) this.#replaced.delete(each);
        await this.#end(path);
        // What was to be replaced may be out of force by now. If not even the old rules load, it stays so.
        if (replaced.length > 0) await policy.reload().catch(() => {});
        throw thrown;
      } finally {
        this.#approving.delete(id);
        for (const each of replaced) this.#replaced.delete(each);
      }
    });
  }

  /**
   * Gives what is in force another end, counted from now. Open connections go on.
   * @throws OutcallError `requests.not_found` (404), `requests.not_approved` (409).
   */
  extend(id: string, extension: Extension): Promise<{ readonly expiresMs: number | null }> {
    return this.#mutex.run(() => {
      const request = this.#existing(id);
      const now = Date.now();
      if (request.status !== "approved" || isOver(request, now)) {
        throw new OutcallError(
          409,
          "requests.not_approved",
          `request ${id} is not in force, but ${request.status}`,
          {
            hint: request.status === "pending"
              ? `outcall requests approve ${id}`
              : "The agent must ask again.",
          },
        );
      }
      const expiresMs = endOf(extension, now);
      const { by, reason: note } = extension;
      this.#store.extend(id, { at_ms: now, by, until_ms: expiresMs, note });
      this.#arm();
      return Promise.resolve({ expiresMs });
    });
  }

  /**
   * Answers no.
   * @throws OutcallError `requests.not_found` (404), `requests.answered` (409).
   */
  reject(id: string, reason: string | null, by: string): Promise<void> {
    return this.#mutex.run(() => {
      this.#pending(id);
      this.#store.answer(id, {
        status: "rejected",
        decided_ms: Date.now(),
        decided_by: by,
        answer: reason,
        expires_ms: null,
        approved_file: null,
      });
      this.#wake(id);
      return Promise.resolve();
    });
  }

  #existing(id: string): StoredRequest {
    const request = this.#store.find(id);
    if (request === undefined) throw notFound();
    return request;
  }

  #pending(id: string): StoredRequest {
    const request = this.#existing(id);
    if (request.status === "pending") return request;
    throw new OutcallError(
      409,
      "requests.answered",
      `request ${id} is ${request.status} already`,
      request.status === "approved"
        ? { hint: `For more time: outcall requests extend ${id} --for 1h` }
        : {},
    );
  }

  /** Requests of an agent that are in force with a rule of one of these ids. */
  #liveWith(agentKey: string, ruleIds: readonly string[]): string[] {
    return this.#store.list("approved")
      .filter((request) => request.agent_key === agentKey && !isOver(request, Date.now()))
      .filter(({ approved_file, rule_file }) =>
        ruleIdsIn(approved_file ?? rule_file).some((id) => ruleIds.includes(id))
      )
      .map(({ id }) => id);
  }

  /** Takes a grant's rules out of force; tidying up after it may fail without harm. */
  async #end(path: string): Promise<void> {
    await this.#options.policy.withdraw(path);
    try {
      removeGrant(path);
    } catch (thrown) {
      log.warn("{path} is not in force any more, but cannot be removed: {error}", {
        path,
        error: messageOf(thrown),
      });
    }
  }

  #expire(): Promise<void> {
    return this.#mutex.run(async () => {
      if (this.#closed) return;
      const now = Date.now();
      for (const request of this.#store.list("approved")) {
        if (!isOver(request, now)) continue;
        await this.#end(grantPath(this.#options.rulesDir, request.id));
        this.#store.end(request.id, {
          event: "expired",
          at_ms: request.expires_ms ?? now,
          by: null,
          note: null,
        });
        log.info("request {id} of {agent} has expired", { id: request.id, agent: request.agent });
        this.#wake(request.id);
      }
      this.#arm();
    });
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const ends = this.#store.list("approved").flatMap(({ expires_ms }) => expires_ms ?? []);
    if (ends.length === 0 || this.#closed) return;
    const waitMs = Math.max(0, Math.min(Math.min(...ends) - Date.now(), LONGEST_TIMER_MS));
    this.#timer = setTimeout(() => {
      this.#expire().catch((thrown) => {
        log.error("expiring rule requests: {error}", { error: messageOf(thrown) });
        this.#timer = setTimeout(() => this.#arm(), 1_000);
      });
    }, waitMs);
  }

  #change(id: string, waitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(id) ?? new Set();
      this.#waiting.set(id, waiting);
      const done = (): void => {
        clearTimeout(timer);
        waiting.delete(done);
        if (waiting.size === 0) this.#waiting.delete(id);
        resolve();
      };
      const timer = setTimeout(done, waitMs);
      waiting.add(done);
    });
  }

  #wake(id: string): void {
    for (const done of [...this.#waiting.get(id) ?? []]) done();
  }
}

/** None where the file does not load any more: then it is not in force either. */
function ruleIdsIn(ruleFile: string): string[] {
  try {
    return checkProposal("request.yaml", ruleFile).rules.map(({ id }) => id);
  } catch (thrown) {
    if (thrown instanceof OutcallError) return [];
    throw thrown;
  }
}

/** Milliseconds since 1970; null: never. */
function endOf({ forSecs }: Pick<Approval, "forSecs">, nowMs: number): number | null {
  return forSecs === null ? null : nowMs + forSecs * 1_000;
}

function isOver({ expires_ms }: StoredRequest, nowMs: number): boolean {
  return expires_ms !== null && expires_ms <= nowMs;
}

function notFound(): OutcallError {
  return new OutcallError(404, "requests.not_found", "rule request not found");
}
