/**
 * Moves the bytes of tunnels, unchanged, both ways: hands their descriptors to a thread that has the
 * kernel move them, and keeps the connections, so that ending a tunnel never waits for it.
 */
import { cutConnection, descriptorOf } from "../../linux/descriptor.ts";
import { WakeCounter } from "../../linux/wake.ts";
import { logger } from "../../log.ts";
import { closeQuietly } from "../stream.ts";
import { type Ended, type FromThread, GONE, type Start, type ToThread } from "./protocol.ts";

const log = logger("proxy");

/** What moved through an ended tunnel. */
export type TunnelReport = Omit<Ended, "id">;

/** A live tunnel. */
export interface Tunnel {
  /** Settles when the tunnel has ended, in whatever way; never rejects. */
  readonly ended: Promise<TunnelReport>;
  /** Ends it at once; harmless when it has ended. */
  cut(): void;
}

interface Entry {
  readonly client: Deno.TcpConn;
  readonly clientFd: number;
  readonly upstream: Deno.TcpConn;
  readonly upstreamFd: number;
  readonly resolve: (report: TunnelReport) => void;
}

/** One thread, and the tunnels it moves. */
export class Relay {
  readonly #idleMs: number;
  readonly #live = new Map<number, Entry>();
  readonly #fds = new Set<number>();
  #thread: Thread | null = null;
  #lastId = 0;

  /** @param idleMs A tunnel without a byte either way for this long is ended. */
  constructor(idleMs: number) {
    this.#idleMs = idleMs;
  }

  /**
   * Relays between two connections, which are the relay's alone from now on: one side's end of
   * stream is passed on while the other direction goes on; an error, silence or a cut ends both.
   * @throws SystemError, such as EMFILE; both connections are closed then.
   */
  start(client: Deno.TcpConn, upstream: Deno.TcpConn): Tunnel {
    try {
      return this.#start(client, upstream);
    } catch (thrown) {
      closeQuietly(client);
      closeQuietly(upstream);
      throw thrown;
    }
  }

  /** Ends the thread, and every tunnel that is left. */
  async stop(): Promise<void> {
    const thread = this.#thread;
    if (thread === null) return;
    thread.tell({ kind: "end" });
    await thread.gone;
    this.#forget(thread);
  }

  #start(client: Deno.TcpConn, upstream: Deno.TcpConn): Tunnel {
    const thread = this.#running();
    const isTaken = (fd: number): boolean => this.#fds.has(fd);
    const clientFd = descriptorOf(client, isTaken);
    const upstreamFd = descriptorOf(upstream, isTaken);
    const id = ++this.#lastId;
    const { promise, resolve } = Promise.withResolvers<TunnelReport>();
    this.#live.set(id, { client, clientFd, upstream, upstreamFd, resolve });
    this.#fds.add(clientFd).add(upstreamFd);
    thread.tell({ kind: "tunnel", id, clientFd, upstreamFd });
    return {
      ended: promise,
      cut: (): void => {
        // Not closed before the thread has let go of them: a descriptor's number could be another
        // connection's by then.
        if (!this.#live.has(id)) return;
        cutConnection(clientFd);
        cutConnection(upstreamFd);
      },
    };
  }

  #running(): Thread {
    if (this.#thread !== null) return this.#thread;
    const thread: Thread = new Thread(
      this.#idleMs,
      (ended) => this.#ended(ended),
      (why) => {
        log.error("the relay thread failed, and every tunnel with it: {why}", { why });
        this.#forget(thread);
      },
    );
    return this.#thread = thread;
  }

  #ended({ id, ...report }: Ended): void {
    const entry = this.#live.get(id);
    if (entry === undefined) return;
    this.#live.delete(id);
    this.#fds.delete(entry.clientFd);
    this.#fds.delete(entry.upstreamFd);
    closeQuietly(entry.client);
    closeQuietly(entry.upstream);
    entry.resolve(report);
  }

  /** The thread is gone: nobody but us uses the descriptors any more. */
  #forget(thread: Thread): void {
    if (this.#thread !== thread) return;
    this.#thread = null;
    thread.close();
    for (const id of [...this.#live.keys()]) {
      this.#ended({ id, end: "broken", upBytes: 0, downBytes: 0 });
    }
  }
}

/** The thread's end that lies here. */
class Thread {
  readonly #wake = WakeCounter.create();
  readonly #worker: Worker;
  readonly #gone = Promise.withResolvers<void>();

  constructor(idleMs: number, onEnded: (ended: Ended) => void, onCrash: (why: string) => void) {
    this.#worker = new Worker(new URL("./thread.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromThread>): void => {
      if (data === GONE) this.#gone.resolve();
      else onEnded(data);
    };
    this.#worker.onerror = (event): void => {
      event.preventDefault(); // or the daemon would end with it
      this.#gone.resolve();
      onCrash(event.message);
    };
    const start: Start = { wakeFd: this.#wake.fd, idleMs };
    this.#worker.postMessage(start);
  }

  /** Settles when the thread has let go of everything. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  tell(message: ToThread): void {
    this.#worker.postMessage(message);
    this.#wake.add();
  }

  close(): void {
    this.#worker.terminate();
    this.#wake.close();
  }
}
