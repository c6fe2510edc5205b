/**
 * The proxy as the rest of the daemon sees it: listening sockets, a thread that serves them, and
 * answers to what the thread asks.
 */
import type { Agent, AgentDirectory } from "../agents.ts";
import type { AgentTunnels, ProxyService, ProxyStatus } from "../api/services.ts";
import type { GatewayService } from "../bridge/segment.ts";
import type { DecisionLog } from "../decision.ts";
import { LookupError } from "../dns/lookup.ts";
import { messageOf } from "../errors.ts";
import type { PartHealth } from "../health.ts";
import { logger, logRemote } from "../log.ts";
import { type Hostname, parseHost } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import { emptyPolicy, type PolicyData } from "../rules/policy.ts";
import type { RuleFailure } from "../rules/types.ts";
import { DEFAULT_LIMITS, type ProxyLimits } from "./context.ts";
import { ListeningSocket } from "./listen.ts";
import { ThreadHandle } from "./worker/handle.ts";
import { readJournal } from "./worker/journal.ts";
import { type FromThread, type Located, type Report, SharedCounters } from "./worker/protocol.ts";

const log = logger("proxy");

/** Pause before a new thread: one that fails at once must not keep the daemon from its work. */
const RESTART_MS = 250;

/** What the proxy is made of. */
export interface ProxyOptions {
  readonly port: number;
  /** Null: every gateway and nothing else on the host; otherwise this address alone (decision D6). */
  readonly address: string | null;
  readonly agents: AgentDirectory;
  readonly decisions: DecisionLog;
  /** The addresses of a name, by the daemon's own resolver, without any address policy. */
  readonly resolve: (hostname: Hostname, agent: Agent) => Promise<readonly Ip[]>;
  /**
   * Whether an address belongs to this host or to its agents, who do not reach each other (T-2):
   * interfaces, gateways, loopback, unspecified, managed networks, in
   * whatever spelling (IPv4-mapped IPv6 too). Such an address is never dialled.
   */
  readonly isLocalAddress: (ip: Ip) => boolean;
  /** Receives the rules that failed while being evaluated. */
  readonly onFailures: (failures: readonly RuleFailure[]) => void;
  /** Is told how long each connection to a destination took, and whether there is one. */
  readonly onDial?: (durationMs: number, isConnected: boolean) => void;
  readonly limits?: Partial<ProxyLimits>;
}

/** The HTTP(S) proxy. */
export class ProxyServer implements GatewayService, ProxyService {
  readonly #options: ProxyOptions;
  readonly #limits: ProxyLimits;
  readonly #listeners = new Map<string, ListeningSocket>();
  readonly #counters = new SharedCounters();
  #thread: ThreadHandle | null = null;
  #policy: PolicyData = emptyPolicy(0).data;
  #tunnels: readonly AgentTunnels[] = [];
  #restart: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;
  #failures = 0;

  constructor(options: ProxyOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
  }

  /** Listens on these gateways; throws `proxy.bind` and keeps what was served. */
  async serve(gateways: readonly string[]): Promise<void> {
    const { address, port } = this.#options;
    const wanted = new Set(address === null ? gateways : [address]);
    const opened: ListeningSocket[] = [];
    try {
      for (const gateway of wanted) {
        if (!this.#listeners.has(gateway)) opened.push(new ListeningSocket(gateway, port));
      }
    } catch (thrown) {
      for (const listener of opened) listener.close();
      throw thrown;
    }
    for (const listener of opened) {
      const { address: gateway, port } = listener;
      this.#listeners.set(gateway, listener);
      log.info("listening on {gateway}:{port}", { gateway, port });
    }
    if (this.#thread !== null) open(this.#thread, opened);
    else if (opened.length > 0) this.#start();
    const gone = [...this.#listeners.keys()].filter((gateway) => !wanted.has(gateway));
    await Promise.all(gone.map((gateway) => this.#leave(gateway)));
  }

  /** See {@linkcode GatewayService.drain}. */
  async drain(atOnce?: AbortSignal): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#restart);
    await this.#thread?.end(this.#limits.drainMs, atOnce);
    this.#thread = null;
  }

  /** See {@linkcode GatewayService.stop}. */
  async stop(): Promise<void> {
    await this.drain();
    for (const listener of this.#listeners.values()) listener.close();
    this.#listeners.clear();
  }

  /** How often the thread that serves agents failed and was replaced. */
  get workerFailures(): number {
    return this.#failures;
  }

  /** The thread that serves agents. One that fails is started again. */
  workerHealth(): PartHealth {
    const isServing = this.#thread !== null;
    const failures = this.#failures === 0 ? "" : `, failed ${this.#failures} time(s)`;
    return {
      name: "proxy_worker",
      state: isServing || this.#listeners.size === 0 ? "ok" : "failed",
      detail: `${isServing ? "serving" : "not running"}${failures}`,
    };
  }

  /** State and counters since start-up. */
  status(): ProxyStatus {
    const [first] = this.#listeners.values();
    return {
      running: this.#listeners.size > 0 && !this.#stopped,
      listen_addresses: [...this.#listeners.keys()],
      listen_port: first?.port ?? this.#options.port,
      active_connections: this.#counters.connections,
      tunnels: this.#tunnels,
      requests_total: this.#counters.requests,
      requests_blocked: this.#counters.blocked,
    };
  }

  /**
   * Judges by this policy from now on. Settles when every tunnel and request under way that it would
   * not admit has ended, with how many those were. Never rejects.
   */
  usePolicy(policy: PolicyData): Promise<number> {
    this.#policy = policy;
    return this.#thread?.ask({ kind: "policy", policy }) ?? Promise.resolve(0);
  }

  /**
   * Call when agents came or went: ends every connection whose agent is no longer the one at its
   * address, so that nothing outlives a container or falls to the next one (ADV-NET). Never rejects.
   */
  async reidentify(): Promise<void> {
    await this.#thread?.ask({ kind: "agents" });
  }

  /** Settles when everything that was decided until now is in the decision log. Never rejects. */
  async settle(): Promise<void> {
    await this.#thread?.ask({ kind: "report" });
  }

  async #leave(gateway: string): Promise<void> {
    const listener = this.#listeners.get(gateway);
    if (listener === undefined) return;
    this.#listeners.delete(gateway);
    await this.#thread?.ask({ kind: "close", fd: listener.fd, gateway });
    listener.close();
  }

  /** Starts the thread, which serves every listener that there is. */
  #start(): void {
    clearTimeout(this.#restart);
    this.#counters.connections = 0;
    const thread: ThreadHandle = new ThreadHandle(this.#limits, this.#counters, {
      onMessage: (message) => this.#receive(thread, message),
      onCrash: (why) => this.#crashed(why),
    });
    this.#thread = thread;
    void thread.ask({ kind: "policy", policy: this.#policy });
    open(thread, this.#listeners.values());
  }

  #crashed(why: string): void {
    log.error("the proxy's thread failed, and every connection with it: {why}", { why });
    this.#thread = null;
    this.#failures++;
    this.#counters.connections = 0;
    this.#tunnels = [];
    if (!this.#stopped) this.#restart = setTimeout(() => this.#startAgain(), RESTART_MS);
  }

  #startAgain(): void {
    try {
      this.#start();
    } catch (thrown) {
      this.#crashed(messageOf(thrown));
    }
  }

  #receive(
    thread: ThreadHandle,
    message: Exclude<FromThread, { readonly kind: "done" | "failed" }>,
  ): void {
    switch (message.kind) {
      case "identify":
        void this.#identify(message.address).then((agent) =>
          thread.tell({ kind: "identified", question: message.question, agent })
        );
        return;
      case "locate":
        void this.#locate(message.host, message.agent).then((located) =>
          thread.tell({ kind: "located", question: message.question, located })
        );
        return;
      case "report":
        return this.#takeIn(message.report);
      case "log":
        return logRemote(message.record);
    }
  }

  #takeIn({ journal, dials, failures, tunnels }: Report): void {
    const log = this.#options.decisions;
    const { decisions, growths } = readJournal(journal);
    for (const decision of decisions) log.add(decision);
    for (const { decision, changes } of growths) log.update(decision, changes);
    for (const { durationMs, isConnected } of dials) {
      this.#options.onDial?.(durationMs, isConnected);
    }
    if (failures.length > 0) this.#options.onFailures(failures);
    this.#tunnels = tunnels;
  }

  /** Never rejects: who cannot be identified is nobody. */
  async #identify(source: string): Promise<Agent | null> {
    try {
      return await this.#options.agents.identify(source);
    } catch (thrown) {
      log.error("{source} could not be identified: {error}", { source, error: messageOf(thrown) });
      return null;
    }
  }

  /** Never rejects. */
  async #locate(text: string, agent: Agent): Promise<Located> {
    try {
      const host = parseHost(text);
      if (host === null) throw new TypeError("not a host");
      const found = host instanceof Ip ? [host] : await this.#resolve(host, agent);
      if ("kind" in found) return found;
      const { isLocalAddress } = this.#options;
      const addresses = found.map((ip) => ({ address: ip.text, isLocal: isLocalAddress(ip) }));
      return { kind: "found", addresses };
    } catch (thrown) {
      return { kind: "defect", message: messageOf(thrown) };
    }
  }

  async #resolve(hostname: Hostname, agent: Agent): Promise<readonly Ip[] | Located> {
    try {
      return await this.#options.resolve(hostname, agent);
    } catch (thrown) {
      const message = messageOf(thrown);
      return thrown instanceof LookupError
        ? { kind: "failed", failure: thrown.failure, message, refusal: thrown.refusal }
        : { kind: "failed", failure: "upstream_failed", message, refusal: null };
    }
  }
}

function open(thread: ThreadHandle, listeners: Iterable<ListeningSocket>): void {
  for (const { address, fd } of listeners) thread.tell({ kind: "open", fd, gateway: address });
}
