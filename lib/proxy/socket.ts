/** A TCP connection on the event loop: system calls that never wait, and promises of when to try again. */
import { AGAIN } from "../linux/sockets.ts";
import {
  beginConnect,
  connectError,
  discardUnsent,
  endWrites,
  isConnected,
  receive,
  send,
} from "../linux/tcp.ts";
import type { Ip } from "../net/ip.ts";
import type { EventLoop, Watcher } from "./loop.ts";

/** What waits for a connection that we have closed ourselves is rejected with this. */
export class ConnectionClosed extends Error {
  override readonly name = "ConnectionClosed";
}

/**
 * Reads and writes of one connection in one turn of the loop: while its peers are as quick as we are,
 * it would never have to wait, and nobody else would be served.
 */
const OPERATIONS_PER_TURN = 8;

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (thrown: unknown) => void;
}

/** One connection. */
export class TcpSocket implements Watcher {
  readonly #loop: EventLoop;
  #fd: number;
  /** A read, or a write, may find something, or room: none is tried for nothing. */
  #readable = true;
  #writable = true;
  #isEnding = false;
  #isToldOfRoom = false;
  #reader: Waiting | null = null;
  #writer: Waiting | null = null;
  /** The turn in which it was used last, and how often then. */
  #turn = 0;
  #operations = 0;

  /**
   * Takes over an accepted connection, that of the agent at the address `owner`.
   * @throws SystemError or RangeError; it is closed then.
   */
  constructor(loop: EventLoop, fd: number, owner: string) {
    this.#loop = loop;
    this.#fd = fd;
    loop.adopt(fd, owner, this);
  }

  /**
   * Begins to connect for the agent at the address `owner`; {@linkcode connected} tells how it goes.
   * @throws SystemError, such as ENETUNREACH.
   */
  static dial(loop: EventLoop, ip: Ip, port: number, owner: string): TcpSocket {
    const socket = new TcpSocket(loop, beginConnect(ip, port), owner);
    socket.#readable = socket.#writable = false;
    return socket;
  }

  /**
   * Of a dialled connection: settles when it stands, at once when it does already. Rejects with a
   * SystemError when it fails.
   */
  connected(): void | Promise<void> {
    this.#assertOpen();
    this.#writable = isConnected(this.#fd);
    return this.#writable ? undefined : this.#connectedLater();
  }

  async #connectedLater(): Promise<void> {
    await this.#room();
    const error = connectError(this.#fd);
    if (error !== null) throw error;
  }

  /** Neither closed nor handed over. */
  get isOpen(): boolean {
    return this.#fd >= 0;
  }

  /** A read may find something: whoever takes this connection over will not hear of it again. */
  get mayRead(): boolean {
    return this.#readable;
  }

  /**
   * Reads once: how many bytes, 0 at the end of the peer's stream, or AGAIN: then wait until it is
   * {@linkcode readable}.
   * @throws SystemError, or ConnectionClosed.
   */
  read(buffer: Uint8Array<ArrayBuffer>): number {
    this.#assertOpen();
    if (!this.#readable || this.#hadItsShare()) return AGAIN;
    const count = receive(this.#fd, buffer);
    // epoll(7): what comes behind a short read is told anew, but for an end that was told before.
    const isShort = count > 0 && count < buffer.length && !this.#isEnding;
    if (isShort || count === AGAIN) this.#readable = false;
    return count;
  }

  /** Settles when a read may find something. Rejects when the connection is closed before. */
  readable(): Promise<void> {
    this.#assertOpen();
    if (this.#readable) return this.#nextTurn();
    return new Promise((resolve, reject) => this.#reader = { resolve, reject });
  }

  /**
   * Writes all of `bytes`; at once, where there is room for them.
   * @param areShared The caller will use their memory for something else when this returns.
   */
  write(bytes: Uint8Array<ArrayBuffer>, areShared = false): void | Promise<void> {
    const rest = this.#writeNow(bytes);
    return rest.length === 0 ? undefined : this.#writeLater(areShared ? rest.slice() : rest);
  }

  /** Returns what there is no room for. */
  #writeNow(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    let rest = bytes;
    while (rest.length > 0) {
      this.#assertOpen();
      if (!this.#writable || this.#hadItsShare()) break;
      const count = send(this.#fd, rest);
      if (count === AGAIN) this.#writable = false;
      else rest = rest.subarray(count);
    }
    return rest;
  }

  async #writeLater(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let rest = bytes; rest.length > 0;) {
      await this.#room();
      rest = this.#writeNow(rest);
    }
  }

  /** Settles when a write may find room. Rejects when the connection is closed before. */
  #room(): Promise<void> {
    if (this.#writable) return this.#nextTurn();
    if (!this.#isToldOfRoom) this.#loop.tellOfRoom(this.#fd);
    this.#isToldOfRoom = true;
    return new Promise((resolve, reject) => this.#writer = { resolve, reject });
  }

  /** Tells the peer that nothing more comes. */
  endWrites(): void {
    if (this.#fd >= 0) endWrites(this.#fd);
  }

  /** Closes at once, in both directions. Harmless when it is closed. */
  close(): void {
    if (this.#fd < 0) return;
    const fd = this.handOver();
    this.#loop.close(fd);
    const closed = new ConnectionClosed("the connection was closed");
    this.#reader?.reject(closed);
    this.#writer?.reject(closed);
    this.#reader = this.#writer = null;
  }

  /** Closes at once, and what was not sent yet is discarded. */
  abort(): void {
    if (this.#fd >= 0) discardUnsent(this.#fd);
    this.close();
  }

  /** Gives its descriptor to another watcher, who closes it from now on. */
  handOver(): number {
    const fd = this.#fd;
    this.#fd = -1;
    return fd;
  }

  ready(readable: boolean, writable: boolean, ending: boolean): void {
    this.#isEnding ||= ending;
    if (readable) {
      this.#readable = true;
      this.#reader?.resolve();
      this.#reader = null;
    }
    if (writable) {
      this.#writable = true;
      this.#writer?.resolve();
      this.#writer = null;
    }
  }

  #nextTurn(): Promise<void> {
    const fd = this.#fd;
    return new Promise((resolve) => this.#loop.soon(() => this.#loop.inTurnOf(fd, resolve)));
  }

  /** Counts one operation more, unless there were enough in this turn. */
  #hadItsShare(): boolean {
    const { turn } = this.#loop;
    if (turn !== this.#turn) this.#operations = 0;
    this.#turn = turn;
    return ++this.#operations > OPERATIONS_PER_TURN;
  }

  #assertOpen(): void {
    if (this.#fd < 0) throw new ConnectionClosed("the connection was closed");
  }
}
