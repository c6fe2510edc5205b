/** The relay thread's work: moves what moves, notices ends, errors and silence. */
import { Epoll } from "../../linux/epoll.ts";
import { SystemError } from "../../linux/libc.ts";
import { PipePool, Pump } from "./pump.ts";
import type { Ended, TunnelEnd } from "./protocol.ts";

/** Silence is looked for this often at most; a tunnel may live that much longer than its limit. */
const MAX_SWEEP_MS = 1_000;

interface Tunnel {
  readonly id: number;
  readonly clientFd: number;
  readonly upstreamFd: number;
  readonly up: Pump;
  readonly down: Pump;
  lastMoveMs: number;
}

/** All live tunnels of one thread. */
export class Tunnels {
  readonly #epoll = new Epoll();
  readonly #pipes = new PipePool();
  readonly #byFd = new Map<number, Tunnel>();
  /** Directions that used up their turn. */
  #ready = new Set<Pump>();
  readonly #owners = new WeakMap<Pump, Tunnel>();
  readonly #sweepMs: number;
  #nextSweepMs = 0;

  /**
   * @param wakeFd Makes {@linkcode run} return when it becomes readable.
   * @param onEnded Called once for each tunnel, when its descriptors are used no more.
   */
  constructor(
    readonly wakeFd: number,
    readonly idleMs: number,
    readonly onEnded: (ended: Ended) => void,
  ) {
    this.#sweepMs = Math.min(MAX_SWEEP_MS, Math.ceil(idleMs / 4));
    this.#epoll.add(wakeFd);
  }

  /** Takes a tunnel in; one that cannot be watched is reported ended at once. */
  add(id: number, clientFd: number, upstreamFd: number): void {
    const tunnel: Tunnel = {
      id,
      clientFd,
      upstreamFd,
      up: new Pump(clientFd, upstreamFd, this.#pipes),
      down: new Pump(upstreamFd, clientFd, this.#pipes),
      lastMoveMs: performance.now(),
    };
    for (const pump of [tunnel.up, tunnel.down]) this.#owners.set(pump, tunnel);
    this.#byFd.set(clientFd, tunnel).set(upstreamFd, tunnel);
    try {
      this.#epoll.add(clientFd);
      this.#epoll.add(upstreamFd);
    } catch (thrown) {
      if (!(thrown instanceof SystemError)) throw thrown;
      this.#end(tunnel, "broken");
    }
  }

  /**
   * Relays until the wake descriptor has something.
   * @throws SystemError when waiting itself fails.
   */
  run(): void {
    for (let woken = false; !woken;) {
      const count = this.#epoll.wait(this.#timeoutMs());
      const nowMs = performance.now();
      for (let i = 0; i < count; i++) {
        const fd = this.#epoll.fd(i);
        if (fd === this.wakeFd) woken = true;
        else this.#serve(fd, this.#epoll.isReadable(i), this.#epoll.isWritable(i), nowMs);
      }
      this.#nextTurns(nowMs);
      this.#sweep(nowMs);
    }
  }

  /** Lets go of everything; every tunnel left is reported ended. */
  close(): void {
    for (const tunnel of new Set(this.#byFd.values())) this.#end(tunnel, "broken");
    this.#pipes.close();
    this.#epoll.close();
  }

  #timeoutMs(): number {
    if (this.#ready.size > 0) return 0;
    return this.#byFd.size > 0 ? this.#sweepMs : -1;
  }

  #serve(fd: number, readable: boolean, writable: boolean, nowMs: number): void {
    const tunnel = this.#byFd.get(fd);
    if (tunnel === undefined) return; // ended by an earlier event of the same wait
    const { up, down } = tunnel;
    const [out, back] = fd === tunnel.clientFd ? [up, down] : [down, up];
    if (readable) this.#run(tunnel, out, nowMs);
    if (writable && back.stalled) this.#run(tunnel, back, nowMs);
  }

  #run(tunnel: Tunnel, pump: Pump, nowMs: number): void {
    const before = pump.bytes;
    try {
      if (pump.run()) this.#ready.add(pump);
    } catch (thrown) {
      if (!(thrown instanceof SystemError)) throw thrown;
      return this.#end(tunnel, "broken");
    }
    if (pump.bytes > before) tunnel.lastMoveMs = nowMs;
    if (tunnel.up.done && tunnel.down.done) this.#end(tunnel, "closed");
  }

  #nextTurns(nowMs: number): void {
    const ready = this.#ready;
    if (ready.size === 0) return;
    this.#ready = new Set();
    for (const pump of ready) {
      const tunnel = this.#owners.get(pump);
      if (tunnel !== undefined) this.#run(tunnel, pump, nowMs);
    }
  }

  #sweep(nowMs: number): void {
    if (nowMs < this.#nextSweepMs) return;
    this.#nextSweepMs = nowMs + this.#sweepMs;
    for (const tunnel of new Set(this.#byFd.values())) {
      if (nowMs - tunnel.lastMoveMs >= this.idleMs) this.#end(tunnel, "idle");
    }
  }

  #end(tunnel: Tunnel, end: TunnelEnd): void {
    const { id, clientFd, upstreamFd, up, down } = tunnel;
    if (this.#byFd.get(clientFd) !== tunnel) return;
    for (const fd of [clientFd, upstreamFd]) {
      this.#byFd.delete(fd);
      this.#epoll.remove(fd);
    }
    for (const pump of [up, down]) {
      this.#ready.delete(pump);
      pump.close();
    }
    this.onEnded({ id, end, upBytes: up.bytes, downBytes: down.bytes });
  }
}
