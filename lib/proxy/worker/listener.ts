/** A listening socket of the event loop's. */
import { messageOf } from "../../errors.ts";
import { AGAIN } from "../../linux/sockets.ts";
import { acceptedFrom, acceptOn } from "../../linux/tcp.ts";
import { logger } from "../../log.ts";
import type { EventLoop, Watcher } from "../loop.ts";
import { TcpSocket } from "../socket.ts";

const log = logger("proxy");

/** A listener that cannot accept (no descriptors left) tries again after this. */
const RETRY_MS = 100;

/** Accepted in a row before the connections there are get their turn. */
const TURN = 64;

/** Accepts connections. */
export class Listener implements Watcher {
  #isOpen = true;
  #isPausing = false;

  /**
   * @param fd Stays the caller's.
   * @param onConnection Must not throw.
   * @throws SystemError
   */
  constructor(
    readonly loop: EventLoop,
    readonly fd: number,
    readonly onConnection: (source: string, socket: TcpSocket) => void,
  ) {
    loop.watch(fd, this);
  }

  ready(): void {
    if (!this.#isOpen || this.#isPausing) return;
    try {
      for (let i = 0; i < TURN; i++) {
        const accepted = acceptOn(this.fd);
        if (accepted === AGAIN) return;
        const source = acceptedFrom();
        const socket = new TcpSocket(this.loop, accepted, source);
        this.loop.inTurnOf(accepted, () => this.onConnection(source, socket));
      }
      this.loop.soon(() => this.ready());
    } catch (thrown) {
      log.warn("accepting failed: {error}", { error: messageOf(thrown) });
      this.#isPausing = true;
      this.loop.timers.after(RETRY_MS, () => {
        this.#isPausing = false;
        this.ready();
      });
    }
  }

  /** Accepts nothing more. */
  close(): void {
    this.#isOpen = false;
    this.loop.unwatch(this.fd);
  }
}
