/**
 * What the daemon does, in numbers, as Prometheus reads them (text format 0.0.4). Numbers that a part
 * keeps for itself are asked for when somebody reads them; nothing runs for them otherwise.
 *
 * No label holds what an agent chooses: names of hosts or agents would be series without end.
 */
import { Counter, Gauge, type Registry } from "prom-client";
import type { DnsCacheStats, DnsStatus, ProxyStatus } from "../api/services.ts";
import type { PolicyLoads } from "../api/status.ts";
import type { FirewallCounter } from "../bridge/drops/counters.ts";
import type { DropStats } from "../bridge/drops/reader.ts";
import { messageOf } from "../errors.ts";
import type { PartHealth } from "../health.ts";
import { logger } from "../log.ts";
import type { RuleCounter } from "../rules/counters.ts";
import { VERSION } from "../version.ts";
import type { DecisionMetrics } from "./decisions.ts";
import { processMetrics } from "./process.ts";

/** Where the numbers are. Each is asked once for each reading. */
export interface MetricSources {
  readonly dns: () => DnsStatus;
  readonly dnsCache: () => DnsCacheStats;
  readonly proxy: () => ProxyStatus;
  readonly rules: () => readonly RuleCounter[];
  readonly policy: () => PolicyLoads;
  /** Grants in force, operators' and DNS answers' together. */
  readonly grants: () => number;
  /** Agents whose ports are pinned. */
  readonly agents: () => number;
  /** How often bridges, ports or tables had to be put right. */
  readonly repairs: () => number;
  readonly drops: () => DropStats;
  readonly firewall: () => Promise<readonly FirewallCounter[]>;
  readonly history: () => {
    readonly written: number;
    readonly merged: number;
    readonly lost: number;
  };
  readonly streams: () => { readonly readers: number; readonly lost: number };
  /** How often each thread that serves agents failed and was replaced. */
  readonly threadFailures: () => Readonly<Record<"dns" | "proxy", number>>;
  /** Rule requests that wait for an operator. */
  readonly pendingRequests: () => number;
  readonly health: () => Promise<readonly PartHealth[]>;
}

const log = logger("host_api");

/** Rules beyond this number share one series, so that no rules directory can make too many. */
const MAX_RULE_SERIES = 1000;
/** The shared one; no rule can have this id (it has a bracket). */
const OTHER_RULES = "(others)";

const STATES = ["ok", "degraded", "failed"] as const;

/** All metrics of one daemon. */
export class Metrics {
  readonly #registry: Registry;

  /** @param decisions What counts decisions and dials. */
  constructor(decisions: DecisionMetrics, sources: MetricSources) {
    this.#registry = decisions.registry;
    this.#gauge("outcall_build_info", "The running version; always 1.", ["version"], (set) => {
      set({ version: VERSION }, 1);
    });
    this.#dns(sources);
    this.#proxy(sources);
    this.#policy(sources);
    this.#kernel(sources);
    this.#records(sources);
    this.#total(
      "outcall_thread_failures_total",
      "Times that a thread that serves agents failed and was replaced.",
      ["thread"],
      (add) => {
        for (const [thread, failures] of Object.entries(sources.threadFailures())) {
          add({ thread }, failures);
        }
      },
    );
    this.#gauge(
      "outcall_part_state",
      "1 for the state that a part of the daemon is in, 0 for the others.",
      ["part", "state"],
      async (set) => {
        for (const { name, state } of await sources.health()) {
          for (const one of STATES) set({ part: name, state: one }, one === state ? 1 : 0);
        }
      },
    );
    processMetrics(this.#registry);
  }

  /** Media type of {@linkcode text}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All numbers of this moment. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #dns({ dns, dnsCache }: MetricSources): void {
    this.#total("outcall_dns_queries_total", "DNS queries by verdict.", ["verdict"], (add) => {
      const { queries_allowed: allow, queries_blocked: block } = dns();
      add({ verdict: "allow" }, allow);
      add({ verdict: "block" }, block);
    });
    this.#total(
      "outcall_dns_cache_lookups_total",
      "Look-ups in the DNS cache by result.",
      ["result"],
      (add) => {
        const { hits, misses } = dnsCache();
        add({ result: "hit" }, hits);
        add({ result: "miss" }, misses);
      },
    );
    this.#total(
      "outcall_dns_cache_evictions_total",
      "Answers that left the full DNS cache before their time.",
      [],
      (add) => add({}, dnsCache().evictions),
    );
    this.#gauge("outcall_dns_cache_entries", "Answers in the DNS cache.", [], (set) => {
      set({}, dnsCache().entries);
    });
  }

  #proxy({ proxy }: MetricSources): void {
    this.#total(
      "outcall_proxy_requests_total",
      "Requests and tunnels by verdict.",
      ["verdict"],
      (add) => {
        const { requests_total: total, requests_blocked: blocked } = proxy();
        add({ verdict: "allow" }, total - blocked);
        add({ verdict: "block" }, blocked);
      },
    );
    this.#gauge("outcall_proxy_connections", "Agents' connections to the proxy.", [], (set) => {
      set({}, proxy().active_connections);
    });
    this.#gauge("outcall_tunnels", "Live tunnels, WebSockets included.", [], (set) => {
      set({}, proxy().tunnels.reduce((sum, { count }) => sum + count, 0));
    });
  }

  #policy({ policy, rules, grants, pendingRequests }: MetricSources): void {
    this.#gauge("outcall_policy_generation", "Generation of the rules in force.", [], (set) => {
      set({}, policy().generation);
    });
    this.#gauge("outcall_policy_rules", "Rules in force.", [], (set) => set({}, policy().rules));
    this.#gauge(
      "outcall_policy_loaded_timestamp_seconds",
      "When the rules in force were loaded.",
      [],
      (set) => {
        const { loaded_at: at } = policy();
        if (at !== null) set({}, Date.parse(at) / 1000);
      },
    );
    this.#total(
      "outcall_policy_reloads_total",
      "Reloads of the rules by result; a refused one keeps the old set.",
      ["result"],
      (add) => {
        add({ result: "ok" }, policy().reloads);
        add({ result: "refused" }, policy().reloads_refused);
      },
    );
    this.#total(
      "outcall_rule_decisions_total",
      "Decisions by the rule that made them, since it was loaded as it is.",
      ["rule", "action"],
      (add) => eachRule(rules(), ({ id, action, matches }) => add({ rule: id, action }, matches)),
    );
    this.#total(
      "outcall_rule_errors_total",
      "Evaluations of a rule that failed, since it was loaded as it is.",
      ["rule"],
      (add) => eachRule(rules(), ({ id, errors }) => errors > 0 && add({ rule: id }, errors)),
    );
    this.#gauge("outcall_grants", "Grants in force.", [], (set) => set({}, grants()));
    this.#gauge("outcall_requests_pending", "Rule requests that wait for an answer.", [], (set) => {
      set({}, pendingRequests());
    });
  }

  #kernel({ agents, repairs, drops, firewall }: MetricSources): void {
    this.#gauge("outcall_agents", "Agents whose ports are pinned.", [], (set) => {
      set({}, agents());
    });
    this.#total(
      "outcall_repairs_total",
      "Times that bridges, ports or tables had to be put right.",
      [],
      (add) => add({}, repairs()),
    );
    this.#total(
      "outcall_kernel_drops_total",
      "Packets that the firewall dropped, by table and rule; it starts anew when rules are applied.",
      ["table", "rule"],
      async (add) => {
        for (const { table, rule, packets } of await firewall()) add({ table, rule }, packets);
      },
    );
    this.#total(
      "outcall_kernel_log_packets_total",
      "Dropped packets that the kernel reported, by what became of the report.",
      ["result"],
      (add) => {
        const { reported, ignored, lost } = drops();
        add({ result: "recorded" }, reported - ignored);
        add({ result: "ignored" }, ignored);
        add({ result: "lost" }, lost);
      },
    );
    this.#total(
      "outcall_kernel_log_restarts_total",
      "Times that the kernel's log had to be joined anew.",
      [],
      (add) => add({}, drops().restarts),
    );
  }

  #records({ history, streams }: MetricSources): void {
    this.#total(
      "outcall_history_records_total",
      "Versions of decision records by whether the history kept them.",
      ["result"],
      (add) => {
        const { written, merged, lost } = history();
        add({ result: "written" }, written);
        add({ result: "merged" }, merged);
        add({ result: "lost" }, lost);
      },
    );
    this.#total(
      "outcall_stream_events_lost_total",
      "Events that readers of the stream were too slow for.",
      [],
      (add) => add({}, streams().lost),
    );
    this.#gauge("outcall_stream_readers", "Readers of the stream of decisions.", [], (set) => {
      set({}, streams().readers);
    });
  }

  #gauge<const L extends string>(...numbers: Numbers<L>): void {
    this.#read(numbers, (settings) => new Gauge(settings));
  }

  /** A counter that a part of the daemon keeps. */
  #total<const L extends string>(...numbers: Numbers<L>): void {
    this.#read(numbers, (settings) => new Counter(settings));
  }

  /** Has numbers asked for afresh whenever somebody reads them. */
  #read<L extends string>(
    [name, help, labelNames, read]: Numbers<L>,
    make: (settings: MetricSettings<L>) => Series<L>,
  ): void {
    const registers = [this.#registry];
    const collect = async (): Promise<void> => {
      series.reset();
      await tolerant(name, () => read((labels, value) => series.inc(labels, value)));
    };
    const series = make({ name, help, labelNames, registers, collect });
  }
}

/** One part that cannot tell its numbers must not hide those of the others. */
async function tolerant(name: string, read: () => void | Promise<void>): Promise<void> {
  try {
    await read();
  } catch (thrown) {
    log.warn("metric {name} cannot be read: {reason}", { name, reason: messageOf(thrown) });
  }
}

type Labels<L extends string> = Partial<Record<L, string>>;

/** Reads numbers, and tells each to `to`, those of the same labels once. */
type Reading<L extends string> = (
  to: (labels: Labels<L>, value: number) => void,
) => void | Promise<void>;

/** A metric of Prometheus, and where its numbers come from. */
type Numbers<L extends string> = [
  name: string,
  help: string,
  labelNames: readonly L[],
  read: Reading<L>,
];

/** What gauges and counters are made with. */
interface MetricSettings<L extends string> {
  name: string;
  help: string;
  labelNames: readonly L[];
  registers: Registry[];
  collect: () => Promise<void>;
}

/** What gauges and counters have in common: after a reset, adding to nothing sets. */
interface Series<L extends string> {
  reset(): void;
  inc(labels: Labels<L>, value: number): void;
}

function eachRule(rules: readonly RuleCounter[], tell: (rule: RuleCounter) => void): void {
  for (const rule of rules.slice(0, MAX_RULE_SERIES)) tell(rule);
  const others = rules.slice(MAX_RULE_SERIES);
  for (const action of ["allow", "block"] as const) {
    const same = others.filter((rule) => rule.action === action);
    const [first] = same;
    if (first === undefined) continue;
    const sum = (count: (rule: RuleCounter) => number): number =>
      same.reduce((total, rule) => total + count(rule), 0);
    tell({
      ...first,
      id: OTHER_RULES,
      matches: sum(({ matches }) => matches),
      errors: sum(({ errors }) => errors),
    });
  }
}
