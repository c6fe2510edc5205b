/**
 * The thread that writes the history: a disk that is slow, full or hangs keeps nobody waiting but
 * this thread.
 */
/// <reference lib="deno.worker" />
import { messageOf } from "../errors.ts";
import { isDamage } from "../store/database.ts";
import { markDamaged } from "../store/state.ts";
import type { FromWriter, ToWriter } from "./protocol.ts";
import { type Bounds, DecisionTable, type Extent } from "./table.ts";

declare const self: DedicatedWorkerGlobalScope;

/** Time between two looks at what is beyond the bounds. */
const PRUNE_EVERY_MS = 1_000;

/** Bites that pruning takes with one batch: more than a batch can bring. */
const PRUNE_BITES = 6;

/** Time between two counts of what there is. */
const EXTENT_EVERY_MS = 10_000;

/** The table, its bounds, and when it was looked at. */
class Writer {
  readonly #table: DecisionTable;
  readonly #bounds: Bounds;
  #extent: Extent;
  #prunedAtMs = 0;
  #countedAtMs = 0;

  constructor(path: string, bounds: Bounds) {
    this.#table = new DecisionTable(path);
    this.#bounds = bounds;
    try {
      this.#table.check();
      this.#extent = this.#table.extent();
    } catch (thrown) {
      this.#table.close();
      if (isDamage(thrown)) markDamaged(path);
      throw thrown;
    }
  }

  write(rows: Extract<ToWriter, { kind: "write" }>["rows"]): Extent {
    // Before it is written: on a disk that is full this makes room.
    this.#prune();
    this.#table.write(rows);
    const nowMs = performance.now();
    if (nowMs - this.#countedAtMs >= EXTENT_EVERY_MS) {
      this.#countedAtMs = nowMs;
      this.#extent = this.#table.extent();
    }
    return this.#extent;
  }

  #prune(): void {
    const nowMs = performance.now();
    if (nowMs - this.#prunedAtMs < PRUNE_EVERY_MS) return;
    for (let bite = 0; bite < PRUNE_BITES; bite++) {
      if (this.#table.prune(this.#bounds, Date.now())) continue;
      this.#prunedAtMs = nowMs;
      return;
    }
    // What is left is taken with the next batch.
  }

  extent(): Extent {
    return this.#extent;
  }

  close(): void {
    this.#table.close();
  }
}

let writer: Writer | null = null;

function handle(message: ToWriter): Extent | null {
  if (message.kind === "write") {
    if (writer === null) throw new Error("the database is not open");
    return writer.write(message.rows);
  }
  writer?.close();
  writer = null;
  if (message.kind === "close") return null;
  writer = new Writer(message.path, message.bounds);
  return writer.extent();
}

self.onmessage = ({ data }: MessageEvent<ToWriter>): void => {
  let answer: FromWriter;
  try {
    answer = { ok: true, extent: handle(data) };
  } catch (thrown) {
    answer = { ok: false, error: messageOf(thrown) };
  }
  self.postMessage(answer);
};
