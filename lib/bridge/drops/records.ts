/**
 * Turns dropped packets into decision records: what one agent has dropped for one reason is one
 * record that grows, however many packets and targets there are. Memory is bounded whatever agents
 * send.
 */
import type { Agent } from "../../agents.ts";
import type { Decision, DecisionChanges, NewDecision, Targets } from "../../decision.ts";
import { messageOf } from "../../errors.ts";
import { logger } from "../../log.ts";
import type { Drop } from "./attribution.ts";

/** After this long without a packet the next one begins a new record. */
const QUIET_MS = 60_000;
/** No record grows longer than this: one that never ends would say nothing about when. */
const WINDOW_MS = 10 * 60_000;
/** Records that grow at a time; beyond it the one that began first grows no more. */
const MAX_GROWING = 1024;
/** Targets that are told apart in one record; what comes after them adds to its count only. */
const MAX_TARGETS = 2048;
/** Targets that a record names. */
const NAMED_TARGETS = 5;

const log = logger("bridge");

/** Where records go, and who an address is. */
export interface RecordTargets {
  readonly identify: (address: string) => Agent | null | Promise<Agent | null>;
  readonly generation: () => number;
  readonly record: (decision: NewDecision) => Decision;
  readonly update: (decision: Decision, changes: DecisionChanges) => Decision;
}

/** A record that grows. */
interface Growing {
  readonly drop: Drop;
  readonly beganAtMs: number;
  lastAtMs: number;
  count: number;
  readonly targets: Set<string>;
  /** Null until it is known whose it is. */
  decision: Decision | null;
  hasGrown: boolean;
}

function targetOf({ attempt }: Drop): string {
  const { address = "", port, protocol = "" } = attempt;
  return port === undefined ? `${address} ${protocol}` : `${address}:${port} ${protocol}`;
}

/** Who did what. An address that nobody vouches for is no part of it: it can be made up. */
function keyOf({ sender, reason }: Drop): string {
  return `${sender} ${reason}`;
}

function targetsOf({ targets }: Growing): Targets {
  return { distinct: targets.size, first: [...targets].slice(0, NAMED_TARGETS) };
}

/** The records that grow now. */
export class DropRecords {
  readonly #to: RecordTargets;
  readonly #growing = new Map<string, Growing>();

  constructor(to: RecordTargets) {
    this.#to = to;
  }

  /** How many records grow now. */
  get growing(): number {
    return this.#growing.size;
  }

  /** Counts one packet. */
  add(drop: Drop, nowMs: number): void {
    const key = keyOf(drop);
    const found = this.#growing.get(key);
    if (found === undefined || isOver(found, nowMs)) {
      if (found !== undefined) this.#end(key, found);
      this.#begin(key, drop, nowMs);
      return;
    }
    found.lastAtMs = nowMs;
    found.count++;
    found.hasGrown = true;
    if (found.targets.size < MAX_TARGETS) found.targets.add(targetOf(drop));
  }

  /** Writes what has grown since the last time into the records, and ends those that are over. */
  flush(nowMs: number): void {
    for (const [key, growing] of this.#growing) {
      this.#write(growing);
      if (isOver(growing, nowMs)) this.#end(key, growing);
    }
  }

  #begin(key: string, drop: Drop, nowMs: number): void {
    for (const [oldestKey, oldest] of this.#growing) {
      if (this.#growing.size < MAX_GROWING) break;
      this.#end(oldestKey, oldest);
    }
    const growing: Growing = {
      drop,
      beganAtMs: nowMs,
      lastAtMs: nowMs,
      count: 1,
      targets: new Set([targetOf(drop)]),
      decision: null,
      hasGrown: false,
    };
    this.#growing.set(key, growing);
    void this.#record(growing);
  }

  async #record(growing: Growing): Promise<void> {
    const { drop } = growing;
    let agent: Agent | null = null;
    try {
      const whose = drop.pin === null ? null : this.#to.identify(drop.pin.address);
      // What is known is recorded at once, so that a packet and its record are close in the log.
      agent = whose instanceof Promise ? await whose : whose;
    } catch (error) {
      log.warn("who is at {address} cannot be told: {reason}", {
        address: drop.source,
        reason: messageOf(error),
      });
    }
    growing.decision = this.#to.record({
      generation: this.#to.generation(),
      layer: "kernel",
      agent,
      source: drop.source,
      attempt: drop.attempt,
      verdict: "block",
      reason: drop.reason,
      rule: null,
    });
  }

  #write(growing: Growing): void {
    const { decision, count, hasGrown } = growing;
    if (!hasGrown || decision === null) return;
    growing.hasGrown = false;
    growing.decision = this.#to.update(decision, { count, targets: targetsOf(growing) });
  }

  #end(key: string, growing: Growing): void {
    this.#write(growing);
    this.#growing.delete(key);
  }
}

function isOver({ beganAtMs, lastAtMs }: Growing, nowMs: number): boolean {
  return nowMs - lastAtMs >= QUIET_MS || nowMs - beganAtMs >= WINDOW_MS;
}
