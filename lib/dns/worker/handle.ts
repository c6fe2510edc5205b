/** The main isolate's end of one UDP worker, from its start to its end or crash. */
import { messageOf } from "../../errors.ts";
import { Beats, HeartbeatWatch } from "../../heartbeat.ts";
import { WakeCounter } from "../../linux/wake.ts";
import type { Rate } from "../../rate.ts";
import { type Asked, Tickets } from "../../tickets.ts";
import { JournalReader } from "./journal.ts";
import {
  type Activity,
  type FromWorker,
  type HandedOver,
  type Report,
  Shared,
  type Start,
  type ToWorker,
} from "./protocol.ts";

/** A worker that takes longer than this over a message hangs. */
const ANSWER_TIMEOUT_MS = 5000;

/** What hangs is noticed within two seconds. */
const MAX_MISSED_BEATS = 2;

/** What comes from the worker. */
export interface WorkerEvents {
  /** Must not throw. */
  readonly onQueries: (fd: number, queries: readonly HandedOver[]) => void;
  /** Must not throw. */
  readonly onActivity: (activity: Activity) => void;
  /** Agents at these addresses are to be leased again. Must not throw. */
  readonly onRenewal: (addresses: readonly string[]) => void;
  /** The worker is gone, and nothing else will come from it. */
  readonly onCrash: (why: string) => void;
}

/** One worker. */
export class WorkerHandle {
  readonly #shared = new Shared();
  readonly #wake = WakeCounter.create();
  readonly #worker: Worker;
  readonly #events: WorkerEvents;
  readonly #journal = new JournalReader();
  readonly #tickets = new Tickets<void>();
  readonly #beats = new Beats();
  readonly #watch: HeartbeatWatch;
  #ended = false;

  /** @throws SystemError */
  constructor(rate: Rate, events: WorkerEvents) {
    this.#events = events;
    this.#worker = new Worker(new URL("./thread.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>): void => this.#receive(data);
    this.#worker.onerror = (event): void => {
      // Otherwise the daemon would end with its worker, and DNS by TCP and the proxy with it.
      event.preventDefault();
      this.#crash(event.message);
    };
    const start: Start = {
      wakeFd: this.#wake.fd,
      shared: this.#shared.buffer,
      beats: this.#beats.buffer,
      rate,
    };
    this.#worker.postMessage(start);
    this.#watch = new HeartbeatWatch({
      beats: this.#beats,
      maxMissed: MAX_MISSED_BEATS,
      isExcused: () => this.#tickets.open > 0,
      onSilence: () => this.#crash("it hangs"),
    });
  }

  #receive(message: FromWorker): void {
    if (this.#ended) return;
    switch (message.kind) {
      case "done":
        this.#tickets.settle(message.ticket);
        break;
      case "queries":
        this.#shared.addTakenPackets(message.queries.length);
        this.#events.onQueries(message.fd, message.queries);
        break;
      case "report":
        this.#shared.addUnreadReports(-1);
        this.#read(message.report);
        break;
      case "renew":
        this.#events.onRenewal(message.addresses);
        break;
      case "failed":
        this.#crash(message.why);
    }
  }

  #read(report: Report): void {
    let activity: Activity;
    try {
      activity = this.#journal.read(report);
    } catch (thrown) {
      return this.#crash(messageOf(thrown));
    }
    this.#events.onActivity(activity);
  }

  #crash(why: string): void {
    if (this.#ended) return;
    this.#close();
    this.#events.onCrash(why);
  }

  #close(): void {
    this.#ended = true;
    this.#watch.stop();
    this.#worker.terminate();
    // In case it sleeps; its end closes nothing of ours. The descriptor itself stays open: a thread
    // that hangs might still come to use it, and must not find another file there.
    this.#wake.add();
    this.#tickets.settleAll();
  }

  /** Begins a new epoch: until the worker has read what changed, it answers nothing by itself. */
  nextEpoch(): number {
    return this.#shared.nextEpoch();
  }

  /** Sends a message. */
  tell(message: Exclude<ToWorker, { readonly ticket: number }>): void {
    if (!this.#ended) this.#post(message);
  }

  /**
   * Sends a message and settles when the worker has acted on it, or is gone; one that takes too long
   * is treated as crashed. Never rejects.
   */
  async ask(message: Asked<ToWorker>): Promise<void> {
    if (this.#ended) return;
    await this.#tickets.ask(
      (ticket) => this.#post({ ...message, ticket }),
      ANSWER_TIMEOUT_MS,
      () => this.#crash("it does not answer"),
    );
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
    this.#wake.add();
  }

  /** Ends the worker when it has reported what is left. */
  async end(): Promise<void> {
    await this.ask({ kind: "end" });
    if (this.#ended) return;
    this.#ended = true;
    this.#watch.stop();
    this.#worker.terminate();
    this.#wake.close();
  }
}
