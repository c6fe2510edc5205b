/**
 * The UDP worker: a thread that sleeps in poll(2), answers packets 64 a system call, and reads its
 * messages when it is woken for them.
 */
/// <reference lib="deno.worker" />
import { messageOf } from "../../errors.ts";
import { BEAT_MS, Beats } from "../../heartbeat.ts";
import { droppedPackets, muteSources } from "../../linux/socket_filter.ts";
import { UdpBatch } from "../../linux/udp.ts";
import { PollSet, WakeCounter } from "../../linux/wake.ts";
import { UDP_PAYLOAD_BYTES } from "../codes.ts";
import { Pace } from "./pace.ts";
import {
  type FromWorker,
  type HandedOver,
  MAX_UNREAD_REPORTS,
  Shared,
  type Start,
  type ToWorker,
} from "./protocol.ts";
import { HAND_OVER, Responder } from "./responder.ts";

declare const self: DedicatedWorkerGlobalScope;

/** Packets for each system call: more gain nothing, and make the first one wait. */
const BATCH_PACKETS = 64;

/** A query with every option there is fits many times over. */
const MAX_QUERY_BYTES = 4096;

/** Calls for one socket before the others, and messages, get their turn. */
const MAX_ROUNDS = 16;

/** The thread's sockets, and what it does with them. */
class Thread {
  readonly #shared: Shared;
  readonly #beats: Beats;
  readonly #wake: WakeCounter;
  readonly #responder: Responder;
  readonly #batch = new UdpBatch(BATCH_PACKETS, MAX_QUERY_BYTES, UDP_PAYLOAD_BYTES);
  /** Packets that the kernel had dropped, by descriptor, when it was last asked. */
  readonly #sockets = new Map<number, number>();
  readonly #pace = new Pace();
  #polled: PollSet;
  /** Messages were read since packets were answered. */
  #readLast = false;

  constructor(start: Start) {
    this.#shared = new Shared(start.shared);
    this.#beats = new Beats(start.beats);
    this.#wake = new WakeCounter(start.wakeFd);
    this.#responder = new Responder(this.#shared, start.rate);
    this.#polled = new PollSet([start.wakeFd]);
  }

  /**
   * Answers packets until there are messages to read; returns how many. Messages come first, since
   * packets that arrived after them must be answered by what they say; but they take turns, so that
   * no flood of the one holds the other up.
   */
  serve(): number {
    for (let timeoutMs = this.#tidy();; timeoutMs = this.#tidy()) {
      this.#beats.beat();
      this.#polled.wait(this.#pace.nap() ? 0 : timeoutMs);
      const nowMs = performance.now();
      this.#responder.tick(nowMs);
      if (this.#polled.isReady(0) && !this.#readLast) {
        this.#readLast = true;
        return this.#wake.take();
      }
      this.#readLast = false;
      const { fds } = this.#polled;
      let packets = 0;
      for (let i = 1; i < fds.length; i++) {
        if (this.#polled.isReady(i)) packets += this.#answer(fds[i] ?? -1);
      }
      this.#pace.looked(packets, nowMs);
    }
  }

  /** Takes in one message; false when it is the last one. */
  read(message: ToWorker): boolean {
    switch (message.kind) {
      case "open":
        this.#sockets.set(message.fd, droppedPackets(message.fd));
        // A predecessor may have left it with another filter.
        muteSources(message.fd, this.#responder.floods.muted);
        this.#poll();
        break;
      case "close":
        this.#sockets.delete(message.fd);
        this.#poll();
        break;
      case "report":
      case "end":
        this.#reportNow();
        break;
      default:
        this.#responder.update(message);
    }
    if ("ticket" in message) this.#post({ kind: "done", ticket: message.ticket });
    return message.kind !== "end";
  }

  #poll(): void {
    this.#polled = new PollSet([this.#wake.fd, ...this.#sockets.keys()]);
  }

  /** Answers what has come to this socket; returns how many packets. */
  #answer(fd: number): number {
    const batch = this.#batch;
    let packets = 0;
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const count = batch.receive(fd);
      packets += count;
      const handedOver: HandedOver[] = [];
      for (let slot = 0; slot < count; slot++) {
        const length = batch.take(slot);
        const start = batch.start(slot);
        const source = batch.sourceAddress(slot);
        const response = this.#responder.respond(source, batch.received, start, length);
        if (response === HAND_OVER) {
          const packet = batch.received.slice(start, start + length);
          handedOver.push({ from: batch.source(slot), packet });
        } else if (response !== null) {
          batch.reply(slot, response);
        }
      }
      batch.flush(fd);
      if (handedOver.length > 0) this.#post({ kind: "queries", fd, queries: handedOver });
      if (count < BATCH_PACKETS) break;
    }
    return packets;
  }

  /**
   * Does what is due beside answering.
   * @returns Milliseconds to sleep at most: what is due later must not wait for the next packet.
   */
  #tidy(): number {
    const nowMs = performance.now();
    const renewals = this.#responder.takeRenewals();
    if (renewals.length > 0) this.#post({ kind: "renew", addresses: renewals });
    return Math.min(BEAT_MS, this.#lookAtFloods(nowMs), this.#report(nowMs));
  }

  /** As {@linkcode #tidy}. */
  #lookAtFloods(nowMs: number): number {
    const { floods } = this.#responder;
    const dueInMs = floods.dueInMs(nowMs);
    if (dueInMs === null || dueInMs > 0) return dueInMs ?? BEAT_MS;
    const before = floods.muted;
    this.#responder.lookAtFloods();
    for (const fd of this.#sockets.keys()) muteSources(fd, floods.muted);
    // Dropped while the one set was muted, or the other.
    this.#countDropped(new Set([...before, ...floods.muted]));
    return floods.dueInMs(nowMs) ?? BEAT_MS;
  }

  #countDropped(muted: ReadonlySet<number>): void {
    for (const [fd, before] of this.#sockets) {
      const dropped = droppedPackets(fd);
      // The kernel's counter wraps around.
      if (dropped !== before) this.#responder.dropped((dropped - before) >>> 0, muted);
      this.#sockets.set(fd, dropped);
    }
  }

  /** As {@linkcode #tidy}. */
  #report(nowMs: number): number {
    const dueInMs = this.#responder.journal.dueInMs(nowMs);
    if (dueInMs === null) return BEAT_MS;
    // One that is overdue waits for the main isolate to read the others.
    if (dueInMs > 0 || this.#shared.unreadReports >= MAX_UNREAD_REPORTS) {
      return Math.max(1, dueInMs);
    }
    this.#countDropped(new Set(this.#responder.floods.muted));
    this.#reportNow();
    return BEAT_MS;
  }

  #reportNow(): void {
    this.#shared.addUnreadReports(1);
    this.#post({ kind: "report", report: this.#responder.report() });
  }

  #post(message: FromWorker): void {
    self.postMessage(message);
  }
}

const inbox: ToWorker[] = [];
let arrived = Promise.withResolvers<void>();

async function run(start: Start): Promise<void> {
  const thread = new Thread(start);
  for (let unread = 0;;) {
    unread += thread.serve();
    // Each message was posted before the wake-up for it, so it will arrive without further delay.
    while (unread > 0) {
      const message = inbox.shift();
      if (message === undefined) {
        await arrived.promise;
        arrived = Promise.withResolvers();
      } else {
        unread--;
        if (!thread.read(message)) return self.close();
      }
    }
  }
}

self.onmessage = (first: MessageEvent<Start>): void => {
  self.onmessage = ({ data }: MessageEvent<ToWorker>): void => {
    inbox.push(data);
    arrived.resolve();
  };
  run(first.data).catch((thrown: unknown) => {
    const failed: FromWorker = { kind: "failed", why: messageOf(thrown) };
    self.postMessage(failed);
    self.close();
  });
};
