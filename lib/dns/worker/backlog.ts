/** Packets on their way to the main isolate, and whose they are. */
import { Shares } from "../../shares.ts";
import type { Shared } from "./protocol.ts";

/**
 * Packets that were handed over and not taken yet: above it they are refused. While the main isolate
 * is busy for a moment, an agent that asks much must not cost the others their packets. A power of
 * two, for the ring.
 */
const MAX_PACKETS = 1024;
const MAX_PACKETS_PER_SOURCE = 256;

/** The worker's view of what the main isolate has still to take. */
export class Backlog {
  readonly #shares = new Shares<number>(MAX_PACKETS, MAX_PACKETS_PER_SOURCE);
  /** Who sent them: a ring, at the packets' numbers. */
  readonly #sources = new Uint32Array(MAX_PACKETS);
  /** Numbers as {@linkcode Shared.takenPackets}: of the next packet, and of the oldest one. */
  #next: number;
  #oldest: number;

  constructor(readonly shared: Shared) {
    this.#next = this.#oldest = shared.takenPackets;
  }

  /** Whether one more packet of `source` may be handed over; counts it when it may. */
  admits(source: number): boolean {
    this.#catchUp();
    if (!this.#shares.hasRoomFor(source)) return false;
    this.#shares.take(source);
    this.#sources[this.#next & (MAX_PACKETS - 1)] = source;
    this.#next = (this.#next + 1) | 0;
    return true;
  }

  /** They are taken in the order in which they were handed over. */
  #catchUp(): void {
    for (const taken = this.shared.takenPackets; this.#oldest !== taken;) {
      this.#shares.release(this.#sources[this.#oldest & (MAX_PACKETS - 1)] ?? 0);
      this.#oldest = (this.#oldest + 1) | 0;
    }
  }
}
