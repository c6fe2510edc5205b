/** One thread's sockets and time limits: waits for whichever comes first. */
import { setImmediate } from "node:timers";
import { Epoll } from "../linux/epoll.ts";
import { closeDescriptor } from "../linux/tcp.ts";
import { Timers } from "./limit.ts";

/** Whoever has much to do in a turn that has lasted so long leaves it to the next one. */
const LONG_TURN_MS = 50;

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

/**
 * Steps of one agent in one turn of the loop, over all its connections. Each is some fifty microseconds'
 * work: whoever has one request waits a millisecond or two for each agent that has hundreds.
 */
const STEPS_PER_TURN = 32;

/** What one agent has had of the thread; connections to upstream are those of whom they serve. */
class Share {
  connections = 0;
  #turn = 0;
  #steps = 0;

  constructor(readonly owner = "") {}

  /** Counts one step, unless there were enough in this turn. */
  takeStep(turn: number): boolean {
    if (turn !== this.#turn) this.#steps = 0;
    this.#turn = turn;
    return ++this.#steps <= STEPS_PER_TURN;
  }
}

/** Who is told of a descriptor, and what it is still to be told: once, however often it became true. */
class Watched {
  isWaiting = false;
  #readable = false;
  #writable = false;
  #ending = false;

  constructor(readonly share: Share, public watcher: Watcher) {}

  /** Has it told later. */
  note(readable: boolean, writable: boolean, ending: boolean): void {
    this.#readable ||= readable;
    this.#writable ||= writable;
    this.#ending ||= ending;
    this.isWaiting = true;
  }

  /** Tells what was noted. */
  tell(): void {
    const { watcher } = this;
    const [readable, writable, ending] = [this.#readable, this.#writable, this.#ending];
    this.isWaiting =
      this.#readable =
      this.#writable =
      this.#ending =
        false;
    watcher.ready(readable, writable, ending);
  }
}

/** Waits for another turn, because its agent has had its share of this one. */
interface Late {
  readonly share: Share;
  readonly run: () => void;
}

/** An event loop of our own, because Deno's does not take descriptors. */
export class EventLoop {
  /** Time limits; they are looked at after every wait. */
  readonly timers = new Timers();
  readonly #epoll = new Epoll();
  readonly #watched = new Map<number, Watched>();
  readonly #shares = new Map<string, Share>();
  readonly #owned: OwnedDescriptors;
  #turn = 0;
  #turnBeganMs = 0;
  #closing: number[] = [];
  #next: (() => void)[] = [];
  #late: Late[] = [];

  constructor(owned: OwnedDescriptors) {
    this.#owned = owned;
  }

  /** How often it has waited. */
  get turn(): number {
    return this.#turn;
  }

  /** A turn has no end before everything that it set going has come to wait for something. */
  get isTurnLong(): boolean {
    return performance.now() - this.#turnBeganMs >= LONG_TURN_MS;
  }

  /**
   * Watches a descriptor that stays the caller's to close.
   * @throws SystemError
   */
  watch(fd: number, watcher: Watcher): void {
    this.#epoll.add(fd);
    this.#watched.set(fd, new Watched(new Share(), watcher));
  }

  /** Watches such a descriptor no more. */
  unwatch(fd: number): void {
    this.#epoll.remove(fd);
    this.#watched.delete(fd);
  }

  /**
   * Takes over a connection's descriptor: {@linkcode close} closes it. It is served in
   * turns of `owner`, the address of the agent whose connection it is, or for whom it was made.
   * @throws SystemError or RangeError; the descriptor is closed then.
   */
  adopt(fd: number, owner: string, watcher: Watcher): void {
    try {
      this.#owned.add(fd);
      this.#epoll.add(fd);
    } catch (thrown) {
      this.#owned.delete(fd);
      closeDescriptor(fd);
      throw thrown;
    }
    const share = this.#shares.get(owner) ?? new Share(owner);
    this.#shares.set(owner, share);
    share.connections++;
    this.#watched.set(fd, new Watched(share, watcher));
  }

  /**
   * Tells of room to write, too, from now on, and of what there is already. Most connections are
   * written to without ever lacking room, and to be told of it would only wake this thread.
   * @throws SystemError
   */
  tellOfRoom(fd: number): void {
    this.#epoll.addWritable(fd);
  }

  /** From now on `watcher` is told of this connection. */
  entrust(fd: number, watcher: Watcher): void {
    const watched = this.#watched.get(fd);
    if (watched !== undefined) watched.watcher = watcher;
  }

  /**
   * Calls back at once, or in a later turn if the agent whose connection this is has had its share of
   * this one; also when the connection has been closed.
   */
  inTurnOf(fd: number, callback: () => void): void {
    const share = this.#watched.get(fd)?.share;
    if (share === undefined || share.takeStep(this.#turn)) callback();
    else this.#late.push({ share, run: callback });
  }

  /** Closes a connection's descriptor. */
  close(fd: number): void {
    const share = this.#watched.get(fd)?.share;
    if (share !== undefined && --share.connections === 0) this.#shares.delete(share.owner);
    this.#watched.delete(fd);
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
    const isBusy = next.length > 0 || this.#late.length > 0;
    const dueInMs = isBusy ? 0 : this.timers.dueInMs(performance.now());
    const count = this.#epoll.wait(Math.min(dueInMs, maxMs));
    this.#turnBeganMs = performance.now();
    // Before what has just come: they have waited.
    this.#runLate();
    for (const callback of next) callback();
    for (let i = 0; i < count; i++) this.#tell(i);
    this.timers.expire(performance.now());
  }

  /** Before anything new: who came late comes first. */
  #runLate(): void {
    const late = this.#late;
    if (late.length === 0) return;
    this.#late = [];
    for (const waiting of late) {
      if (waiting.share.takeStep(this.#turn)) waiting.run();
      else this.#late.push(waiting);
    }
  }

  #tell(event: number): void {
    const fd = this.#epoll.fd(event);
    const watched = this.#watched.get(fd);
    if (watched === undefined) return;
    const readable = this.#epoll.isReadable(event);
    const writable = this.#epoll.isWritable(event);
    const ending = this.#epoll.isEnding(event);
    const { share, isWaiting } = watched;
    if (!isWaiting && share.takeStep(this.#turn)) {
      return watched.watcher.ready(readable, writable, ending);
    }
    watched.note(readable, writable, ending);
    if (isWaiting) return;
    const run = (): void => {
      // It may be closed by now, and its number another connection's.
      if (this.#watched.get(fd) === watched) watched.tell();
    };
    this.#late.push({ share, run });
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
