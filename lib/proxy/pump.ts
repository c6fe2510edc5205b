/** One direction of a tunnel: bytes from one socket to the other, unchanged, and then the end. */
import { AGAIN } from "../linux/sockets.ts";
import { Pipe } from "../linux/splice.ts";

/** Pipes that are kept for the next direction that needs one. */
const MAX_SPARE_PIPES = 16;

/** Moved for one direction before the others get their turn. */
const TURN_BYTES = 1024 * 1024;

/**
 * Empty pipes. A direction has one only while bytes wait in it, so thousands of tunnels need
 * descriptors and memory for those alone whose receiver is slow.
 */
export class PipePool {
  readonly #spare: Pipe[] = [];

  /** @throws SystemError, such as EMFILE. */
  take(): Pipe {
    return this.#spare.pop() ?? new Pipe();
  }

  /** Takes back an empty pipe. */
  giveBack(pipe: Pipe): void {
    if (this.#spare.length < MAX_SPARE_PIPES) this.#spare.push(pipe);
    else pipe.close();
  }

  close(): void {
    for (const pipe of this.#spare.splice(0)) pipe.close();
  }
}

/** One direction. */
export class Pump {
  #pipe: Pipe | null = null;
  #waitingBytes = 0;
  #bytes = 0;
  #done = false;
  /** Whoever runs it will be told when the receiver has room again. */
  hearsOfRoom = false;

  constructor(readonly from: number, readonly to: number, readonly pipes: PipePool) {}

  /** Bytes that have reached the other socket. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The stream has ended; the receiver is to be told. */
  get done(): boolean {
    return this.#done;
  }

  /** Bytes wait for the receiver. */
  get stalled(): boolean {
    return this.#waitingBytes > 0;
  }

  /**
   * Moves what can be moved now. Returns whether there may be more: then this was one turn.
   * @throws SystemError when either connection broke.
   */
  run(): boolean {
    if (this.#done) return false;
    const pipe = this.#pipe ??= this.pipes.take();
    const turnEnds = this.#bytes + TURN_BYTES;
    while (this.#bytes < turnEnds) {
      if (this.#waitingBytes === 0) {
        const filled = pipe.fillFrom(this.from);
        if (filled === AGAIN) return this.#rest(pipe);
        if (filled === 0) {
          this.#done = true;
          return this.#rest(pipe);
        }
        this.#waitingBytes = filled;
      }
      const drained = pipe.drainTo(this.to, this.#waitingBytes);
      if (drained === AGAIN) return false;
      this.#waitingBytes -= drained;
      this.#bytes += drained;
    }
    return true;
  }

  /** Lets go of what it holds; bytes that wait are lost. */
  close(): void {
    this.#done = true;
    this.#pipe?.close();
    this.#pipe = null;
  }

  #rest(pipe: Pipe): false {
    this.pipes.giveBack(pipe);
    this.#pipe = null;
    return false;
  }
}
