/**
 * The client connections: a loop for each, and one place where every attempt ends in a decision
 * record and an answer.
 */
import { type Agent, isSameAgent } from "../agents.ts";
import type { AgentTunnels } from "../api/services.ts";
import type { Decision, DecisionChanges, NewDecision, Reason, TunnelEnd } from "../decision.ts";
import { messageOf } from "../errors.ts";
import { logger } from "../log.ts";
import type { Admission } from "./admission.ts";
import { type AnswerForm, answerForm, healthAnswer, refusalAnswer } from "./answer.ts";
import { ClientCount } from "./clients.ts";
import { tunnel } from "./connect.ts";
import type { ProxyContext } from "./context.ts";
import { Exchange } from "./exchange.ts";
import { headEnd } from "./fields.ts";
import { forward } from "./forward.ts";
import { MAX_HEAD_BYTES, parseRequestHead, type RequestHead } from "./head.ts";
import { Deadline, TimeLimitExceeded, within } from "./limit.ts";
import { allowed, attemptOf, blocked } from "./record.ts";
import { asRefusal, isConnectionError, Refusal } from "./refusal.ts";
import type { TcpSocket } from "./socket.ts";
import { SpareUpstream } from "./spare.ts";
import { BufferedConn, closeAfterAnswer } from "./stream.ts";

const log = logger("proxy");

/** How long a client has to read a last answer. */
const LINGER_MS = 1_000;

/** How often it is looked whether busy connections have ended, when the proxy stops. */
const DRAIN_POLL_MS = 20;

/** What connections are told that are not served. */
const TURNED_AWAY = {
  agent: { status: 429, problem: "this agent has too many connections" },
  all: { status: 503, problem: "the proxy has too many connections" },
  stopping: { status: 503, problem: "the daemon is stopping" },
} as const;

/** Connections that are not served and told so at the same time; further ones are just closed. */
const MAX_TURNED_AWAY = 64;

/** What serving connections needs beside what handling a request does. */
export interface ConnectionsContext extends ProxyContext {
  /** Who is at a source address; null: nobody that we serve. */
  readonly identify: (address: string) => Agent | null | Promise<Agent | null>;
  /** Names and keeps a decision. */
  readonly record: (decision: NewDecision) => Decision;
  /** Adds to a decision what came to be known later. */
  readonly grow: (decision: Decision, changes: DecisionChanges) => void;
  /** Receives what is counted, whenever it changes. */
  readonly counters: ProxyCounters;
}

/** What is counted. */
export interface ProxyCounters {
  connections: number;
  requests: number;
  blocked: number;
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

/** Every client connection of one thread. */
export class Connections {
  readonly #context: ConnectionsContext;
  readonly #clients = new Set<Client>();
  readonly #count: ClientCount;
  #stopping = false;
  /** Rises when agents came or went: who was asked for before may be somebody else now. */
  #identityEpoch = 0;
  #turnedAway = 0;

  constructor(context: ConnectionsContext) {
    this.#context = context;
    const { maxConnections, maxConnectionsPerAgent } = context.limits;
    this.#count = new ClientCount(maxConnections, maxConnectionsPerAgent);
  }

  /**
   * Turns away who comes new, closes idle connections at once, lets busy ones end for `drainMs`,
   * and ends what is left. Behind it the firewall closes: whoever has not heard of the end by then
   * will not, so that what waits to be sent is given up for a reset that arrives.
   */
  async stop(drainMs: number): Promise<void> {
    this.#stopping = true;
    for (const client of this.#clients) {
      if (client.exchange === null) client.stream.close();
    }
    const deadlineMs = performance.now() + drainMs;
    while (this.#clients.size > 0 && performance.now() < deadlineMs) {
      await new Promise<void>((resolve) => this.#context.loop.timers.after(DRAIN_POLL_MS, resolve));
    }
    for (const client of this.#clients) this.#drop(client, "stopped");
  }

  /** Ends every connection. */
  close(): void {
    this.#stopping = true;
    for (const client of this.#clients) this.#drop(client, "stopped");
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
      exchange.cut("policy");
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
        if (client.source !== source || client.agent === null || isSameAgent(client.agent, now)) {
          continue;
        }
        log.debug("{source} is no longer {agent}: closed", { source, agent: client.agent.name });
        this.#drop(client, "agent_gone");
      }
    }));
  }

  /** The live tunnels of each agent. */
  tunnels(): AgentTunnels[] {
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

  /** Ends every connection that came by this gateway. */
  leave(gateway: string): void {
    for (const client of this.#clients) {
      if (client.gateway === gateway) this.#drop(client, "agent_gone");
    }
  }

  /** Serves one client connection; never rejects. */
  async serve(gateway: string, source: string, socket: TcpSocket): Promise<void> {
    const stream = new BufferedConn(socket);
    try {
      const spare = new SpareUpstream();
      const client: Client = { stream, gateway, source, spare, agent: null, exchange: null };
      const why = this.#stopping ? "stopping" : this.#count.enter(source);
      if (why !== null) return await this.#turnAway(client, why);
      this.#context.counters.connections = this.#count.total;
      this.#clients.add(client);
      try {
        await this.#requests(client);
      } finally {
        spare.drop();
        this.#clients.delete(client);
        this.#count.leave(source);
        this.#context.counters.connections = this.#count.total;
      }
    } catch (thrown) {
      // A client that resets its connection is no defect; anything unforeseen must be seen.
      const level = isConnectionError(thrown) ? "debug" : "error";
      log[level]("connection ended: {error}", { error: messageOf(thrown) });
    } finally {
      stream.close();
    }
  }

  #drop(client: Client, why: TunnelEnd): void {
    client.spare.drop();
    client.exchange?.cut(why);
    client.stream.abort();
  }

  async #turnAway(client: Client, why: keyof typeof TURNED_AWAY): Promise<void> {
    if (this.#turnedAway >= MAX_TURNED_AWAY) return;
    this.#turnedAway++;
    try {
      await this.#answerTurnedAway(client, why);
    } finally {
      this.#turnedAway--;
    }
  }

  async #answerTurnedAway(client: Client, why: keyof typeof TURNED_AWAY): Promise<void> {
    const agent = await this.#identify(client.source);
    if (agent === null) return;
    const { status, problem } = TURNED_AWAY[why];
    const refusal = new Refusal(status, "connect", "limit", problem);
    const decision = this.#record(blocked(agent, client.source, {}, refusal, this.#generation()));
    await client.stream.write(refusalAnswer(refusal, decision, PLAIN));
    await this.#lingeringClose(client.stream);
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
    stream.relax();
    try {
      return await within(this.#context.loop.timers, this.#context.limits.idleMs, stream.fill());
    } catch (thrown) {
      if (thrown instanceof TimeLimitExceeded) return false;
      throw thrown;
    }
  }

  /** Serves one request; whether the connection may carry another one. */
  async #request(client: Client, agent: Agent): Promise<boolean> {
    const { stream, source } = client;
    const exchange = new Exchange(agent, {}, stream);
    let form = (): AnswerForm => PLAIN;
    try {
      const head = await this.#readHead(stream);
      // Some policies take many milliseconds over one request, and hundreds may have come at once.
      const { loop } = this.#context;
      while (loop.isTurnLong) await loop.nextTurn();
      // Read before its connection was ended, perhaps along with the agent it came from.
      if (head === null || !stream.isOpen) return false;
      exchange.startedMs = performance.now();
      client.exchange = exchange;
      if (head.kind === "health") {
        await stream.write(healthAnswer());
        await this.#lingeringClose(stream);
        return false;
      }
      this.#context.counters.requests++;
      if (head.kind === "refused") {
        const reason = head.status === 413 || head.status === 431 ? "limit" : "malformed";
        throw new Refusal(head.status, "http", reason, head.problem);
      }
      const { fields } = head;
      const method = head.kind === "tunnel" ? "CONNECT" : head.method;
      form = (): AnswerForm => answerForm(fields, method);
      exchange.attempt = attemptOf(head);
      const onAdmitted = (admission: Admission): void => {
        exchange.decision = exchange.admitted = this.#record(
          allowed(exchange, source, admission),
        );
      };
      if (head.kind === "tunnel") {
        client.spare.drop();
        await tunnel(this.#context, stream, head, exchange, onAdmitted);
        return false;
      }
      const persistent = await forward(
        this.#context,
        stream,
        head,
        exchange,
        client.spare,
        onAdmitted,
      );
      const again = persistent && !this.#stopping;
      if (!again) await this.#lingeringClose(stream);
      return again;
    } catch (thrown) {
      // Reset before its head was complete: there is nothing to record, and nobody to answer.
      if (isConnectionError(thrown) && exchange.attempt.host === undefined) throw thrown;
      const layer = exchange.attempt.method === "CONNECT" ? "connect" : "http";
      const refusal = asRefusal(thrown, layer);
      if (refusal.reason === "internal_error") {
        log.error("a request failed: {error}", { error: messageOf(thrown) });
      }
      await this.#refuse(client, exchange, refusal, form());
      return false;
    } finally {
      client.exchange = null;
      exchange.end();
      this.#grow(exchange);
    }
  }

  /** Adds to the record what became of an admitted attempt. */
  #grow({ admitted, use, ageMs }: Exchange): void {
    if (admitted === null) return;
    this.#context.grow(admitted, { durationMs: ageMs, ...(use === null ? {} : { tunnel: use }) });
  }

  /** The next request head; null when the client has left or never said anything. */
  async #readHead(stream: BufferedConn): Promise<RequestHead | null> {
    const { loop, limits } = this.#context;
    const deadline = new Deadline(loop.timers, limits.headMs);
    try {
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
        if (!await deadline.within(stream.fill())) return null;
      }
    } catch (thrown) {
      if (!(thrown instanceof TimeLimitExceeded)) throw thrown;
      if (stream.buffered.length === 0) return null;
      throw new Refusal(408, "http", "limit", "the request head took too long");
    }
  }

  #lingeringClose(stream: BufferedConn): Promise<void> {
    return closeAfterAnswer(stream, this.#context.loop.timers, LINGER_MS, () => {
      if (this.#stopping) stream.abort();
      else stream.close();
    });
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
    await this.#lingeringClose(client.stream);
  }

  /**
   * The exchange's one decision: the one there is, or this refusal recorded. What goes wrong with an
   * admitted exchange, such as a body that outgrows its limit or an answer that is none, is a decision
   * of its own: the admitting one says that the request went out.
   */
  #decide(client: Client, exchange: Exchange, refusal: Refusal): Decision {
    const { agent, attempt } = exchange;
    const isNews = exchange.decision === exchange.admitted && !exchange.isCut &&
      refusal.reason !== "client_closed";
    if (isNews) exchange.decision = null;
    return exchange.decision ??= this.#record({
      ...blocked(agent, client.source, attempt, refusal, this.#generation()),
      durationMs: exchange.ageMs,
    });
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
      return await this.#context.identify(source);
    } catch (thrown) {
      log.error("{source} could not be identified: {error}", { source, error: messageOf(thrown) });
      return null;
    }
  }

  /** Generation of the policy in force, for attempts that policy was not asked about. */
  #generation(): number {
    try {
      return this.#context.judge("connect", {}).generation;
    } catch {
      return 0;
    }
  }

  #record(decision: NewDecision): Decision {
    const { verdict, reason } = decision;
    if (verdict === "block" && !NO_BLOCK_OF_OURS.has(reason)) this.#context.counters.blocked++;
    return this.#context.record(decision);
  }
}

const PLAIN: AnswerForm = { json: false, headOnly: false };

/** Attempts that somebody else ended do not count as blocked. */
const NO_BLOCK_OF_OURS: ReadonlySet<Reason> = new Set(["upstream_failed", "client_closed"]);
