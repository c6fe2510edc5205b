/** The main isolate's end of the proxy's thread, from its start to its end or crash. */
import { Beats, HeartbeatWatch } from "../../heartbeat.ts";
import { closeDescriptor, cutConnection } from "../../linux/tcp.ts";
import { WakeCounter } from "../../linux/wake.ts";
import { threadLogOptions } from "../../log.ts";
import { type Asked, Tickets } from "../../tickets.ts";
import type { ProxyLimits } from "../context.ts";
import { type FromThread, type SharedCounters, SharedDescriptors } from "./protocol.ts";
import type { Start, ToThread } from "./protocol.ts";

/** A thread that takes longer than this over a message hangs. */
const ANSWER_TIMEOUT_MS = 5_000;

/**
 * Five seconds: to be replaced costs every connection, and no policy is enforced any later for it,
 * because a reload waits for its answer.
 */
const MAX_MISSED_BEATS = 10;

/** What the thread asks and tells. None of these may throw. */
export interface ThreadEvents {
  readonly onMessage: (message: Exclude<FromThread, { readonly kind: "done" | "failed" }>) => void;
  /** The thread is gone with every connection it had, and nothing else will come from it. */
  readonly onCrash: (why: string) => void;
}

/** One thread. */
export class ThreadHandle {
  readonly #descriptors = new SharedDescriptors();
  readonly #beats = new Beats();
  readonly #watch: HeartbeatWatch;
  readonly #wake = WakeCounter.create();
  readonly #worker: Worker;
  readonly #events: ThreadEvents;
  readonly #tickets = new Tickets<number>();
  #ended = false;

  /** @throws SystemError */
  constructor(limits: ProxyLimits, counters: SharedCounters, events: ThreadEvents) {
    this.#events = events;
    this.#worker = new Worker(new URL("./thread.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromThread>): void => this.#receive(data);
    this.#worker.onerror = (event): void => {
      event.preventDefault(); // or the daemon would end with it
      this.#crash(event.message, true);
    };
    const start: Start = {
      wakeFd: this.#wake.fd,
      counters: counters.buffer,
      descriptors: this.#descriptors.buffer,
      beats: this.#beats.buffer,
      limits,
      logs: threadLogOptions(),
    };
    this.#worker.postMessage(start);
    this.#watch = new HeartbeatWatch({
      beats: this.#beats,
      maxMissed: MAX_MISSED_BEATS,
      isExcused: () => this.#tickets.open > 0,
      onSilence: () => this.#crash("it hangs", false),
    });
  }

  #receive(message: FromThread): void {
    if (this.#ended) return;
    if (message.kind === "failed") this.#crash(message.why, true);
    else if (message.kind !== "done") this.#events.onMessage(message);
    else this.#tickets.settle(message.ticket, message.count);
  }

  /** @param isGone The thread does nothing any more; otherwise it may still be at it. */
  #crash(why: string, isGone: boolean): void {
    if (this.#ended) return;
    this.#end(isGone);
    this.#events.onCrash(why);
  }

  #end(isGone: boolean): void {
    this.#ended = true;
    this.#watch.stop();
    this.#worker.terminate();
    for (const fd of this.#descriptors.takeAll()) {
      cutConnection(fd);
      // A thread that hangs might come to use the number, and must not find another file there.
      if (isGone) closeDescriptor(fd);
    }
    if (isGone) this.#wake.close();
    else this.#wake.add(); // in case it sleeps
    this.#tickets.settleAll(0);
  }

  /** Sends a message. */
  tell(message: Exclude<ToThread, { readonly ticket: number }>): void {
    if (!this.#ended) this.#post(message);
  }

  /**
   * Sends a message and settles when the thread has acted on it, or is gone; one that takes too long
   * is treated as crashed. Never rejects.
   */
  async ask(message: Asked<ToThread>, timeoutMs = ANSWER_TIMEOUT_MS): Promise<number> {
    if (this.#ended) return 0;
    return await this.#tickets.ask(
      (ticket) => this.#post({ ...message, ticket }),
      timeoutMs,
      () => this.#crash("it does not answer", false),
    );
  }

  #post(message: ToThread): void {
    this.#worker.postMessage(message);
    this.#wake.add();
  }

  /** Ends the thread when busy connections have had `drainMs` to end, or `atOnce` is aborted. */
  async end(drainMs: number, atOnce?: AbortSignal): Promise<void> {
    atOnce?.addEventListener("abort", () => void this.#stop(0));
    await this.#stop(atOnce?.aborted === true ? 0 : drainMs);
  }

  async #stop(drainMs: number): Promise<void> {
    await this.ask({ kind: "stop", drainMs }, drainMs + ANSWER_TIMEOUT_MS);
    if (!this.#ended) this.#end(true);
  }
}
