/**
 * Keeps the kernel as it should be: new ports are pinned when they appear, and what another program
 * on the host changes (a flushed ruleset, a deleted bridge) is put right within two seconds.
 */
import { messageOf } from "../errors.ts";
import { followLinks } from "../linux/netlink_events.ts";
import { logger } from "../log.ts";
import { pause } from "../pause.ts";
import type { Bridges } from "./bridge.ts";

const log = logger("bridge");

/** How often the tables are looked at; links tell by themselves. */
const TABLE_INTERVAL_MS = 1000;
/** An agent can cause events as fast as it likes: we look at most this often. */
const MIN_INTERVAL_MS = 20;

/** Follows the kernel from {@linkcode start} to {@linkcode stop}. */
export class Watch {
  readonly #bridges: Bridges;
  readonly #end = new AbortController();
  #running: Promise<unknown> | undefined;
  #isEventPending = false;
  #wake: () => void = () => {};
  /** The last failure, to say it once. */
  #failure: string | null = null;
  #repairs = 0;

  constructor(bridges: Bridges) {
    this.#bridges = bridges;
  }

  /** How often something had to be put right, and was. */
  get repairs(): number {
    return this.#repairs;
  }

  /** Begins to watch; call once. */
  start(): void {
    const { signal } = this.#end;
    const events = followLinks(signal, () => {
      this.#isEventPending = true;
      this.#wake();
    }).catch((error: unknown) => {
      log.error("changes of links are noticed late: {reason}", { reason: messageOf(error) });
    });
    this.#running = Promise.all([events, this.#run(signal)]);
  }

  /** Ends when the look under way has ended. */
  async stop(): Promise<void> {
    this.#end.abort();
    this.#wake();
    await this.#running;
  }

  async #run(signal: AbortSignal): Promise<void> {
    let tablesAtMs = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      this.#isEventPending = false;
      const withTables = performance.now() - tablesAtMs >= TABLE_INTERVAL_MS;
      if (withTables) tablesAtMs = performance.now();
      await this.#repair(withTables);
      await pause(MIN_INTERVAL_MS);
      await this.#eventOr(tablesAtMs + TABLE_INTERVAL_MS - performance.now());
    }
  }

  async #repair(withTables: boolean): Promise<void> {
    try {
      const repaired = await this.#bridges.repair(withTables);
      if (repaired.length > 0) this.#repairs++;
      this.#failure = null;
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== this.#failure) log.error("cannot be repaired: {reason}", { reason });
      this.#failure = reason;
    }
  }

  #eventOr(timeoutMs: number): Promise<void> {
    if (this.#isEventPending || this.#end.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(0, timeoutMs));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
