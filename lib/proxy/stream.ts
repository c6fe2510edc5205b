/**
 * A TCP connection read through a buffer, so that a parser can look at bytes before they are taken,
 * and written to completely. Back-pressure is the caller's: nothing is read that nobody asked for.
 */
import { AGAIN } from "../linux/sockets.ts";
import type { Timers } from "./limit.ts";
import type { TcpSocket } from "./socket.ts";

/**
 * First and largest size of a read buffer: an idle connection costs little, a busy one reads much. The
 * largest holds the largest head that is read, and more would be an agent's to fill, for each of its
 * connections.
 */
const FIRST_BUFFER_BYTES = 4 * 1024;
const LARGEST_BUFFER_BYTES = 128 * 1024;

const NOTHING = new Uint8Array(0);

/** Empty buffers of the first size: nearly every message needs one for a moment. */
const spareBuffers: Uint8Array<ArrayBuffer>[] = [];
const MAX_SPARE_BUFFERS = 64;

/** Where heads are made that go out at once: good until the call that uses it returns. */
const outgoing = new Uint8Array(16 * 1024);

/** Thrown where a peer ends its stream in the middle of something. */
export class UnexpectedEnd extends Error {
  override readonly name = "UnexpectedEnd";
}

/** One TCP connection with a read buffer. */
export class BufferedConn {
  /** There is one only while bytes wait in it: most connections are silent most of the time. */
  #buffer: Uint8Array<ArrayBuffer> = NOTHING;
  #start = 0;
  #end = 0;
  #reading: Promise<boolean> | null = null;

  /** Called after every read and write that moved bytes. */
  onProgress: () => void = () => {};

  constructor(readonly socket: TcpSocket) {}

  /** Neither closed nor handed over. */
  get isOpen(): boolean {
    return this.socket.isOpen;
  }

  /** What has been read and not taken; valid until the next `fill`. */
  get buffered(): Uint8Array<ArrayBuffer> {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  /**
   * Reads once, behind what is buffered, and at once if there is something; false at the end of the
   * peer's stream. A fill that is still under way is joined.
   * @throws RangeError when 128 KiB wait to be taken, or SystemError.
   */
  fill(): boolean | Promise<boolean> {
    return this.#reading ?? this.#readNow() ?? this.#readLater();
  }

  /** Removes and returns the first `count` buffered bytes; valid until the next `fill`. */
  take(count: number): Uint8Array<ArrayBuffer> {
    const taken = this.#buffer.subarray(this.#start, Math.min(this.#start + count, this.#end));
    this.#start += taken.length;
    return taken;
  }

  /** Gives the memory back that a busy moment took; to be called between messages. */
  relax(): void {
    if (this.#start === this.#end) this.#letGo();
  }

  /** Writes all of `bytes`; at once, where there is room for them. */
  write(bytes: Uint8Array<ArrayBuffer>): void | Promise<void> {
    return this.#progressAfter(this.socket.write(bytes));
  }

  /** Writes a head, which is a byte string, and bytes that follow it: together, as each write is a packet. */
  writeHead(head: string, body: Uint8Array<ArrayBuffer> = NOTHING): void | Promise<void> {
    const size = head.length + body.length;
    const bytes = size <= outgoing.length ? outgoing.subarray(0, size) : new Uint8Array(size);
    for (let i = 0; i < head.length; i++) bytes[i] = head.charCodeAt(i);
    bytes.set(body, head.length);
    return this.#progressAfter(this.socket.write(bytes, true));
  }

  #progressAfter(writing: void | Promise<void>): void | Promise<void> {
    return writing instanceof Promise ? writing.then(() => this.onProgress()) : this.onProgress();
  }

  /** Closes at once, in both directions; harmless when it is closed already or handed over. */
  close(): void {
    this.socket.close();
  }

  /** Closes at once, and what was not sent yet is discarded: the peer sees a connection that broke. */
  abort(): void {
    this.socket.abort();
  }

  /** Gives the connection to whoever closes it from now on; nothing may be buffered any more. */
  handOver(): TcpSocket {
    if (this.buffered.length > 0) throw new TypeError("bytes would be lost");
    this.#letGo(); // a tunnel may live for hours
    return this.socket;
  }

  #letGo(): void {
    const isFirst = this.#buffer.length === FIRST_BUFFER_BYTES;
    if (isFirst && spareBuffers.length < MAX_SPARE_BUFFERS) spareBuffers.push(this.#buffer);
    this.#buffer = NOTHING;
    this.#start = this.#end = 0;
  }

  /** Null: there is nothing yet. */
  #readNow(): boolean | null {
    this.#makeRoom();
    const count = this.socket.read(this.#buffer.subarray(this.#end));
    if (count === AGAIN) {
      // A larger one is a busy stream's, which will need it again.
      if (this.#buffer.length === FIRST_BUFFER_BYTES) this.relax();
      return null;
    }
    if (count === 0) return false;
    this.#end += count;
    this.onProgress();
    return true;
  }

  #readLater(): Promise<boolean> {
    const reading = this.#readWhenReadable();
    reading.catch(() => {}); // whoever joins it hears of it, and so does our caller
    return this.#reading = reading;
  }

  async #readWhenReadable(): Promise<boolean> {
    try {
      for (;;) {
        await this.socket.readable();
        const isThere = this.#readNow();
        if (isThere !== null) return isThere;
      }
    } finally {
      this.#reading = null;
    }
  }

  #makeRoom(): void {
    if (this.#buffer.length === 0) {
      this.#buffer = spareBuffers.pop() ?? new Uint8Array(FIRST_BUFFER_BYTES);
    }
    const full = this.#end === this.#buffer.length;
    if (this.#start === this.#end) {
      this.#start = this.#end = 0;
      // It filled up and was emptied: a busy stream deserves longer reads.
      if (full && this.#buffer.length < LARGEST_BUFFER_BYTES) {
        this.#buffer = new Uint8Array(this.#buffer.length * 2);
      }
    } else if (full && this.#start > 0) {
      this.#buffer.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    } else if (full) {
      if (this.#buffer.length >= LARGEST_BUFFER_BYTES) throw new RangeError("read buffer is full");
      const larger = new Uint8Array(this.#buffer.length * 2);
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
  }
}

/**
 * Closes after a last answer so that the client can read it: closing with unread bytes makes the
 * kernel send a reset, which discards the answer on its way. Reads on for at most `limitMs`.
 * @param giveUp Called when they are over; it must close.
 */
export async function closeAfterAnswer(
  client: BufferedConn,
  timers: Timers,
  limitMs: number,
  giveUp: () => void,
): Promise<void> {
  const timer = timers.after(limitMs, giveUp);
  try {
    client.socket.endWrites();
    do client.take(client.buffered.length); while (await client.fill());
  } catch {
    // The client went first.
  } finally {
    timers.cancel(timer);
    client.close();
  }
}
