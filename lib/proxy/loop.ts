/** One thread's sockets and time limits: waits for whichever comes first. */
import { setImmediate } from "node:timers";
import { Epoll } from "../linux/epoll.ts";
import { closeDescriptor } from "../linux/tcp.ts";
import { Timers } from "./limit.ts";

/**
 * Is told what its descriptor is ready for; of room to write only after {@linkcode
 * EventLoop.tellOfRoom}. Must not throw.
 */
export interface Watcher {
  /** @param ending The peer has ended its stream, or the connection is broken. */
  ready(readable: boolean, writable: boolean, ending: boolean): void;
}

/** Where the descriptors of connections are written down, for whoever has to close them after us. */
export interface OwnedDescriptors {
  /** @throws RangeError when the number is too high to be written down. */
  add(fd: number): void;
  delete(fd: number): void;
}

/** An event loop of our own, because Deno's does not take descriptors. */
export class EventLoop {
  /** Time limits; they are looked at after every wait. */
  readonly timers = new Timers();
  readonly #epoll = new Epoll();
  readonly #watchers = new Map<number, Watcher>();
  readonly #owned: OwnedDescriptors;
  #turn = 0;
  #closing: number[] = [];
  #next: (() => void)[] = [];

  constructor(owned: OwnedDescriptors) {
    this.#owned = owned;
  }

  /** How often it has waited. */
  get turn(): number {
    return this.#turn;
  }

  /**
   * Watches a descriptor that stays the caller's to close.
   * @throws SystemError
   */
  watch(fd: number, watcher: Watcher): void {
    this.#epoll.add(fd);
    this.#watchers.set(fd, watcher);
  }

  /** Watches such a descriptor no more. */
  unwatch(fd: number): void {
    this.#epoll.remove(fd);
    this.#watchers.delete(fd);
  }

  /**
   * Takes over a connection's descriptor: {@linkcode close} closes it.
   * @throws SystemError or RangeError; the descriptor is closed then.
   */
  adopt(fd: number, watcher: Watcher): void {
    try {
      this.#owned.add(fd);
      this.watch(fd, watcher);
    } catch (thrown) {
      this.#owned.delete(fd);
      closeDescriptor(fd);
      throw thrown;
    }
  }

  /**
   * Tells of room to write, too, from now on, and of what there is already. Most connections are
   * written to without ever lacking room, and to be told of it would only wake this thread.
   * @throws SystemError
   */
  tellOfRoom(fd: number): void {
    this.#epoll.addWritable(fd);
  }

  /** From now on `watcher` is told. */
  entrust(fd: number, watcher: Watcher): void {
    this.#watchers.set(fd, watcher);
  }

  /** Closes a connection's descriptor. */
  close(fd: number): void {
    this.#watchers.delete(fd);
    this.#owned.delete(fd);
    // Not before the events of this wait are through: one that is meant for this descriptor must not
    // reach the next connection that gets its number.
    this.#closing.push(fd);
  }

  /** Calls back after the next wait, which will be none. */
  soon(callback: () => void): void {
    this.#next.push(callback);
  }

  /**
   * Waits once, blocking this thread for `maxMs` at most, and tells what there is to tell.
   * @throws SystemError when waiting itself fails.
   */
  wait(maxMs: number): void {
    this.#closeAll();
    this.#turn++;
    const next = this.#next;
    this.#next = [];
    const dueInMs = next.length > 0 ? 0 : this.timers.dueInMs(performance.now());
    const count = this.#epoll.wait(Math.min(dueInMs, maxMs));
    for (let i = 0; i < count; i++) {
      const watcher = this.#watchers.get(this.#epoll.fd(i));
      watcher?.ready(
        this.#epoll.isReadable(i),
        this.#epoll.isWritable(i),
        this.#epoll.isEnding(i),
      );
    }
    for (const callback of next) callback();
    this.timers.expire(performance.now());
  }

  /** Settles in the next turn, which will not wait: everything that can go on now has gone on then. */
  nextTurn(): Promise<void> {
    return new Promise((resolve) => this.soon(resolve));
  }

  /** Between two waits: lets everything go on that was told something. */
  goOn(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  /** Lets go of everything it still watches, without closing it. */
  end(): void {
    this.#closeAll();
    this.#epoll.close();
  }

  #closeAll(): void {
    for (const fd of this.#closing) closeDescriptor(fd);
    this.#closing.length = 0;
  }
}
