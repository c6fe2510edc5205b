/**
 * Reads what the firewall drops from the kernel's log and has it recorded. Nothing waits for it: a
 * reader that is late or gone costs records, which are counted where the kernel tells, and never a
 * packet's verdict.
 */
import { messageOf } from "../../errors.ts";
import type { PartHealth } from "../../health.ts";
import { deviceName } from "../../linux/devices.ts";
import { GroupTakenError, PacketLog } from "../../linux/nflog.ts";
import { logger } from "../../log.ts";
import { pause } from "../../pause.ts";
import type { Pin } from "../ports.ts";
import { DROP_GROUP } from "../report.ts";
import { attribute, PinIndex } from "./attribution.ts";
import { DropRecords, type RecordTargets } from "./records.ts";

/** Longest wait in the kernel: how late a stop, or the end of a quiet record, may be noticed. */
const WAIT_MS = 250;
/** How often records grow: each time costs a line in the stream and in the history. */
const FLUSH_INTERVAL_MS = 1_000;
/** Time to let other work of this isolate run, after this many datagrams in a row. */
const MAX_READS_IN_A_ROW = 16;
/** Before the log is joined anew. */
const RESTART_DELAY_MS = 1_000;
/** How long the loss of packets shows in the health. */
const LOSS_SHOWN_MS = 60_000;

const log = logger("bridge");

/** Counters since start-up. */
export interface DropStats {
  /** Packets that the kernel handed over. */
  readonly reported: number;
  /** Of these, packets that were nobody's attempt. */
  readonly ignored: number;
  /** Packets that the kernel could not hand over, because the reader was late. */
  readonly lost: number;
  /** Times that the log had to be joined anew. */
  readonly restarts: number;
  /** Records that grow now. */
  readonly growing: number;
}

/** What a {@linkcode DropReader} works with. */
export interface DropReaderOptions extends RecordTargets {
  /** The pins in force; a new array whenever they change. */
  readonly pins: () => readonly Pin[];
}

/** Reads from {@linkcode start} to {@linkcode stop}. */
export class DropReader {
  readonly #options: DropReaderOptions;
  readonly #records: DropRecords;
  readonly #end = new AbortController();
  #running: Promise<void> | undefined;
  /** Null while the log is read. */
  #failure: string | null = "not started";
  #reported = 0;
  #ignored = 0;
  #lost = 0;
  #lostAtMs = Number.NEGATIVE_INFINITY;
  #restarts = 0;
  #pins: readonly Pin[] = [];
  #index = new PinIndex([]);

  constructor(options: DropReaderOptions) {
    this.#options = options;
    this.#records = new DropRecords(options);
  }

  /** Joins the log; call once. A failure shows in {@linkcode health}, and is tried again. */
  start(): void {
    this.#running = this.#run(this.#end.signal);
  }

  /** Leaves the log; records that grow get their last numbers. */
  async stop(): Promise<void> {
    this.#end.abort();
    await this.#running;
    this.#records.flush(performance.now());
  }

  /** Counters since start-up. */
  stats(): DropStats {
    return {
      reported: this.#reported,
      ignored: this.#ignored,
      lost: this.#lost,
      restarts: this.#restarts,
      growing: this.#records.growing,
    };
  }

  /** Whether drops become records. They are dropped in any case, so this never is `failed`. */
  health(): PartHealth {
    const name = "kernel_log";
    if (this.#failure !== null) {
      return { name, state: "degraded", detail: `drops are not recorded: ${this.#failure}` };
    }
    const isLossRecent = performance.now() - this.#lostAtMs < LOSS_SHOWN_MS;
    return isLossRecent
      ? { name, state: "degraded", detail: `${this.#lost} dropped packet(s) went unrecorded` }
      : { name, state: "ok", detail: `reading drops from log group ${DROP_GROUP}` };
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        using packets = new PacketLog(DROP_GROUP);
        if (this.#failure !== null && this.#restarts > 0) log.info("drops are recorded again");
        this.#failure = null;
        await this.#follow(packets, signal);
      } catch (error) {
        this.#fail(error);
        this.#restarts++;
        await pause(RESTART_DELAY_MS, signal);
      }
    }
  }

  async #follow(packets: PacketLog, signal: AbortSignal): Promise<void> {
    let flushedAtMs = performance.now();
    while (!signal.aborted) {
      await packets.wait(WAIT_MS);
      for (let reads = 0; reads < MAX_READS_IN_A_ROW && this.#read(packets); reads++);
      const nowMs = performance.now();
      if (nowMs - flushedAtMs < FLUSH_INTERVAL_MS) continue;
      this.#records.flush(nowMs);
      flushedAtMs = nowMs;
    }
  }

  /** Whether there may be more. */
  #read(packets: PacketLog): boolean {
    const read = packets.read();
    if (read === null) return false;
    const nowMs = performance.now();
    if (read.lost > 0) {
      this.#lost += read.lost;
      this.#lostAtMs = nowMs;
    }
    const pins = this.#options.pins();
    if (pins !== this.#pins) {
      this.#pins = pins;
      this.#index = new PinIndex(pins);
    }
    for (const packet of read.packets) {
      this.#reported++;
      const drop = attribute(packet, { pins: this.#index, deviceName });
      if (drop === null) this.#ignored++;
      else this.#records.add(drop, nowMs);
    }
    return true;
  }

  #fail(error: unknown): void {
    const reason = error instanceof GroupTakenError
      ? `${error.message}${programOf(error.pid)}; end it`
      : messageOf(error);
    if (reason !== this.#failure) log.error("drops are not recorded: {reason}", { reason });
    this.#failure = reason;
  }
}

/** The program's name for the operator, where it can be found. */
function programOf(pid: number | null): string {
  if (pid === null) return "";
  try {
    return ` (${Deno.readTextFileSync(`/proc/${pid}/comm`).trim()})`;
  } catch {
    return ""; // it has ended, or is in another process namespace
  }
}
