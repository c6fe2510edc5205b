/**
 * Decisions as they are made, for readers that may be slow, leave and come back.
 *
 * Each reader has a queue of its own with a bound: what does not fit is dropped and told as a number,
 * so that no reader costs more memory than that, whatever it does.
 */
import type { Change, Decision, DecisionLog, Recorded } from "../decision.ts";
import { messageOf, OutcallError } from "../errors.ts";
import { type DecisionFilter, matches } from "./filter.ts";
import type { HistoryQuery } from "./table.ts";

/** What a reader gets. */
export type StreamEvent =
  | {
    readonly kind: "decision";
    readonly change: Change;
    readonly decision: Decision;
    /** Where to resume after this. */
    readonly sequence: number;
  }
  /** Events that this reader will not get. */
  | { readonly kind: "lost"; readonly count: number | null; readonly why: string };

/** A reader's place in the stream. */
export interface Subscription {
  /** The next events, at least one; null when the stream has ended. */
  next(): Promise<readonly StreamEvent[] | null>;
  /** Ends it. */
  close(): void;
}

/** Readers at a time. */
const MAX_SUBSCRIPTIONS = 32;

/** Events that wait for one reader. */
const MAX_QUEUED = 1_000;

/** Records that are read from the history at once. */
const PAGE_ROWS = 500;

/** What streams ask of the history. */
export interface HistoryReader {
  read(query: HistoryQuery): Promise<readonly Recorded[]>;
  /** Sequence of the last change that was lost; 0: none was. */
  lastLost(): number;
}

function eventOf({ decision, sequence }: Recorded): StreamEvent {
  const change = decision.updated === undefined ? "new" : "update";
  return { kind: "decision", change, decision, sequence };
}

/** All readers. */
export class DecisionStreams {
  readonly #log: DecisionLog;
  readonly #history: HistoryReader;
  readonly #live = new Set<LiveSubscription>();
  #lost = 0;

  constructor(log: DecisionLog, history: HistoryReader) {
    this.#log = log;
    this.#history = history;
    log.addSink((decision, change, sequence) => {
      for (const subscription of this.#live) subscription.offer(decision, change, sequence);
    });
  }

  /** Readers now, and events that some were too slow for since start-up. */
  get counters(): { readonly readers: number; readonly lost: number } {
    return { readers: this.#live.size, lost: this.#lost };
  }

  /**
   * Begins to stream what suits `filter`.
   * @param after Resume after this sequence; null: begin with what comes next.
   * @throws OutcallError `events.too_many` (429).
   */
  subscribe(filter: DecisionFilter, after: number | null): Subscription {
    if (this.#live.size >= MAX_SUBSCRIPTIONS) {
      throw new OutcallError(
        429,
        "events.too_many",
        `there are ${MAX_SUBSCRIPTIONS} readers already`,
        {
          hint: "End one of them.",
        },
      );
    }
    const subscription = new LiveSubscription(filter, {
      missed: after === null
        ? null
        : missed(this.#log, this.#history, filter, { after, until: this.#log.sequence }),
      onLost: (count) => void (this.#lost += count),
      onClosed: () => void this.#live.delete(subscription),
    });
    this.#live.add(subscription);
    return subscription;
  }

  /** Ends them all. */
  stop(): void {
    for (const subscription of [...this.#live]) subscription.close();
  }
}

/** What changed in a stretch of time: from the history as far as memory does not reach. */
async function* missed(
  log: DecisionLog,
  history: HistoryReader,
  filter: DecisionFilter,
  { after, until }: { readonly after: number; readonly until: number },
): AsyncGenerator<readonly StreamEvent[]> {
  let reached = after;
  while (reached < Math.min(log.forgotten, until)) {
    let page: readonly Recorded[];
    try {
      page = await history.read({ ...filter, afterSequence: reached, limit: PAGE_ROWS });
    } catch (thrown) {
      yield [{ kind: "lost", count: null, why: messageOf(thrown) }];
      break;
    }
    const wanted = page.filter(({ sequence }) => sequence <= until);
    reached = wanted.at(-1)?.sequence ?? reached;
    if (wanted.length > 0) yield wanted.map(eventOf);
    if (wanted.length < PAGE_ROWS) break;
  }
  if (reached > after && history.lastLost() > after) {
    yield [{ kind: "lost", count: null, why: "the history could not keep up" }];
  }
  const rest = log.since(reached).filter(({ sequence, decision }) =>
    sequence <= until && matches(filter, decision)
  );
  if (rest.length > 0) yield rest.map(eventOf);
}

interface SubscriptionParts {
  readonly missed: AsyncGenerator<readonly StreamEvent[]> | null;
  readonly onLost: (count: number) => void;
  readonly onClosed: () => void;
}

class LiveSubscription implements Subscription {
  readonly #filter: DecisionFilter;
  readonly #parts: SubscriptionParts;
  #missed: SubscriptionParts["missed"];
  #queue: StreamEvent[] = [];
  #lost = 0;
  #closed = false;
  #arrived = Promise.withResolvers<void>();

  constructor(filter: DecisionFilter, parts: SubscriptionParts) {
    this.#filter = filter;
    this.#parts = parts;
    this.#missed = parts.missed;
  }

  /** Takes in a change, if it is wanted and there is room. */
  offer(decision: Decision, change: Change, sequence: number): void {
    if (!matches(this.#filter, decision)) return;
    if (this.#queue.length >= MAX_QUEUED) {
      this.#lost++;
      this.#parts.onLost(1);
      return;
    }
    this.#queue.push({ kind: "decision", change, decision, sequence });
    this.#arrived.resolve();
  }

  async next(): Promise<readonly StreamEvent[] | null> {
    if (this.#missed !== null) {
      const page = await this.#missed.next();
      if (page.done !== true && !this.#closed) return page.value;
      this.#missed = null;
    }
    while (this.#queue.length === 0) {
      if (this.#closed) return null;
      this.#arrived = Promise.withResolvers();
      await this.#arrived.promise;
    }
    const events = this.#queue;
    this.#queue = [];
    if (this.#lost > 0) {
      events.push({ kind: "lost", count: this.#lost, why: "the reader is too slow" });
      this.#lost = 0;
    }
    return events;
  }

  close(): void {
    this.#closed = true;
    this.#arrived.resolve();
    this.#parts.onClosed();
  }
}
