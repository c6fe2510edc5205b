/** Moves the bytes of tunnels, unchanged, both ways; notices ends, errors and silence. */
import { SystemError } from "../linux/libc.ts";
import { discardUnsent, endWrites } from "../linux/tcp.ts";
import type { EventLoop, Watcher } from "./loop.ts";
import type { TcpSocket } from "./socket.ts";
import type { TunnelEnd, TunnelUse } from "../decision.ts";
import { PipePool, Pump } from "./pump.ts";

/** A live tunnel. */
export interface Tunnel {
  /** Settles when the tunnel has ended, in whatever way; never rejects. */
  readonly ended: Promise<TunnelUse>;
  /** Ends it at once, for this reason; harmless when it has ended. */
  cut(why: TunnelEnd): void;
}

/** Silence is looked for this often at most; a tunnel may live that much longer than its limit. */
const MAX_SWEEP_MS = 1_000;

/** All live tunnels of one thread. */
export class Tunnels {
  readonly #loop: EventLoop;
  readonly #idleMs: number;
  readonly #sweepMs: number;
  readonly #onChange: () => void;
  readonly #pipes = new PipePool();
  readonly #live = new Set<LiveTunnel>();
  #isSweeping = false;

  /**
   * @param idleMs A tunnel without a byte either way for this long is ended.
   * @param onChange Called when a tunnel has begun or ended.
   */
  constructor(loop: EventLoop, idleMs: number, onChange: () => void) {
    this.#loop = loop;
    this.#idleMs = idleMs;
    this.#onChange = onChange;
    this.#sweepMs = Math.min(MAX_SWEEP_MS, Math.ceil(idleMs / 4));
  }

  /**
   * Relays between two connections, which are the tunnel's alone from now on: one side's end of
   * stream is passed on while the other direction goes on; an error, silence or a cut ends both.
   */
  start(client: TcpSocket, upstream: TcpSocket): Tunnel {
    const [upWaits, downWaits] = [client.mayRead, upstream.mayRead];
    const tunnel = new LiveTunnel(
      this.#loop,
      this.#pipes,
      client.handOver(),
      upstream.handOver(),
      () => {
        this.#live.delete(tunnel);
        this.#onChange();
      },
    );
    this.#live.add(tunnel);
    this.#onChange();
    this.#sweepLater();
    tunnel.begin(upWaits, downWaits);
    return tunnel;
  }

  /** Lets go of what waits to be used; ends every tunnel that is left. */
  close(): void {
    for (const tunnel of this.#live) tunnel.cut("stopped");
    this.#pipes.close();
  }

  #sweepLater(): void {
    if (this.#isSweeping || this.#live.size === 0) return;
    this.#isSweeping = true;
    this.#loop.timers.after(this.#sweepMs, () => this.#sweep());
  }

  #sweep(): void {
    this.#isSweeping = false;
    const nowMs = performance.now();
    for (const tunnel of this.#live) {
      if (nowMs - tunnel.lastMoveMs >= this.#idleMs) tunnel.end("idle");
    }
    this.#sweepLater();
  }
}

class LiveTunnel implements Tunnel {
  readonly #loop: EventLoop;
  readonly #clientFd: number;
  readonly #upstreamFd: number;
  readonly #up: Pump;
  readonly #down: Pump;
  readonly #onEnd: () => void;
  readonly #ended = Promise.withResolvers<TunnelUse>();
  #isOver = false;
  lastMoveMs = performance.now();

  constructor(
    loop: EventLoop,
    pipes: PipePool,
    clientFd: number,
    upstreamFd: number,
    onEnd: () => void,
  ) {
    this.#loop = loop;
    this.#clientFd = clientFd;
    this.#upstreamFd = upstreamFd;
    this.#up = new Pump(clientFd, upstreamFd, pipes);
    this.#down = new Pump(upstreamFd, clientFd, pipes);
    this.#onEnd = onEnd;
  }

  get ended(): Promise<TunnelUse> {
    return this.#ended.promise;
  }

  /** Takes over both descriptors; of a direction where bytes may wait it was told before. */
  begin(upWaits: boolean, downWaits: boolean): void {
    this.#loop.entrust(this.#clientFd, this.#side(this.#up, this.#down));
    this.#loop.entrust(this.#upstreamFd, this.#side(this.#down, this.#up));
    if (upWaits) this.#runSoon(this.#up);
    if (downWaits) this.#runSoon(this.#down);
  }

  cut(why: TunnelEnd): void {
    if (this.#isOver) return;
    for (const fd of [this.#clientFd, this.#upstreamFd]) discardUnsent(fd);
    this.end(why);
  }

  /** Ends it; harmless when it has ended. */
  end(end: TunnelEnd): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#onEnd();
    this.#up.close();
    this.#down.close();
    this.#loop.close(this.#clientFd);
    this.#loop.close(this.#upstreamFd);
    this.#ended.resolve({ end, upBytes: this.#up.bytes, downBytes: this.#down.bytes });
  }

  /** What to do when a socket is ready: `from` reads it, `to` writes to it. */
  #side(from: Pump, to: Pump): Watcher {
    return {
      ready: (readable, writable): void => {
        if (readable) this.#run(from);
        if (writable && to.stalled) this.#run(to);
      },
    };
  }

  #runSoon(pump: Pump): void {
    this.#loop.soon(() => this.#loop.inTurnOf(pump.from, () => this.#run(pump)));
  }

  #run(pump: Pump): void {
    if (this.#isOver) return;
    const before = pump.bytes;
    try {
      // More than a turn's worth: the others come first.
      if (pump.run()) this.#runSoon(pump);
      if (pump.stalled && !pump.hearsOfRoom) {
        this.#loop.tellOfRoom(pump.to);
        pump.hearsOfRoom = true;
      }
    } catch (thrown) {
      if (!(thrown instanceof SystemError)) throw thrown;
      return this.end("broken");
    }
    if (pump.bytes > before) this.lastMoveMs = performance.now();
    if (!pump.done) return;
    if (this.#up.done && this.#down.done) this.end("closed"); // which tells both sides
    else endWrites(pump.to);
  }
}
