/**
 * The history: decisions on disk, written in batches by a thread of its own, read by another.
 *
 * Nothing that decides ever waits for it. A disk that is full, damaged or gone costs records, which
 * are counted; it is said in the log once a minute and in the daemon's health for as long as it lasts.
 */
import type { DecisionSink } from "../decision.ts";
import { messageOf } from "../errors.ts";
import type { PartHealth } from "../health.ts";
import { logger } from "../log.ts";
import { Backlog, type Overflow } from "./backlog.ts";
import type { FromWriter, ToWriter } from "./protocol.ts";
import type { Bounds, Extent, Row } from "./table.ts";

const log = logger("host_api");

/** Time between batches: with the writing itself it is what kill -9 may cost. */
const BATCH_EVERY_MS = 250;

/** Pause before the database is opened again after it failed. */
const RETRY_MS = 5_000;

/** A thread that takes longer over a batch is said to hang. */
const HANGS_AFTER_MS = 15_000;

/** How often a problem is logged while it lasts. */
const COMPLAIN_EVERY_MS = 60_000;

/** How long records are said to be missing in the health after some were lost. */
const RECENT_LOSS_MS = 60_000;

/** How long the last batches may take when the daemon stops. */
const STOP_MS = 2_000;

/** Where the history is, and how much is kept. */
export interface HistoryOptions {
  /** Path of a database that `openDatabase` made. */
  readonly path: string;
  readonly bounds: Bounds;
}

/** What became of the decisions, since start-up. */
export interface HistoryCounters extends Overflow {
  /** Versions of records that are on disk. */
  readonly written: number;
}

/** The writing side of the history. */
export class History {
  readonly #options: HistoryOptions;
  readonly #backlog = new Backlog();
  #worker: Worker | null = null;
  /** Written next, or being written. */
  #batch: readonly Row[] = [];
  #asked: { readonly kind: ToWriter["kind"]; readonly atMs: number } | null = null;
  #isOpen = false;
  #retryAtMs = 0;
  #written = 0;
  #extent: Extent | null = null;
  #problem: string | null = null;
  #complainedAtMs = Number.NEGATIVE_INFINITY;
  #lostBefore = 0;
  #lostAtMs = Number.NEGATIVE_INFINITY;
  #timer: ReturnType<typeof setInterval> | undefined;
  #changed: () => void = () => {};

  constructor(options: HistoryOptions) {
    this.#options = options;
  }

  /** Takes in a change; to be a sink of the decision log. */
  readonly add: DecisionSink = this.#backlog.add;

  /** What became of the decisions. */
  get counters(): HistoryCounters {
    return { written: this.#written, ...this.#backlog.overflow };
  }

  /** Sequence of the last change that was lost; 0: none was. */
  get lastLost(): number {
    return this.#backlog.lastLost;
  }

  /** Begins to write what was and will be decided. */
  start(): void {
    this.#timer = setInterval(() => this.#tick(), BATCH_EVERY_MS);
    this.#tick();
  }

  #tick(): void {
    try {
      this.#proceed();
    } catch (thrown) {
      // No thread can be had, say. Thrown from a timer it would end the daemon.
      this.#asked = null;
      this.#retryAtMs = performance.now() + RETRY_MS;
      this.#complain(messageOf(thrown));
    }
  }

  #proceed(): void {
    const nowMs = performance.now();
    this.#noteLoss(nowMs);
    if (this.#asked !== null) {
      if (nowMs - this.#asked.atMs > HANGS_AFTER_MS) this.#complain("the disk does not answer");
      return;
    }
    if (nowMs < this.#retryAtMs) return;
    if (!this.#isOpen) return this.#ask({ kind: "open", ...this.#options });
    if (this.#batch.length === 0) {
      this.#batch = this.#backlog.take().map(({ sequence, decision }) => ({
        sequence,
        record: JSON.stringify(decision),
      }));
    }
    if (this.#batch.length > 0) this.#ask({ kind: "write", rows: this.#batch });
  }

  #ask(message: ToWriter): void {
    this.#worker ??= this.#newWorker();
    this.#asked = { kind: message.kind, atMs: performance.now() };
    this.#worker.postMessage(message);
  }

  #newWorker(): Worker {
    const worker = new Worker(new URL("./writer.ts", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<FromWriter>): void => this.#answered(data);
    worker.onerror = (event): void => {
      event.preventDefault(); // or the daemon would end with it
      worker.terminate();
      this.#worker = null;
      this.#answered({ ok: false, error: event.message });
    };
    return worker;
  }

  #answered(answer: FromWriter): void {
    const asked = this.#asked?.kind;
    this.#asked = null;
    if (!answer.ok) {
      this.#isOpen = false;
      this.#retryAtMs = performance.now() + RETRY_MS;
      this.#complain(answer.error);
    } else {
      this.#extent = answer.extent;
      if (asked === "open") this.#isOpen = true;
      if (asked === "write") {
        this.#written += this.#batch.length;
        this.#batch = [];
      }
      // A database that opens may still be on a full disk.
      if (this.#batch.length === 0) this.#recovered();
    }
    this.#changed();
  }

  #recovered(): void {
    if (this.#problem === null) return;
    log.info("decisions are written to the history again", {});
    this.#problem = null;
    this.#complainedAtMs = Number.NEGATIVE_INFINITY;
  }

  #noteLoss(nowMs: number): void {
    const { lost } = this.#backlog.overflow;
    if (lost === this.#lostBefore) return;
    if (nowMs - this.#lostAtMs > COMPLAIN_EVERY_MS) {
      log.warn("decisions come faster than the history takes them: {lost} were not kept so far", {
        lost,
      });
      this.#lostAtMs = nowMs;
    }
    this.#lostBefore = lost;
  }

  #complain(problem: string): void {
    this.#problem = problem;
    const nowMs = performance.now();
    if (nowMs - this.#complainedAtMs < COMPLAIN_EVERY_MS) return;
    this.#complainedAtMs = nowMs;
    const { path } = this.#options;
    log.error("decisions cannot be written to {path}: {problem}; what is enforced is the same", {
      path,
      problem,
    });
  }

  /** Whether everything is kept that should be. */
  health(): PartHealth {
    const { lost } = this.#backlog.overflow;
    const loss = lost === 0 ? "" : `; ${lost} lost since start`;
    if (this.#problem !== null) {
      const detail = `decisions are not kept: ${this.#problem}${loss}`;
      return { name: "history", state: "degraded", detail };
    }
    const isLosing = performance.now() - this.#lostAtMs < RECENT_LOSS_MS;
    const extent = this.#extent === null ? "opening" : extentText(this.#extent);
    return {
      name: "history",
      state: isLosing ? "degraded" : "ok",
      detail: `${extent}${loss}`,
    };
  }

  /** Writes what is left, as far as there is time for it, and lets go of the database. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    const untilMs = performance.now() + STOP_MS;
    while (this.#isBusy && performance.now() < untilMs && performance.now() >= this.#retryAtMs) {
      this.#tick();
      await this.#answerBefore(untilMs);
    }
    if (this.#isOpen && this.#asked === null) {
      this.#ask({ kind: "close" });
      await this.#answerBefore(untilMs);
    }
    this.#worker?.terminate();
    this.#worker = null;
  }

  get #isBusy(): boolean {
    return this.#asked !== null || this.#batch.length > 0 || this.#backlog.size > 0;
  }

  async #answerBefore(untilMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#changed = resolve;
    const timer = setTimeout(resolve, untilMs - performance.now());
    await promise;
    clearTimeout(timer);
  }
}

const MIB = 1024 * 1024;

function extentText({ records, bytes, oldest }: Extent): string {
  const size = `${(bytes / MIB).toFixed(1)} MiB`;
  return oldest === null ? `empty, ${size}` : `${records} records since ${oldest}, ${size}`;
}
