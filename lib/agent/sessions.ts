/** One session for each agent: its token, and what it has used of its rates. */
import type { Agent } from "../agents.ts";
import type { Rate } from "../rate.ts";
import { OutcallError } from "../errors.ts";
import { SlidingWindow } from "./window.ts";

/** Sessions at once (ADV-AGENT-18); a managed network has at most 253 agents. */
const MAX_SESSIONS = 4096;

/** What each agent may ask for. */
export interface AgentRates {
  readonly permissions: Rate;
  readonly submissions: Rate;
}

/** One agent's session. */
export interface Session {
  /** See {@linkcode agentKey}. */
  readonly key: string;
  readonly token: string;
  readonly permissions: SlidingWindow;
  readonly submissions: SlidingWindow;
  usedAtMs: number;
}

/**
 * What tells agents apart: the container, or where an agent without one is and what it is called.
 * An address alone is not enough: the next agent there would get what the last one asked for.
 */
export function agentKey({ containerId, network, address, name }: Agent): string {
  return containerId ?? [network, address, name].join(" ");
}

/** The sessions of one daemon; a restart forgets them, and agents check in again. */
export class Sessions {
  readonly #byKey = new Map<string, Session>();
  readonly #byToken = new Map<string, Session>();

  /** @param now Milliseconds on a clock that never steps back. */
  constructor(
    readonly rates: AgentRates,
    readonly now: () => number = () => performance.now(),
    readonly capacity: number = MAX_SESSIONS,
  ) {}

  /**
   * The agent's session, made on its first check-in (S004-EC-004).
   * @throws OutcallError `session.capacity` (503).
   */
  checkIn(agent: Agent): Session {
    const key = agentKey(agent);
    const existing = this.#byKey.get(key);
    if (existing !== undefined) {
      existing.usedAtMs = this.now();
      return existing;
    }
    if (this.#byKey.size >= this.capacity) this.#sweep();
    if (this.#byKey.size >= this.capacity) {
      throw new OutcallError(503, "session.capacity", "session capacity reached");
    }
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    const session: Session = {
      key,
      token: `tok-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`,
      permissions: new SlidingWindow(this.rates.permissions),
      submissions: new SlidingWindow(this.rates.submissions),
      usedAtMs: this.now(),
    };
    this.#byKey.set(key, session);
    this.#byToken.set(session.token, session);
    return session;
  }

  /**
   * The session that `authorization` (RFC 6750 §2.1) names, if it is this agent's.
   * @throws OutcallError `session.invalid` (401), `session.foreign` (403).
   */
  authorize(agent: Agent, authorization: string | undefined): Session {
    const token = /^bearer +(tok-[0-9a-f]{32})$/i.exec(authorization ?? "")?.[1];
    const session = token === undefined ? undefined : this.#byToken.get(token);
    if (session === undefined) {
      throw new OutcallError(401, "session.invalid", "invalid or missing session token", {
        hint: "Check in first: POST /v1/checkin.",
      });
    }
    if (session.key !== agentKey(agent)) {
      throw new OutcallError(
        403,
        "session.foreign",
        "session is not valid for this container",
      );
    }
    session.usedAtMs = this.now();
    return session;
  }

  /** Forgets sessions whose windows have run empty: they are as good as new ones. */
  #sweep(): void {
    const { permissions, submissions } = this.rates;
    const idleMs = 1_000 * Math.max(permissions.windowSecs, submissions.windowSecs, 60);
    const now = this.now();
    for (const session of this.#byKey.values()) {
      if (now - session.usedAtMs < idleMs) continue;
      this.#byKey.delete(session.key);
      this.#byToken.delete(session.token);
    }
  }
}

/**
 * Takes one event from a window.
 * @throws RateLimited when there is none left.
 */
export function spend(window: SlidingWindow, nowMs: number): void {
  const waitSecs = window.admit(nowMs);
  if (waitSecs !== null) throw new RateLimited(waitSecs);
}

/** Too many requests; carries what the header Retry-After says. */
export class RateLimited extends OutcallError {
  /** @param retryAfterSecs Whole seconds, at least 1. */
  constructor(readonly retryAfterSecs: number) {
    super(429, "rate.limited", "rate limit exceeded for this container", {
      hint: `Ask again in ${retryAfterSecs} s.`,
    });
  }
}
