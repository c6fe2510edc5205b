/**
 * The proxy: a listener on each gateway, a loop for each client connection, and one place where
 * every attempt ends in a decision record and an answer.
 */
import type { Agent, AgentDirectory } from "../agents.ts";
import type { AgentTunnels, ProxyService, ProxyStatus } from "../api/services.ts";
import type { GatewayService } from "../bridge/segment.ts";
import type { Decision, DecisionLog, NewDecision, Reason } from "../decision.ts";
import { messageOf } from "../errors.ts";
import { logger } from "../log.ts";
import type { Admission } from "./admission.ts";
import { type AnswerForm, answerForm, healthAnswer, refusalAnswer } from "./answer.ts";
import { ClientCount } from "./clients.ts";
import { tunnel } from "./connect.ts";
import { DEFAULT_LIMITS, type ProxyContext, type ProxyLimits } from "./context.ts";
import { Exchange } from "./exchange.ts";
import { headEnd } from "./fields.ts";
import { forward } from "./forward.ts";
import { MAX_HEAD_BYTES, parseRequestHead, type RequestHead } from "./head.ts";
import { TimeLimitExceeded, within } from "./limit.ts";
import { listen } from "./listen.ts";
import { allowed, attemptOf, blocked } from "./record.ts";
import { asRefusal, isConnectionError, Refusal } from "./refusal.ts";
import { Relay } from "./relay/relay.ts";
import { SpareUpstream } from "./spare.ts";
import { BufferedConn, closeAfterAnswer } from "./stream.ts";

const log = logger("proxy");

/** How long a client has to read a last answer. */
const LINGER_MS = 1_000;
/** A listener that cannot accept (no descriptors left) tries again after this. */
const ACCEPT_RETRY_MS = 100;

/** Connections beyond the limit that are told so at the same time; further ones are just closed. */
const MAX_TURNED_AWAY = 64;

/** What the proxy is made of. */
export interface ProxyOptions extends Omit<ProxyContext, "limits" | "relay"> {
  readonly port: number;
  /** Null: every gateway and nothing else on the host; otherwise this address alone (decision D6). */
  readonly address: string | null;
  readonly agents: AgentDirectory;
  readonly decisions: DecisionLog;
  readonly limits?: Partial<ProxyLimits>;
}

/** One client connection. */
interface Client {
  readonly stream: BufferedConn;
  /** Address of the listener it came to. */
  readonly gateway: string;
  /** As the kernel reported it. */
  readonly source: string;
  /** What its next request to the same server may use. */
  readonly spare: SpareUpstream;
  /** Whom it was last found to belong to; null before the first time. */
  agent: Agent | null;
  /** What it is being served; null while no request has arrived. */
  exchange: Exchange | null;
}

/** The HTTP(S) proxy. */
export class ProxyServer implements GatewayService, ProxyService {
  readonly #options: ProxyOptions;
  readonly #context: ProxyContext;
  readonly #listeners = new Map<string, Deno.TcpListener>();
  readonly #clients = new Set<Client>();
  readonly #count: ClientCount;
  #stopping = false;
  /** Rises when agents came or went: who was asked for before may be somebody else now. */
  #identityEpoch = 0;
  #turnedAway = 0;
  #requestsTotal = 0;
  #requestsBlocked = 0;

  constructor(options: ProxyOptions) {
    this.#options = options;
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#context = { ...options, limits, relay: new Relay(limits.idleMs) };
    this.#count = new ClientCount(limits.maxConnections, limits.maxConnectionsPerAgent);
  }

  /** Listens on these gateways; throws `proxy.bind` and keeps what was served. */
  serve(gateways: readonly string[]): Promise<void> {
    const { address, port } = this.#options;
    const wanted = new Set(address === null ? gateways : [address]);
    const opened = new Map<string, Deno.TcpListener>();
    try {
      for (const gateway of wanted) {
        if (!this.#listeners.has(gateway)) opened.set(gateway, listen(gateway, port));
      }
    } catch (thrown) {
      for (const listener of opened.values()) listener.close();
      return Promise.reject(thrown);
    }
    for (const [gateway, listener] of opened) {
      this.#listeners.set(gateway, listener);
      log.info("listening on {gateway}:{port}", { gateway, port: listener.addr.port });
      void this.#accept(gateway, listener);
    }
    for (const gateway of this.#listeners.keys()) {
      if (!wanted.has(gateway)) this.#leave(gateway);
    }
    return Promise.resolve();
  }

  /** Stops accepting, lets busy connections end for the drain time, then closes them. */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (const listener of this.#listeners.values()) listener.close();
    this.#listeners.clear();
    for (const client of this.#clients) {
      if (client.exchange === null) client.stream.close();
    }
    const deadlineMs = performance.now() + this.#context.limits.drainMs;
    while (this.#clients.size > 0 && performance.now() < deadlineMs) await delay(20);
    for (const client of this.#clients) this.#drop(client);
    await this.#context.relay.stop();
  }

  /** State and counters since start-up. */
  status(): ProxyStatus {
    const [first] = this.#listeners.values();
    return {
      running: this.#listeners.size > 0,
      listen_addresses: [...this.#listeners.keys()],
      listen_port: first?.addr.port ?? this.#options.port,
      active_connections: this.#count.total,
      tunnels: this.#tunnels(),
      requests_total: this.#requestsTotal,
      requests_blocked: this.#requestsBlocked,
    };
  }

  /**
   * Call after a reload: ends every tunnel and request under way that the policy in force now would
   * not admit, and returns how many. Connections between requests lose what they keep open to
   * upstream; their next request is judged anyway.
   */
  rejudge(): number {
    let cut = 0;
    for (const { exchange, source, spare } of this.#clients) {
      spare.drop();
      const refusal = exchange?.recheck() ?? null;
      if (exchange === null || refusal === null) continue;
      exchange.decision = this.#record(
        blocked(exchange.agent, source, exchange.attempt, refusal, this.#generation()),
      );
      exchange.cut();
      cut++;
    }
    return cut;
  }

  /**
   * Call when agents came or went: ends every connection whose agent is no longer the one at its
   * address, so that nothing outlives a container or falls to the next one (ADV-NET). Never rejects.
   */
  async reidentify(): Promise<void> {
    this.#identityEpoch++;
    const sources = new Set([...this.#clients].map(({ source }) => source));
    await Promise.all([...sources].map(async (source) => {
      const now = await this.#whoIs(source);
      for (const client of this.#clients) {
        if (client.source !== source || client.agent === null || isSame(client.agent, now)) {
          continue;
        }
        log.debug("{source} is no longer {agent}: closed", { source, agent: client.agent.name });
        this.#drop(client);
      }
    }));
  }

  #tunnels(): AgentTunnels[] {
    const bySource = new Map<string, { agent: string; address: string; count: number }>();
    for (const { exchange, source } of this.#clients) {
      if (exchange?.relaying !== true) continue;
      const entry = bySource.get(source) ??
        { agent: exchange.agent.name, address: source, count: 0 };
      entry.count++;
      bySource.set(source, entry);
    }
    return [...bySource.values()];
  }

  #leave(gateway: string): void {
    this.#listeners.get(gateway)?.close();
    this.#listeners.delete(gateway);
    for (const client of this.#clients) {
      if (client.gateway === gateway) this.#drop(client);
    }
  }

  #drop(client: Client): void {
    client.spare.drop();
    client.exchange?.cut();
    client.stream.close();
  }

  async #accept(gateway: string, listener: Deno.TcpListener): Promise<void> {
    while (this.#listeners.get(gateway) === listener) {
      let conn: Deno.TcpConn;
      try {
        conn = await listener.accept();
      } catch (thrown) {
        if (this.#listeners.get(gateway) !== listener) return;
        log.warn("accepting on {gateway} failed: {error}", { gateway, error: messageOf(thrown) });
        await delay(ACCEPT_RETRY_MS);
        continue;
      }
      void this.#connection(gateway, conn);
    }
  }

  /** Serves one client connection; never rejects. */
  async #connection(gateway: string, conn: Deno.TcpConn): Promise<void> {
    const stream = new BufferedConn(conn);
    try {
      const source = conn.remoteAddr.hostname;
      const spare = new SpareUpstream();
      const client: Client = { stream, gateway, source, spare, agent: null, exchange: null };
      const full = this.#count.enter(source);
      if (full !== null) return await this.#turnAway(client, full);
      this.#clients.add(client);
      try {
        await this.#requests(client);
      } finally {
        spare.drop();
        this.#clients.delete(client);
        this.#count.leave(source);
      }
    } catch (thrown) {
      // A client that resets its connection is no defect; anything unforeseen must be seen.
      const level = isConnectionError(thrown) ? "debug" : "error";
      log[level]("connection ended: {error}", { error: messageOf(thrown) });
    } finally {
      stream.close();
    }
  }

  async #turnAway(client: Client, full: "all" | "agent"): Promise<void> {
    if (this.#turnedAway >= MAX_TURNED_AWAY) return;
    this.#turnedAway++;
    try {
      await this.#answerFull(client, full);
    } finally {
      this.#turnedAway--;
    }
  }

  async #answerFull(client: Client, full: "all" | "agent"): Promise<void> {
    const agent = await this.#identify(client.source);
    if (agent === null) return;
    const refusal = full === "agent"
      ? new Refusal(429, "connect", "limit", "this agent has too many connections")
      : new Refusal(503, "connect", "limit", "the proxy has too many connections");
    const decision = this.#record(blocked(agent, client.source, {}, refusal, this.#generation()));
    await client.stream.write(refusalAnswer(refusal, decision, PLAIN));
    await closeAfterAnswer(client.stream, LINGER_MS);
  }

  async #requests(client: Client): Promise<void> {
    for (let again = true; again && !this.#stopping;) {
      // Asked for each request: Docker may know by now whose address this is, or that it is gone.
      const agent = await this.#identify(client.source);
      client.agent = agent;
      again = agent !== null && await this.#request(client, agent) && await this.#awaitNext(client);
    }
  }

  /** Whether another request begins before the idle limit. */
  async #awaitNext({ stream }: Client): Promise<boolean> {
    if (stream.buffered.length > 0) return true;
    try {
      return await within(this.#context.limits.idleMs, stream.fill());
    } catch (thrown) {
      if (thrown instanceof TimeLimitExceeded) return false;
      throw thrown;
    }
  }

  /** Serves one request; whether the connection may carry another one. */
  async #request(client: Client, agent: Agent): Promise<boolean> {
    const { stream, source } = client;
    const exchange = new Exchange(agent, {}, stream);
    let form = PLAIN;
    try {
      const head = await this.#readHead(stream);
      if (head === null) return false;
      client.exchange = exchange;
      if (head.kind === "health") {
        await stream.write(healthAnswer());
        await closeAfterAnswer(stream, LINGER_MS);
        return false;
      }
      this.#requestsTotal++;
      if (head.kind === "refused") {
        const reason = head.status === 413 || head.status === 431 ? "limit" : "malformed";
        throw new Refusal(head.status, "http", reason, head.problem);
      }
      form = answerForm(head.fields, head.kind === "tunnel" ? "CONNECT" : head.method);
      exchange.attempt = attemptOf(head);
      const onAdmitted = (admission: Admission): void => {
        exchange.decision = this.#record(allowed(exchange, source, admission));
      };
      if (head.kind === "tunnel") {
        client.spare.drop();
        await tunnel(this.#context, stream, head, exchange, onAdmitted);
        return false;
      }
      const again = await forward(this.#context, stream, head, exchange, client.spare, onAdmitted);
      if (!again) await closeAfterAnswer(stream, LINGER_MS);
      return again;
    } catch (thrown) {
      // Reset before its head was complete: there is nothing to record, and nobody to answer.
      if (isConnectionError(thrown) && exchange.attempt.host === undefined) throw thrown;
      const layer = exchange.attempt.method === "CONNECT" ? "connect" : "http";
      const refusal = asRefusal(thrown, layer);
      if (refusal.reason === "internal_error") {
        log.error("a request failed: {error}", { error: messageOf(thrown) });
      }
      await this.#refuse(client, exchange, refusal, form);
      return false;
    } finally {
      client.exchange = null;
      exchange.end();
    }
  }

  /** The next request head; null when the client has left or never said anything. */
  async #readHead(stream: BufferedConn): Promise<RequestHead | null> {
    const reading = async (): Promise<RequestHead | null> => {
      for (let seenBytes = 0;;) {
        const { buffered } = stream;
        const end = headEnd(buffered, Math.max(0, seenBytes - 3));
        if (end === "bare_line_feed") {
          return { kind: "refused", status: 400, problem: "a line of the head ends without CR" };
        }
        if ((end ?? buffered.length) > MAX_HEAD_BYTES) {
          return parseRequestHead(buffered.subarray(0, MAX_HEAD_BYTES + 1));
        }
        if (end !== null) return parseRequestHead(stream.take(end));
        seenBytes = buffered.length;
        if (!await stream.fill()) return null;
      }
    };
    try {
      return await within(this.#context.limits.headMs, reading());
    } catch (thrown) {
      if (!(thrown instanceof TimeLimitExceeded)) throw thrown;
      if (stream.buffered.length === 0) return null;
      throw new Refusal(408, "http", "limit", "the request head took too long");
    }
  }

  async #refuse(
    client: Client,
    exchange: Exchange,
    refusal: Refusal,
    form: AnswerForm,
  ): Promise<void> {
    const decision = this.#decide(client, exchange, refusal);
    // Behind the beginning of another answer, or inside a tunnel, only closing is left.
    if (exchange.answered) return;
    exchange.answered = true;
    await client.stream.write(refusalAnswer(refusal, decision, form));
    await closeAfterAnswer(client.stream, LINGER_MS);
  }

  /** The exchange's one decision: the one there is, or this refusal recorded. */
  #decide(client: Client, exchange: Exchange, refusal: Refusal): Decision {
    const { agent, attempt } = exchange;
    return exchange.decision ??= this.#record(
      blocked(agent, client.source, attempt, refusal, this.#generation()),
    );
  }

  /** Null, and recorded: the source is no agent, and gets no answer (decision D5). */
  async #identify(source: string): Promise<Agent | null> {
    for (;;) {
      const epoch = this.#identityEpoch;
      const agent = await this.#whoIs(source);
      if (agent === null) break;
      if (epoch === this.#identityEpoch) return agent;
    }
    const refusal = new Refusal(403, "connect", "unknown_source", "not a managed container");
    this.#record(blocked(null, source, {}, refusal, this.#generation()));
    return null;
  }

  async #whoIs(source: string): Promise<Agent | null> {
    try {
      return await this.#options.agents.identify(source);
    } catch (thrown) {
      log.error("{source} could not be identified: {error}", { source, error: messageOf(thrown) });
      return null;
    }
  }

  /** Generation of the policy in force, for attempts that policy was not asked about. */
  #generation(): number {
    try {
      return this.#options.judge("connect", {}).generation;
    } catch {
      return 0;
    }
  }

  #record(decision: NewDecision): Decision {
    const { verdict, reason } = decision;
    if (verdict === "block" && !NO_BLOCK_OF_OURS.has(reason)) this.#requestsBlocked++;
    return this.#options.decisions.record(decision);
  }
}

const PLAIN: AnswerForm = { json: false, headOnly: false };

/** Attempts that somebody else ended do not count as blocked. */
const NO_BLOCK_OF_OURS: ReadonlySet<Reason> = new Set(["upstream_failed", "client_closed"]);

/** Rules judge by name, and a name may be given to another container. */
function isSame(before: Agent, now: Agent | null): boolean {
  return before.containerId === now?.containerId && before.name === now?.name;
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
