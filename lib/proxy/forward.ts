/**
 * Plain HTTP: one request judged, sent upstream in a framing of ours, and its response brought
 * back the same way.
 */
import { type Admission, admit, admitAddress } from "./admission.ts";
import { MalformedBody, type NextPiece, readBody, writeMessage } from "./body.ts";
import { BodyLimit } from "./body_limit.ts";
import { bytesOf } from "./bytes.ts";
import type { ProxyContext } from "./context.ts";
import type { Destination } from "./destination.ts";
import { connectTo, dial, type Dialled, use } from "./dial.ts";
import type { Exchange } from "./exchange.ts";
import { fieldsForUpstream, hostFieldValue, readingsOf } from "./facts.ts";
import { type Field, field, headEnd, renderHead } from "./fields.ts";
import type { ForwardRequest } from "./head.ts";
import { IdleWatch } from "./limit.ts";
import { Refusal } from "./refusal.ts";
import {
  fieldsForClient,
  fieldsPassedOn,
  framingForClient,
  MAX_RESPONSE_HEAD_BYTES,
  parseResponseHead,
  type ResponseHead,
} from "./response.ts";
import type { SpareUpstream } from "./spare.ts";
import { type BufferedConn, UnexpectedEnd } from "./stream.ts";
import { agreesToWebSocket } from "./websocket.ts";

const CONTINUE = bytesOf("HTTP/1.1 100 Continue\r\n\r\n");

/** More interim responses than a server has reason to send (RFC 9110 §15.2 sets no limit). */
const MAX_INTERIM_RESPONSES = 16;

/**
 * Requests that may be sent twice (RFC 9110 §9.2.2) and have no body that would be gone by then:
 * upstream may close a kept connection at the moment it is used.
 */
const REPEATABLE_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);

/** A kept connection turned out to be closed; upstream has answered nothing. */
class StaleConnection extends Error {
  override readonly name = "StaleConnection";
}

/**
 * Serves one plain request. Returns whether the client's connection can carry another one. Throws a
 * {@linkcode Refusal}, or what reading from or writing to the client throws; `onAdmitted` is
 * called once, when upstream answers and before bytes are sent.
 * @param spare Where the connection to upstream is left for the next request.
 */
export async function forward(
  context: ProxyContext,
  client: BufferedConn,
  request: ForwardRequest,
  exchange: Exchange,
  spare: SpareUpstream,
  onAdmitted: (admission: Admission) => void,
): Promise<boolean> {
  assertNotPipelined(client, request);
  const { target } = request;
  const outgoing = fieldsForUpstream(request);
  const readings = readingsOf(request, outgoing, exchange.agent);
  const admission = exchange.hold(() => admit(context, "http", readings));
  const bodyLimit = new BodyLimit(request.body);
  const admitTo = (destination: Destination): Admission =>
    bodyLimit.obey(admitAddress(context, readings, destination));
  const origin = hostFieldValue(target.host, target.port);
  const mayShare = isRepeatable(request);
  const kept = spare.take(mayShare ? origin : "");
  const dialled = kept === null
    ? await dial(context, exchange, target, admitTo)
    : use(exchange, kept, admitTo);
  const { reason, rule, generation } = dialled.admission;
  onAdmitted({ ...admission, reason, rule, generation });

  const send = async ({ upstream }: Dialled, mayBeStale: boolean): Promise<boolean> => {
    const transfer = new Transfer(
      client,
      upstream.stream,
      request,
      bodyLimit,
      exchange,
      context,
      mayBeStale,
    );
    try {
      const again = await transfer.run(outgoing);
      if (again && mayShare && transfer.upstreamPersistent && exchange.release()) {
        spare.keep(origin, upstream);
      }
      return again;
    } finally {
      transfer.end();
    }
  };
  if (kept === null) return await send(dialled, false);
  try {
    return await send(dialled, true);
  } catch (thrown) {
    if (!(thrown instanceof StaleConnection)) throw thrown;
    // The same address, so that the record stays true.
    return await send(
      await connectTo(context, exchange, [kept.destination], target.port, admitTo),
      false,
    );
  }
}

function isRepeatable({ method, body, webSocket }: ForwardRequest): boolean {
  return REPEATABLE_METHODS.has(method) && body.kind === "none" && !webSocket;
}

/** ADV-HTTP-01. A client that waits for its answers never trips over this. */
function assertNotPipelined(client: BufferedConn, { body }: ForwardRequest): void {
  const allowedBytes = body.kind === "none" ? 0 : body.kind === "length" ? body.bytes : Infinity;
  if (client.buffered.length > allowedBytes) {
    throw new Refusal(400, "http", "malformed", "bytes follow the request");
  }
}

/** One admitted request and its response. */
class Transfer {
  readonly #idle: IdleWatch;
  #requestSent = false;
  #upstreamPersistent = false;
  /** What went wrong while the request's body was read; it explains why upstream failed then. */
  #requestError: unknown = null;

  constructor(
    readonly client: BufferedConn,
    readonly upstream: BufferedConn,
    readonly request: ForwardRequest,
    readonly bodyLimit: BodyLimit,
    readonly exchange: Exchange,
    readonly context: ProxyContext,
    /** Upstream may have closed while nobody asked it anything. */
    readonly mayBeStale: boolean,
  ) {
    this.#idle = new IdleWatch(context.loop.timers, context.limits.idleMs, () => {
      upstream.close();
      if (exchange.answered) client.close();
    });
    upstream.onProgress = client.onProgress = () => this.#idle.touch();
  }

  /** Upstream takes another request: its response is read to the end, and nothing is behind it. */
  get upstreamPersistent(): boolean {
    return this.#upstreamPersistent;
  }

  end(): void {
    this.#idle.stop();
    this.client.onProgress = () => {};
    if (!this.#upstreamPersistent) this.upstream.close();
  }

  /** Sends and receives at the same time: a server may answer before it has read everything. */
  async run(outgoing: readonly Field[]): Promise<boolean> {
    // Before anything is read from upstream, or it could land in the middle of an answer.
    if (this.request.expectsContinue) await this.client.write(CONTINUE);
    const sending = this.#sendRequest(outgoing);
    try {
      const response = await this.#readResponse();
      // The answer may be quicker than our own noticing that all of the request was written.
      if (!this.#requestSent) await Promise.race([sending, this.context.loop.nextTurn()]);
      if (response.status === 101) {
        await this.#webSocket(response);
        return false;
      }
      const persistent = await this.#sendResponse(response) && this.#requestSent;
      this.#upstreamPersistent = persistent && response.persistent &&
        this.upstream.buffered.length === 0;
      return persistent;
    } catch (thrown) {
      throw this.#requestError ?? thrown;
    } finally {
      // Waits for the client's next bytes perhaps, which is no reason to keep the answer waiting.
      void sending;
    }
  }

  async #sendRequest(outgoing: readonly Field[]): Promise<void> {
    const { method, target, body } = this.request;
    const requestLine = `${method} ${target.path}${target.query} HTTP/1.1`;
    try {
      const next = this.#requestBody();
      const first = this.client.buffered.length > 0 ? await next() : undefined;
      await writeMessage(this.upstream, renderHead(requestLine, outgoing), body, next, first);
      this.#requestSent = true;
    } catch {
      // Upstream takes no more; it may have said why, so the response is still read.
    }
  }

  #requestBody(): NextPiece {
    const next = readBody(this.client, this.request.body);
    return async () => {
      try {
        const piece = await next();
        if (piece !== null) this.bodyLimit.add(piece.length);
        return piece;
      } catch (thrown) {
        this.#requestError = refusedBody(thrown);
        // Half a request must not look whole: upstream sees a connection that breaks off.
        this.upstream.close();
        throw thrown;
      }
    };
  }

  /**
   * The final response's head, or a WebSocket's 101. Other interim ones end here, though RFC 9110 §15.2
   * has them passed on: clients that take one for the answer (Python's http.client does) would read
   * the answer as that to their next request, which may be to another host.
   */
  async #readResponse(): Promise<ResponseHead> {
    for (let count = 0; count <= MAX_INTERIM_RESPONSES; count++) {
      const response = await this.#readHead();
      if (response.status >= 200) return response;
      if (response.status === 101) {
        const { webSocket, fields } = this.request;
        if (webSocket && agreesToWebSocket(fields, response.fields)) return response;
        throw unusable("the destination switched protocols unasked");
      }
    }
    throw unusable("the destination sent too many interim responses");
  }

  async #readHead(): Promise<ResponseHead> {
    for (let seenBytes = 0;;) {
      const { buffered } = this.upstream;
      const end = headEnd(buffered, Math.max(0, seenBytes - 3));
      if (end === "bare_line_feed" || (end ?? buffered.length) > MAX_RESPONSE_HEAD_BYTES) {
        throw unusable("the destination's answer is malformed");
      }
      if (end !== null) {
        const response = parseResponseHead(this.upstream.take(end), this.request.method);
        if (response.kind === "response") return response;
        throw unusable(`the destination's answer is malformed: ${response.problem}`);
      }
      seenBytes = buffered.length;
      if (!await this.#fillFromUpstream()) {
        if (this.mayBeStale && seenBytes === 0) throw new StaleConnection();
        throw unusable("the destination closed without an answer");
      }
    }
  }

  async #fillFromUpstream(): Promise<boolean> {
    try {
      return await this.upstream.fill();
    } catch {
      if (this.mayBeStale && !this.#idle.expired && this.upstream.buffered.length === 0) {
        throw new StaleConnection();
      }
      throw this.#broken("the connection to the destination broke");
    }
  }

  /** Why upstream says nothing more: we may have lost patience with it, or with the client. */
  #broken(problem: string): Refusal {
    if (!this.#idle.expired) return unusable(problem);
    return this.#requestSent
      ? new Refusal(504, "dial", "upstream_failed", "the destination did not answer in time")
      : new Refusal(408, "http", "limit", "the request body took too long");
  }

  /** Streams the response; whether the client can tell where it ended and stay connected. */
  async #sendResponse(response: ResponseHead): Promise<boolean> {
    const framing = framingForClient(response.body, this.request.version);
    const persistent = this.request.persistent && framing.kind !== "until_close" &&
      this.#requestSent;
    const head = renderHead(statusLine(response), fieldsForClient(response, framing, persistent));
    const next = readBody(this.upstream, response.body);
    try {
      // Before the head goes out: while nothing has, the client can still be told what is wrong.
      const first = this.upstream.buffered.length > 0 ? await next() : undefined;
      this.exchange.answered = true;
      await writeMessage(this.client, head, framing, next, first);
    } catch (thrown) {
      // Half an answer must not look whole either, to a client that only its end tells.
      if (this.exchange.answered && framing.kind === "until_close") this.client.abort();
      if (thrown instanceof UnexpectedEnd) {
        throw this.#broken("the destination broke its answer off");
      }
      if (thrown instanceof MalformedBody) throw unusable("the destination's answer is malformed");
      throw thrown;
    }
    return persistent;
  }

  /** RFC 6455 §4.2.2: behind the 101 the connection is a tunnel. */
  async #webSocket(response: ResponseHead): Promise<void> {
    const { client, upstream } = this;
    const fields = [
      ...fieldsPassedOn(response),
      field("Upgrade", "websocket"),
      field("Connection", "Upgrade"),
    ];
    this.exchange.answered = true;
    await client.writeHead(renderHead(statusLine(response), fields));
    this.#idle.stop();
    await this.exchange.relay(this.context.tunnels, upstream);
  }
}

function statusLine(response: ResponseHead): string {
  return `HTTP/1.1 ${response.status} ${response.phrase}`;
}

function unusable(problem: string): Refusal {
  return new Refusal(502, "dial", "upstream_failed", problem);
}

function refusedBody(thrown: unknown): unknown {
  if (thrown instanceof MalformedBody) {
    return new Refusal(400, "http", "malformed", "malformed chunked body");
  }
  return thrown;
}
