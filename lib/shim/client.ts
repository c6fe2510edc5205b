/** The daemon as the shim sees it: one connection, bounded in time, and no second try. */
import { BadReply, MAX_REPLY_BYTES, parseReply, type Reply } from "./reply.ts";

/** Where the agent socket is in every container. */
export const AGENT_SOCKET = "/run/outcall/agent.sock";

/** Between two attempts to get into the queue of a busy daemon. */
const QUEUE_RETRY_MS = 2;

/** No trustworthy answer: whoever asked must take it as a refusal (S005-FR-011). */
export class Unreachable extends Error {
  override readonly name = "Unreachable";
}

/** The daemon answered, and its answer is a failure. */
export class Refused extends Error {
  override readonly name = "Refused";

  /** @param hint What to do next, or null. */
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint: string | null,
  ) {
    super(message);
  }
}

/** The fields of a success. */
export type Fields = Readonly<Record<string, unknown>>;

/** One connection to the daemon. */
export class AgentClient {
  #token: string | null = null;

  private constructor(
    readonly path: string,
    readonly conn: Deno.UnixConn,
    readonly timeoutMs: number,
  ) {}

  /**
   * Connects.
   * @param timeoutMs Of each request.
   * @throws Unreachable
   */
  static async connect(path: string, timeoutMs: number): Promise<AgentClient> {
    try {
      return new AgentClient(path, await connected(path, timeoutMs), timeoutMs);
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound) {
        throw new Unreachable(`agent socket not found at ${path} -- is outcalld running?`);
      }
      throw new Unreachable(`outcalld unreachable (${path}: ${messageOf(cause)})`);
    }
  }

  /**
   * Checks in; later requests carry the session's token.
   * @returns the container id, or null for an agent without a container.
   */
  async checkIn(): Promise<string | null> {
    const { session_token: token, container_id: id } = await this.ask("POST", "/v1/checkin", {});
    if (typeof token !== "string" || !/^tok-[0-9a-f]{32}$/.test(token)) {
      throw new Unreachable("the check-in's answer has no session token");
    }
    if (id !== null && typeof id !== "string") throw new Unreachable("the check-in is malformed");
    this.#token = token;
    return id;
  }

  /**
   * One request and its answer.
   * @param waitMs How much longer than usual the answer may take.
   * @throws Refused, Unreachable
   */
  async ask(method: "GET" | "POST", path: string, body?: object, waitMs = 0): Promise<Fields> {
    const bytes = new TextEncoder().encode(body === undefined ? "" : JSON.stringify(body));
    const head = [
      `${method} ${path} HTTP/1.1`,
      "Host: localhost",
      ...(this.#token === null ? [] : [`Authorization: Bearer ${this.#token}`]),
      ...(method === "GET" ? [] : ["Content-Type: application/json"]),
      `Content-Length: ${bytes.length}`,
    ].join("\r\n");
    try {
      const reply = await within(this.timeoutMs + waitMs, this.#exchange(head, bytes));
      return fieldsOf(reply);
    } catch (thrown) {
      if (thrown instanceof Refused || thrown instanceof Unreachable) throw thrown;
      throw new Unreachable(`outcalld unreachable (${this.path}: ${messageOf(thrown)})`);
    }
  }

  /** Hangs up. */
  close(): void {
    try {
      this.conn.close();
    } catch {
      // It was closed before.
    }
  }

  async #exchange(head: string, body: Uint8Array): Promise<Reply> {
    const headBytes = new TextEncoder().encode(`${head}\r\n\r\n`);
    const request = new Uint8Array(headBytes.length + body.length);
    request.set(headBytes);
    request.set(body, headBytes.length);
    for (let sent = 0; sent < request.length;) {
      sent += await this.conn.write(request.subarray(sent));
    }
    const buffer = new Uint8Array(MAX_REPLY_BYTES + 1);
    for (let length = 0;;) {
      const reply = parseReply(buffer.subarray(0, length));
      if (reply !== null) return reply;
      const read = await this.conn.read(buffer.subarray(length));
      if (read === null) throw new BadReply("the connection ended without an answer");
      length += read;
    }
  }
}

/** Exactly one of success and failure (decision D1), in agreement with the status. */
function fieldsOf({ status, body }: Reply): Fields {
  const fields: Fields = isRecord(body) ? body : {};
  const isSuccess = status === 200 || status === 201;
  if (fields["ok"] === true && isSuccess) return fields;
  const { error, code, hint } = fields;
  if (fields["ok"] === false && !isSuccess && typeof error === "string") {
    throw new Refused(
      status,
      typeof code === "string" ? code : "",
      error,
      typeof hint === "string" ? hint : null,
    );
  }
  throw new BadReply("the answer contradicts itself");
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Connects, and asks for a place in the socket's queue again while it is full: another agent that
 * floods the daemon must not make us believe that there is none.
 */
async function connected(path: string, timeoutMs: number): Promise<Deno.UnixConn> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await within(timeoutMs, Deno.connect({ transport: "unix", path }));
    } catch (thrown) {
      const isFull = thrown instanceof Deno.errors.WouldBlock; // EAGAIN, unix(7)
      if (!isFull || performance.now() >= deadlineMs) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, QUEUE_RETRY_MS));
    }
  }
}

async function within<T>(timeoutMs: number, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`no answer within ${timeoutMs / 1_000} s`));
    }, timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
