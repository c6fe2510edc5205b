/** One TCP listener of the DNS filter, with limits that keep slow or greedy clients from filling it. */
import { messageOf } from "../errors.ts";
import { logger } from "../log.ts";
import { pause } from "../pause.ts";
import { Shares } from "../shares.ts";
import type { PacketHandler } from "./filter.ts";
import { readTcpMessage, writeTcpMessage } from "./framing.ts";
import type { Listener } from "./listener.ts";

const log = logger("dns");

/** Time for one complete query to arrive and its reply to leave, and so of idleness (S007-FR-020). */
const IDLE_MS = 10_000;

/** Connections at once on one gateway, and from one agent (RFC 7766 §6.2.2). */
const MAX_CONNECTIONS = 256;
const MAX_CONNECTIONS_PER_SOURCE = 16;

/** Queries of one connection that are answered at the same time; further ones wait unread. */
const MAX_PIPELINED = 16;

/** Pause after a failed accept (out of descriptors, say), so that it does not spin. */
const RETRY_MS = 100;

/** Limits that tests shorten. */
export interface TcpLimits {
  readonly idleMs?: number;
}

/** One client's connection. */
class Connection {
  readonly #inFlight = new Set<Promise<void>>();
  #writing: Promise<void> = Promise.resolve();
  #deadline: ReturnType<typeof setTimeout>;
  #draining = false;

  constructor(
    readonly conn: Deno.TcpConn,
    readonly filter: PacketHandler,
    readonly source: string,
    readonly idleMs: number,
  ) {
    this.#deadline = setTimeout(() => this.close(), idleMs);
  }

  /** A client that sends a byte now and then, or never reads, makes no progress. */
  #progressed(): void {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.close(), this.idleMs);
  }

  /** Settles when the connection is over. Never rejects. */
  async serve(): Promise<void> {
    try {
      for (;;) {
        const message = await readTcpMessage(this.conn);
        if (message === null || this.#draining) break;
        this.#progressed();
        const answered = this.#answer(message).finally(() => this.#inFlight.delete(answered));
        this.#inFlight.add(answered);
        if (this.#inFlight.size >= MAX_PIPELINED) await Promise.race(this.#inFlight);
      }
      // The client may have closed its half only, and still wait for these.
      await this.drain();
    } catch (thrown) {
      log.debug("TCP connection of {source} ended: {error}", {
        source: this.source,
        error: messageOf(thrown),
      });
    } finally {
      clearTimeout(this.#deadline);
      this.close();
    }
  }

  async #answer(message: Uint8Array): Promise<void> {
    const reply = await this.filter.handle(message, { address: this.source, transport: "tcp" });
    // What deserves no answer does not deserve a connection either (S007-EC-004).
    if (reply === null) return this.close();
    try {
      this.#writing = this.#writing.then(() => writeTcpMessage(this.conn, reply));
      await this.#writing;
      this.#progressed();
    } catch {
      this.close(); // The client is gone.
    }
  }

  async drain(): Promise<void> {
    this.#draining = true;
    await Promise.allSettled(this.#inFlight);
  }

  close(): void {
    clearTimeout(this.#deadline);
    try {
      this.conn.close();
    } catch {
      // It was closed before.
    }
  }
}

/**
 * Serves `filter` on `address`:`port` by TCP.
 * @throws what `Deno.listen` throws when it cannot be bound.
 */
export function listenTcp(
  filter: PacketHandler,
  address: string,
  port: number,
  limits: TcpLimits = {},
): Listener {
  const listener = Deno.listen({ transport: "tcp", hostname: address, port });
  const connections = new Map<Connection, Promise<void>>();
  const shares = new Shares<string>(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_SOURCE);
  let closed = false;
  let draining = false;

  function accept(conn: Deno.TcpConn): void {
    if (draining) return conn.close();
    const source = conn.remoteAddr.hostname;
    if (!shares.hasRoomFor(source)) {
      log.debug("too many TCP connections; one of {source} is closed", { source });
      conn.close();
      return;
    }
    const connection = new Connection(conn, filter, source, limits.idleMs ?? IDLE_MS);
    shares.take(source);
    const served = connection.serve().then(() => {
      shares.release(source);
      connections.delete(connection);
    });
    connections.set(connection, served);
  }

  async function serve(): Promise<void> {
    while (!closed) {
      try {
        accept(await listener.accept());
      } catch (thrown) {
        if (closed) return;
        // Its client has reset it already. To pause for that would let one agent close this to all.
        if (thrown instanceof Deno.errors.NotConnected) continue;
        log.warn("accepting on {address} failed: {error}", { address, error: messageOf(thrown) });
        await pause(RETRY_MS);
      }
    }
  }

  const serving = serve();
  return {
    async drain(): Promise<void> {
      draining = true;
      await Promise.allSettled([...connections.keys()].map((connection) => connection.drain()));
    },
    async close(): Promise<void> {
      closed = true;
      listener.close();
      for (const connection of connections.keys()) connection.close();
      await Promise.allSettled([serving, ...connections.values()]);
    },
  };
}
