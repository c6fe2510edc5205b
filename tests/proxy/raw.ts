/** Both ends of a connection that say and hear bytes as they are. */
import { bytesOf, textOf } from "../../lib/proxy/bytes.ts";

/** A TCP client that sends and reads bytes as they are. */
export class RawClient implements Disposable {
  #seen = "";

  constructor(readonly conn: Deno.TcpConn) {}

  static async connect(port: number, hostname = "127.0.0.1"): Promise<RawClient> {
    return new RawClient(await Deno.connect({ hostname, port }));
  }

  /** Sends a byte string or bytes. */
  async send(data: string | Uint8Array): Promise<void> {
    let rest: Uint8Array = typeof data === "string" ? bytesOf(data) : data;
    while (rest.length > 0) rest = rest.subarray(await this.conn.write(rest));
  }

  /** Reads until what was read and not returned yet matches; returns it up to the match's end. */
  async until(pattern: RegExp): Promise<string> {
    while (true) {
      const match = pattern.exec(this.#seen);
      if (match !== null) {
        const end = match.index + match[0].length;
        const taken = this.#seen.slice(0, end);
        this.#seen = this.#seen.slice(end);
        return taken;
      }
      if (!await this.#more()) throw new Error(`closed after ${JSON.stringify(this.#seen)}`);
    }
  }

  /** Reads until the other side closes or resets. */
  async rest(): Promise<string> {
    while (await this.#more());
    const taken = this.#seen;
    this.#seen = "";
    return taken;
  }

  async #more(): Promise<boolean> {
    const buffer = new Uint8Array(65_536);
    let count: number | null;
    try {
      count = await this.conn.read(buffer);
    } catch (thrown) {
      if (!(thrown instanceof Deno.errors.ConnectionReset)) throw thrown;
      count = null;
    }
    if (count === null) return false;
    this.#seen += textOf(buffer.subarray(0, count));
    return true;
  }

  [Symbol.dispose](): void {
    try {
      this.conn.close();
    } catch {
      // Closed by the test.
    }
  }
}

/** What an origin does with one connection. */
export type Serve = (client: RawClient, number: number) => Promise<void>;

/** A TCP server that plays the destination and remembers everything that reached it. */
export class Origin implements AsyncDisposable {
  /** All bytes of each connection, in order of arrival. */
  readonly received: string[] = [];
  readonly #listener: Deno.TcpListener;
  readonly #open = new Set<RawClient>();
  readonly #done: Promise<void>;

  constructor(readonly serve: Serve, hostname = "127.0.0.1", port = 0) {
    this.#listener = Deno.listen({ hostname, port });
    this.#done = this.#accept();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** Connections that neither side has closed. */
  get openConnections(): number {
    return this.#open.size;
  }

  /** An origin that answers every request head with `response` and closes. */
  static answering(response: string): Origin {
    return new Origin(async (client) => {
      await client.until(/\r\n\r\n/);
      await client.send(response);
    });
  }

  /** An origin that sends back whatever comes. */
  static echoing(): Origin {
    return new Origin(async (client) => {
      while (true) await client.send(await client.until(/[^]+/));
    });
  }

  async #accept(): Promise<void> {
    const serving: Promise<void>[] = [];
    for await (const conn of this.#listener) {
      const number = this.received.push("") - 1;
      serving.push(this.#connection(new Witnessed(conn, this.received, number), number));
    }
    await Promise.all(serving);
  }

  async #connection(client: RawClient, number: number): Promise<void> {
    this.#open.add(client);
    try {
      await this.serve(client, number);
    } catch {
      // The proxy went first; the test looks at what was received.
    } finally {
      this.#open.delete(client);
      client[Symbol.dispose]();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const client of this.#open) client[Symbol.dispose]();
    await this.#done;
  }
}

/** A raw client whose reads are written down. */
class Witnessed extends RawClient {
  constructor(conn: Deno.TcpConn, received: string[], number: number) {
    const read = conn.read.bind(conn);
    conn.read = async (buffer) => {
      const count = await read(buffer);
      if (count !== null) received[number] += textOf(buffer.subarray(0, count));
      return count;
    };
    super(conn);
  }
}
