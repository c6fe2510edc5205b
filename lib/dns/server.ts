/** The DNS filter as a subsystem: sockets on every gateway, status, and the proxy's resolver. */
import type { Agent, AgentDirectory } from "../agents.ts";
import type {
  DnsCacheEntry,
  DnsCacheStats,
  DnsQuestion,
  DnsRehearsal,
  DnsService,
  DnsStatus,
} from "../api/services.ts";
import type { GatewayService } from "../bridge/segment.ts";
import type { DecisionLog } from "../decision.ts";
import { messageOf, OutcallError } from "../errors.ts";
import type { PartHealth } from "../health.ts";
import { SystemError } from "../linux/libc.ts";
import { portOwner } from "../linux/port_owner.ts";
import { logger } from "../log.ts";
import type { Hostname } from "../net/host.ts";
import type { Ip } from "../net/ip.ts";
import { endAfter } from "../patience.ts";
import type { Judge } from "../policy.ts";
import type { Rate } from "../rate.ts";
import type { PolicyData } from "../rules/policy.ts";
import { DnsCache } from "./cache.ts";
import { DnsFilter, type FilterCounters } from "./filter.ts";
import { LookupLimits } from "./limits.ts";
import type { Listener } from "./listener.ts";
import { lookupAddresses } from "./lookup.ts";
import type { AddressOpener } from "./opener.ts";
import { Admission, QueryBuckets } from "./rate.ts";
import { rehearse } from "./rehearsal.ts";
import { type AnswerSource, Resolver } from "./resolver.ts";
import { listenTcp } from "./tcp.ts";
import { UdpServer } from "./udp.ts";
import { UpstreamClient } from "./upstream.ts";
import { type Upstream, upstreamText } from "./upstreams.ts";
import type { Activity } from "./worker/protocol.ts";

const log = logger("dns");

/** S007-FR-005 */
const DRAIN_MS = 5000;

/** What the DNS filter is made of. */
export interface DnsServerOptions {
  /** Null: every gateway it is told to serve. Otherwise just this IPv4 address (decision D6). */
  readonly address: string | null;
  /** For UDP and TCP. */
  readonly port: number;
  /** At least one; asked in this order. */
  readonly upstreams: readonly Upstream[];
  /** Time limit of one upstream, in milliseconds. */
  readonly upstreamTimeoutMs?: number;
  /** Queries each source may send. */
  readonly queryRate: Rate;
  readonly agents: AgentDirectory;
  readonly judge: Judge;
  /** The same for dry runs: it counts nothing. */
  readonly evaluate: Judge;
  /** Where agents are attached now, dotted decimal. */
  readonly agentAddresses: () => readonly string[];
  /** Of the policy in force. */
  readonly generation: () => number;
  readonly decisions: DecisionLog;
  readonly opener: AddressOpener;
}

type Transport = "udp" | "tcp";

function isSystemError(thrown: unknown, code: string): boolean {
  return thrown instanceof SystemError && thrown.code === code;
}

function bindError(transport: Transport, address: string, port: number, thrown: unknown): Error {
  const where = `${address}:${port}/${transport}`;
  if (thrown instanceof Deno.errors.AddrInUse || isSystemError(thrown, "EADDRINUSE")) {
    const owner = portOwner(transport, address, port);
    const by = owner === null ? "" : ` by ${owner.command} (pid ${owner.pid})`;
    return new OutcallError(
      503,
      "dns.bind",
      `DNS filter cannot listen on ${where}: the address is in use${by}`,
      {
        hint: "Stop the service that owns the port, such as with " +
          "`systemctl disable --now systemd-resolved`, or choose another with --dns-port.",
        cause: thrown,
      },
    );
  }
  const isDenied = thrown instanceof Deno.errors.PermissionDenied ||
    isSystemError(thrown, "EACCES");
  const hint = isDenied
    ? "Run outcalld as root, or give it CAP_NET_BIND_SERVICE."
    : "Check that --dns-listen names an address of this host.";
  return new OutcallError(
    503,
    "dns.bind",
    `DNS filter cannot listen on ${where}: ${messageOf(thrown)}`,
    { hint, cause: thrown },
  );
}

/** The DNS filter: {@linkcode DnsFilter} with its cache and upstreams, on sockets. */
export class DnsServer implements GatewayService, DnsService {
  readonly #options: DnsServerOptions;
  readonly #cache = new DnsCache();
  readonly #upstream: UpstreamClient;
  readonly #resolver: Resolver;
  readonly #limits = new LookupLimits();
  readonly #filter: DnsFilter;
  readonly #admission: Admission;
  readonly #udp: UdpServer;
  /** What the UDP worker decided. */
  readonly #byWorker = { allowed: 0, blocked: 0 };
  readonly #listeners = new Map<string, readonly Listener[]>();
  #drained: Promise<void> | null = null;

  constructor(options: DnsServerOptions) {
    const { agents, judge, decisions, queryRate, opener } = options;
    this.#options = options;
    this.#upstream = new UpstreamClient(options.upstreams, options.upstreamTimeoutMs);
    this.#resolver = new Resolver(this.#cache, this.#upstream);
    this.#udp = new UdpServer({
      rate: queryRate,
      agents,
      handler: { handle: (packet, source) => this.#filter.handle(packet, source) },
      onActivity: (activity) => this.#takeIn(activity),
    });
    this.#filter = new DnsFilter({
      agents: this.#udp.agents,
      judge,
      generation: options.generation,
      decisions,
      resolver: this.#sharing(),
      limits: this.#limits,
      opener,
    });
    this.#admission = new Admission(this.#filter, new QueryBuckets(queryRate));
  }

  /** The resolver; what it answers becomes known to the UDP worker, too. */
  #sharing(): AnswerSource {
    return {
      cached: (question, dnssecOk) => {
        const resolution = this.#resolver.cached(question, dnssecOk);
        if (resolution !== null) this.#udp.remember(question, dnssecOk, resolution);
        return resolution;
      },
      ask: async (question, dnssecOk) => {
        const resolution = await this.#resolver.ask(question, dnssecOk);
        this.#udp.remember(question, dnssecOk, resolution);
        return resolution;
      },
    };
  }

  #takeIn({ decisions, dropped, hits }: Activity): void {
    let cached = 0;
    this.#byWorker.blocked += dropped;
    for (const decision of decisions) {
      const { count = 1, verdict, upstreamMs } = decision;
      if (verdict === "allow") this.#byWorker.allowed += count;
      else this.#byWorker.blocked += count;
      if (upstreamMs === null) cached += count;
      this.#options.decisions.add(decision);
    }
    this.#cache.credit(hits, cached);
  }

  /** Settles when everything that was decided until now is in the decision log. Never rejects. */
  settle(): Promise<void> {
    return this.#udp.settle();
  }

  /**
   * The rules were reloaded: forgets every cached answer, and settles when no packet is judged by
   * the old rules any more. The next packet from now on is judged by the new ones already.
   */
  async usePolicy(policy: PolicyData): Promise<void> {
    const judging = this.#udp.usePolicy(policy);
    this.flush();
    await judging;
  }

  /** Who is at which address has changed. */
  forgetAgents(): void {
    this.#udp.forget("agents");
  }

  /**
   * See {@linkcode GatewayService.serve}.
   * @throws OutcallError `dns.bind` naming address, port and, where it can be found, their owner.
   */
  async serve(gateways: readonly string[]): Promise<void> {
    const { address, port } = this.#options;
    const wanted = new Set(address === null ? gateways : [address]);
    const opened = new Map<string, readonly Listener[]>();
    try {
      for (const gateway of wanted) {
        if (!this.#listeners.has(gateway)) opened.set(gateway, await this.#listen(gateway));
      }
    } catch (thrown) {
      await closeAll(opened.values());
      throw thrown;
    }
    for (const [gateway, listeners] of opened) {
      this.#listeners.set(gateway, listeners);
      log.info("listening on {address}:{port}", { address: gateway, port });
    }
    const gone = [...this.#listeners].filter(([gateway]) => !wanted.has(gateway));
    for (const [gateway] of gone) {
      this.#listeners.delete(gateway);
      log.info("no longer listening on {address}:{port}", { address: gateway, port });
    }
    await closeAll(gone.map(([, listeners]) => listeners));
  }

  /** Binds both transports, or neither. */
  async #listen(address: string): Promise<readonly Listener[]> {
    const { port } = this.#options;
    const opened: Listener[] = [];
    let transport: Transport = "udp";
    try {
      opened.push(this.#udp.listen(address, port));
      transport = "tcp";
      opened.push(listenTcp(this.#admission, address, port));
      return opened;
    } catch (thrown) {
      const error = bindError(transport, address, port, thrown);
      log.error("{error}", { error: error.message });
      await closeAll([opened]);
      throw error;
    }
  }

  /** See {@linkcode GatewayService.drain}; queries in flight have 5 s (S007-EC-012). */
  drain(atOnce?: AbortSignal): Promise<void> {
    return this.#drained ??= this.#drain(atOnce);
  }

  async #drain(atOnce: AbortSignal | undefined): Promise<void> {
    const listeners = [...this.#listeners.values()].flat();
    const { promise: limit, resolve } = Promise.withResolvers<void>();
    const stopWaiting = endAfter(DRAIN_MS, atOnce, resolve);
    await Promise.race([limit, Promise.allSettled(listeners.map((listener) => listener.drain()))]);
    stopWaiting();
  }

  /** See {@linkcode GatewayService.stop}. Agents resolve nothing until the filter is back. */
  async stop(): Promise<void> {
    await this.drain();
    this.#upstream.close();
    await this.#udp.stop();
    await closeAll(this.#listeners.values());
    this.#listeners.clear();
    log.info("stopped");
  }

  /**
   * The IPv4 addresses of a name that the caller has judged, restricted ones included: each address
   * is to be judged before it is dialled.
   * @throws LookupError
   */
  resolveFor(agent: Agent, hostname: Hostname): Promise<readonly Ip[]> {
    const { judge } = this.#options;
    const parts = { judge, resolver: this.#resolver, limits: this.#limits };
    return lookupAddresses(parts, agent, hostname);
  }

  /** How often the thread that answers by UDP failed and was replaced. */
  get workerFailures(): number {
    return this.#udp.restarts;
  }

  /** The thread that answers by UDP. */
  workerHealth(): PartHealth {
    const { isServing, restarts } = this.#udp;
    const failures = restarts === 0 ? "" : `, failed ${restarts} time(s)`;
    return {
      name: "dns_worker",
      state: isServing || this.#listeners.size === 0 ? "ok" : "failed",
      detail: `${isServing ? "answering by UDP" : "not running"}${failures}`,
    };
  }

  status(): DnsStatus {
    const { total, allowed, blocked } = this.#counters();
    return {
      running: this.#listeners.size > 0 && this.#udp.isServing,
      listen_addresses: [...this.#listeners.keys()],
      listen_port: this.#options.port,
      upstreams: this.#options.upstreams.map(upstreamText),
      cache_entries: this.#cache.stats().entries,
      queries_total: total,
      queries_allowed: allowed,
      queries_blocked: blocked,
    };
  }

  #counters(): FilterCounters {
    const { allowed, blocked } = this.#byWorker;
    const here = this.#filter.counters();
    return {
      total: here.total + allowed + blocked,
      allowed: here.allowed + allowed,
      blocked: here.blocked + blocked,
    };
  }

  rehearse(question: DnsQuestion): Promise<DnsRehearsal> {
    return rehearse(question, { ...this.#options, cache: this.#cache, limits: this.#limits });
  }

  cacheStats(): DnsCacheStats {
    return this.#cache.stats();
  }

  cacheEntries(): readonly DnsCacheEntry[] {
    return this.#cache.entries();
  }

  flush(): number {
    const count = this.#cache.flush();
    this.#udp.forget("answers");
    log.info("cache flushed, {count} entries", { count });
    return count;
  }
}

async function closeAll(listeners: Iterable<readonly Listener[]>): Promise<void> {
  const all = [...listeners].flat();
  await Promise.allSettled(all.map((listener) => listener.close()));
}
