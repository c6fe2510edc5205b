/** A TCP connection on the event loop, with the reads and writes of one at a time as promises. */
import { AGAIN } from "../linux/sockets.ts";
import {
  beginConnect,
  connectError,
  discardUnsent,
  endWrites,
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

interface Waiting<Result> {
  readonly resolve: (result: Result) => void;
  readonly reject: (thrown: unknown) => void;
}

/** One connection. */
export class TcpSocket implements Watcher {
  readonly #loop: EventLoop;
  #fd: number;
  /** A read may find something: none is tried for nothing. */
  #readable = true;
  #reader: (Waiting<number | null> & { readonly buffer: Uint8Array<ArrayBuffer> }) | null = null;
  #writer: Waiting<void> | null = null;
  /** The turn in which it was used last, and how often then. */
  #turn = 0;
  #operations = 0;

  /** Takes over an accepted connection. @throws SystemError or RangeError; it is closed then. */
  constructor(loop: EventLoop, fd: number) {
    this.#loop = loop;
    this.#fd = fd;
    loop.adopt(fd, this);
  }

  /**
   * Begins to connect; {@linkcode connected} tells how it goes.
   * @throws SystemError, such as ENETUNREACH.
   */
  static dial(loop: EventLoop, ip: Ip, port: number): TcpSocket {
    return new TcpSocket(loop, beginConnect(ip, port));
  }

  /** Of a dialled connection: settles when it stands. Rejects with a SystemError when it fails. */
  async connected(): Promise<void> {
    await this.#writableAgain();
    const error = connectError(this.#fd);
    if (error !== null) throw error;
  }

  /** Neither closed nor handed over. */
  get isOpen(): boolean {
    return this.#fd >= 0;
  }

  /** Reads once: how many bytes, or null at the end of the peer's stream. */
  read(buffer: Uint8Array<ArrayBuffer>): number | null | Promise<number | null> {
    this.#assertOpen();
    if (!this.#readable) return this.#readLater(buffer);
    if (this.#hadItsShare()) return this.#loop.nextTurn().then(() => this.read(buffer));
    return this.#readNow(buffer);
  }

  /** Writes all of `bytes`. */
  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let rest = bytes; rest.length > 0;) {
      this.#assertOpen();
      if (this.#hadItsShare()) {
        await this.#loop.nextTurn();
        continue;
      }
      const count = send(this.#fd, rest);
      if (count === AGAIN) await this.#writableAgain();
      else rest = rest.subarray(count);
    }
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

  ready(readable: boolean, writable: boolean): void {
    if (readable) {
      this.#readable = true;
      const reader = this.#reader;
      this.#reader = null;
      if (reader !== null) this.#resume(reader);
    }
    if (writable) {
      const writer = this.#writer;
      this.#writer = null;
      writer?.resolve();
    }
  }

  /** Counts one operation more, unless there were enough in this turn. */
  #hadItsShare(): boolean {
    const { turn } = this.#loop;
    if (turn !== this.#turn) this.#operations = 0;
    this.#turn = turn;
    return ++this.#operations > OPERATIONS_PER_TURN;
  }

  #resume(reader: Waiting<number | null> & { readonly buffer: Uint8Array<ArrayBuffer> }): void {
    try {
      const count = receive(this.#fd, reader.buffer);
      if (count === AGAIN) this.#reader = reader;
      else reader.resolve(count === 0 ? null : count);
    } catch (thrown) {
      reader.reject(thrown);
    }
  }

  #readNow(buffer: Uint8Array<ArrayBuffer>): number | null | Promise<number | null> {
    const count = receive(this.#fd, buffer);
    if (count === AGAIN) return this.#readLater(buffer);
    return count === 0 ? null : count;
  }

  #readLater(buffer: Uint8Array<ArrayBuffer>): Promise<number | null> {
    this.#readable = false;
    return new Promise((resolve, reject) => this.#reader = { buffer, resolve, reject });
  }

  #writableAgain(): Promise<void> {
    this.#assertOpen();
    return new Promise((resolve, reject) => this.#writer = { resolve, reject });
  }

  #assertOpen(): void {
    if (this.#fd < 0) throw new ConnectionClosed("the connection was closed");
  }
}
