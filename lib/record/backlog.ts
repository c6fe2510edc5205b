/**
 * Decisions on their way to disk: how many is bounded, and what does not fit is counted.
 *
 * While there is room each decision is kept as it is. Beyond that, one that repeats an attempt which
 * is waiting already is added to its count; only what is new then is lost. Each agent has a share of
 * the room, so that those who flood us lose their own decisions and not those of others.
 */
import type { Change, Decision, Recorded } from "../decision.ts";
import { Shares } from "../shares.ts";

/** Decisions that may come at once, after a time with few; half of them from one agent. */
export const BURST_DECISIONS = 10_000;

/** Decisions in one batch: a burst is written within a second, and nobody waits long for a batch. */
export const BATCH_DECISIONS = 2_500;

/**
 * Room that each batch brings back. With four batches a second it is what a disk takes at a cost of
 * some 3 % of one core; a flood costs no more.
 */
export const ROOM_PER_BATCH = 1_250;

/**
 * What allowed attempts of an agent may take up, as a part of what blocked ones may: those are asked
 * for more.
 */
const ALLOWED_PART = 0.5;

/** What became of decisions for which there was no room, since start-up. */
export interface Overflow {
  /** Counted by a record of the same attempt. */
  readonly merged: number;
  /** Gone. */
  readonly lost: number;
}

/** Everything that tells two attempts apart, but for their time. */
function attemptKey({ agent, source, layer, verdict, reason, rule, attempt }: Decision): string {
  const { host, address, port, method, path, recordType, image, tool } = attempt;
  return [
    agent?.containerId ?? source,
    layer,
    verdict,
    reason,
    rule?.id,
    host,
    address,
    port,
    method,
    path,
    recordType,
    image,
    tool,
  ].join("\n");
}

/** Who has a share: an agent, or all strangers together, who may make addresses up. */
function holderOf({ agent, layer }: Decision): string {
  return agent?.address ?? layer;
}

/** The queue. */
export class Backlog {
  readonly #waiting = new Map<string, Recorded>();
  readonly #room = new Shares<string>(BURST_DECISIONS, BURST_DECISIONS);
  /** Who took room that has not come back, the oldest first: it does so later than records are taken. */
  readonly #holders: string[] = [];
  /** Ids of what waits, by attempt; made when the first one does not fit. */
  #alike: Map<string, string> | null = null;
  #merged = 0;
  #lost = 0;
  #lastLost = 0;

  /** Sequence of the last change that was lost; 0: none was. */
  get lastLost(): number {
    return this.#lastLost;
  }

  /** What did not fit. */
  get overflow(): Overflow {
    return { merged: this.#merged, lost: this.#lost };
  }

  /** Decisions waiting. */
  get size(): number {
    return this.#waiting.size;
  }

  /** Takes in a change; to be a sink of the decision log. */
  readonly add = (decision: Decision, _change: Change, sequence: number): void => {
    const holder = holderOf(decision);
    const part = decision.verdict === "block" ? 1 : ALLOWED_PART;
    // A newer version takes the place of the one that waits.
    if (this.#waiting.has(decision.id)) {
      this.#waiting.set(decision.id, { decision, sequence });
    } else if (this.#room.hasRoomFor(holder, part)) {
      this.#room.take(holder);
      this.#holders.push(holder);
      this.#waiting.set(decision.id, { decision, sequence });
      this.#alike?.set(attemptKey(decision), decision.id);
    } else {
      this.#merge(decision, sequence);
    }
  };

  #merge(decision: Decision, sequence: number): void {
    this.#alike ??= new Map(
      [...this.#waiting.values()].map((waiting) => [
        attemptKey(waiting.decision),
        waiting.decision.id,
      ]),
    );
    const id = this.#alike.get(attemptKey(decision));
    const alike = id === undefined ? undefined : this.#waiting.get(id);
    const attempts = decision.count ?? 1;
    if (alike === undefined) {
      this.#lost += attempts;
      this.#lastLost = sequence;
      return;
    }
    const count = (alike.decision.count ?? 1) + attempts;
    this.#waiting.set(alike.decision.id, { ...alike, decision: { ...alike.decision, count } });
    this.#merged += attempts;
  }

  /** The oldest of what waits, at most {@linkcode BATCH_DECISIONS}; brings back room. */
  take(): Recorded[] {
    const batch = this.#waiting.values().take(BATCH_DECISIONS).toArray();
    for (const { decision } of batch) this.#waiting.delete(decision.id);
    this.#alike = null;
    // Fewer than a batch, so nothing of what still waits is without room.
    for (const holder of this.#holders.splice(0, ROOM_PER_BATCH)) this.#room.release(holder);
    return batch;
  }
}
