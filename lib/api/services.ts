/**
 * What the host API needs from the rest of the daemon, and the shapes it sends.
 *
 * The JSON on the wire has exactly these fields, at the top level beside `ok` (decision D1);
 * lists stand under a plural name. Sizes are bytes, times ISO 8601 in UTC, durations seconds
 * unless a name says otherwise.
 */
import type { Decision, Reason } from "../decision.ts";
import type { PartHealth } from "../health.ts";
import type { Hostname } from "../net/host.ts";
import type { DecisionExplanation } from "../record/explain.ts";
import type { DecisionFilter, DecisionList, DecisionQuery } from "../record/filter.ts";
import type { Subscription } from "../record/streams.ts";
import type { DecisionStats, StatsQuery } from "../record/table.ts";
import type { Suggestion, SuggestionRequest } from "../record/suggest.ts";
import type { RuleCounter } from "../rules/counters.ts";
import type { PolicyDiff, RuleChanges, TestDiff } from "../rules/diff.ts";
import type { Explanation } from "../rules/explain.ts";
import type { RuleFile } from "../rules/read.ts";
import type { RequestSpec } from "../rules/request.ts";
import type { Facts, Layer, RuleRef, Verdict } from "../rules/types.ts";
import type { GrantService } from "./grants.ts";
import type { ObservationService } from "./observe.ts";
import type { RuleRequestService } from "./requests.ts";
import type { StatusService } from "./status.ts";

/** State of the default bridge, checked afresh on every call. */
export interface BridgeStatus {
  readonly name: string;
  /** The interface exists and its link is up. */
  readonly up: boolean;
  /** Kernel interface index; null when there is no such interface. */
  readonly index: number | null;
  /** Whether the tables of the firewall are in the kernel as we last rendered them. */
  readonly nftables: "active" | "inactive";
  /** Present once something else on the host has interfered: what was wrong, and put right when. */
  readonly last_repair?: { readonly at: string; readonly wrong: readonly string[] } | undefined;
}

/** Bridge and firewall. */
export interface BridgeService {
  status(): Promise<BridgeStatus>;
  /** Creates or adopts what is missing and applies the table; idempotent. */
  up(): Promise<void>;
  /** Tears down table and bridges; refused while containers are attached. */
  down(): Promise<void>;
}

/** One rule in evaluation order. */
export interface RuleSummary {
  readonly id: string;
  readonly file: string;
  readonly line: number;
  readonly action: "allow" | "block";
  readonly priority: number;
  /** The condition with definitions expanded. */
  readonly condition: string;
  readonly description: string | null;
}

/** One rule in full, with what it did since it was loaded as it is. */
export interface RuleDetail extends RuleSummary, RuleCounter {
  /** A match is logged. */
  readonly log: boolean;
  /** Null for block rules. */
  readonly egress: {
    readonly mode: "proxy" | "direct_ip";
    /** Null: 443 for tunnels, any port but those of other services for plain HTTP. */
    readonly ports: readonly number[] | null;
    readonly allow_private_ips: boolean;
    readonly tls: "sni" | "any";
    /** Of plain requests. */
    readonly max_body_bytes: number;
  } | null;
}

/** What a candidate set would change. */
export interface PolicyDiffResult {
  readonly rules: RuleChanges;
  readonly decisions: PolicyDiff;
  /** Over the policy tests of both sets. */
  readonly tests: TestDiff;
}

/** What a successful reload did. */
export interface ReloadResult {
  readonly files_loaded: number;
  readonly rules_loaded: number;
  readonly generation: number;
  readonly warnings: readonly string[];
}

/** The active policy. */
export interface PolicyService {
  list(): readonly RuleSummary[];
  find(id: string): RuleDetail | undefined;
  /** In evaluation order. */
  counters(): readonly RuleCounter[];
  /** Validates the whole directory and swaps; throws `rules.invalid` (422) and keeps the old set. */
  reload(): Promise<ReloadResult>;
  /** A dry run: decides, records nothing. */
  evaluate(layer: Layer, facts: Facts): Verdict;
  /** What the rules say to a hypothetical request, layer by layer. */
  explain(request: RequestSpec): Explanation;
  /** Why a recorded decision came out as it did; `recorded` is what else was attempted. */
  explainDecision(decision: Decision, recorded: Iterable<Decision>): DecisionExplanation;
  /** Rules for what an agent was seen to do; throws `suggest.nothing` (404). */
  suggest(recorded: Iterable<Decision>, request: SuggestionRequest): Suggestion;
  /** What would change with these rule files; throws `rules.invalid` (422) when they cannot be loaded. */
  diff(files: readonly RuleFile[], recorded: Iterable<Decision>): PolicyDiffResult;
}

/** State and counters of the DNS filter. */
export interface DnsStatus {
  readonly running: boolean;
  /** Gateways served, dotted decimal. */
  readonly listen_addresses: readonly string[];
  readonly listen_port: number;
  /** `IP:port`, in the order they are asked. */
  readonly upstreams: readonly string[];
  readonly cache_entries: number;
  readonly queries_total: number;
  readonly queries_allowed: number;
  readonly queries_blocked: number;
}

/** Counters of the DNS cache since start-up. */
export interface DnsCacheStats {
  readonly entries: number;
  readonly max_entries: number;
  readonly hits: number;
  readonly misses: number;
  readonly evictions: number;
}

/** One cached answer. */
export interface DnsCacheEntry {
  readonly hostname: string;
  readonly record_type: string;
  readonly ttl_remaining_secs: number;
  /** Kept for those who ask with DNSSEC records; absent: for the others. */
  readonly dnssec?: true;
}

/** A query that nobody sends. */
export interface DnsQuestion {
  readonly hostname: Hostname;
  /** Number of the record type (RFC 1035 §3.2.2). */
  readonly type: number;
  /** As rules compare it (`agent.name`); empty: a container that Docker does not know. */
  readonly agentName: string;
}

/** What it would get at this moment. */
export interface DnsRehearsal {
  readonly verdict: Decision["verdict"];
  readonly reason: Reason;
  readonly rule: RuleRef | null;
  /** Response code of the reply, such as `NXDOMAIN`; null: whatever an upstream says, to be asked. */
  readonly rcode: string | null;
  /** The answer is in the cache. */
  readonly cached: boolean;
  /** Whether the rules let records of this type pass; otherwise an allowed name has none. */
  readonly typePasses: boolean;
  /** Where agents of this name are, dotted decimal; without any it was judged by the name alone. */
  readonly addresses: readonly string[];
}

/** The DNS filter. */
export interface DnsService {
  status(): DnsStatus;
  /**
   * What a query would get, limits of this moment included. Asks no upstream, and neither counts nor
   * records anything. Of several agents of one name it tells what the one gets that is refused.
   */
  rehearse(question: DnsQuestion): Promise<DnsRehearsal>;
  cacheStats(): DnsCacheStats;
  cacheEntries(): readonly DnsCacheEntry[];
  /** Forgets every cached answer; returns how many there were. */
  flush(): number;
}

/** Live tunnels of one agent, WebSockets included. */
export interface AgentTunnels {
  /** Empty for an agent that Docker does not know. */
  readonly agent: string;
  /** The agent's address. */
  readonly address: string;
  readonly count: number;
}

/** State and counters of the proxy. */
export interface ProxyStatus {
  readonly running: boolean;
  readonly listen_addresses: readonly string[];
  readonly listen_port: number;
  readonly active_connections: number;
  /** One entry for each agent that has any. */
  readonly tunnels: readonly AgentTunnels[];
  readonly requests_total: number;
  readonly requests_blocked: number;
}

/** The HTTP(S) proxy. */
export interface ProxyService {
  status(): ProxyStatus;
}

/** One managed network. */
export interface NetworkStatus {
  readonly exists: boolean;
  readonly network_id: string | null;
  readonly name: string;
  readonly bridge: string | null;
  readonly subnet: string | null;
  readonly gateway: string | null;
  readonly containers: readonly { readonly name: string; readonly ipv4_address: string }[];
}

/** Asks for a network; `name` is the suffix after `outcall-`, absent for the default network. */
export interface NetworkCreateRequest {
  readonly name?: string | undefined;
  readonly subnet?: string | undefined;
  readonly gateway?: string | undefined;
}

/** What became of a create request. */
export interface NetworkCreateResult {
  readonly network_id: string;
  readonly name: string;
  readonly subnet: string;
  readonly gateway: string;
  /** False: it existed already, and is ours. */
  readonly created: boolean;
}

/** Managed Docker networks. */
export interface NetworkService {
  create(request: NetworkCreateRequest): Promise<NetworkCreateResult>;
  status(name?: string): Promise<NetworkStatus>;
  list(): Promise<readonly NetworkStatus[]>;
  destroy(name?: string): Promise<{ readonly name: string; readonly destroyed: boolean }>;
  /** The block that subnets are taken from, in CIDR form. */
  readonly subnetBlock: string;
}

/** Asks for a hardened agent container. */
export interface ContainerCreateRequest {
  readonly image: string;
  /** Suffix or full name of a managed network; absent for the default network. */
  readonly network?: string | undefined;
  readonly name?: string | undefined;
  /** Numeric `UID:GID`, both non-zero. */
  readonly user?: string | undefined;
  readonly memory_limit?: number | undefined;
  readonly cpu_shares?: number | undefined;
  readonly env?: readonly string[] | undefined;
  readonly cmd?: readonly string[] | undefined;
  readonly entrypoint?: readonly string[] | undefined;
  readonly working_dir?: string | undefined;
  readonly volumes?: readonly string[] | undefined;
  /** Mount the agent socket's directory and the shim. */
  readonly include_outcall_helper_mounts?: boolean | undefined;
  readonly interactive?: boolean | undefined;
  readonly tty?: boolean | undefined;
  /** Observe it for so long from its first packet on; absent: not at all. */
  readonly observe_secs?: number | undefined;
}

/** What became of a request for a container. */
export interface ContainerCreateResult {
  readonly container_id: string;
  readonly name: string;
  readonly created: boolean;
  /** What the operator should know, such as other containers that are the same agent to rules. */
  readonly warnings: readonly string[];
}

/** One agent container as listed. */
export interface ContainerInfo {
  readonly container_id: string;
  readonly name: string;
  readonly image: string;
  readonly state: string;
  readonly network: string;
  readonly created_at: string;
}

/** One agent container in full; values of environment variables never leave the daemon. */
export interface ContainerDetail extends ContainerInfo {
  readonly ip_address: string | null;
  readonly mounts: readonly string[];
  /** `NAME=<redacted>` */
  readonly env: readonly string[];
}

/** Agent containers made by the daemon. */
export interface ContainerService {
  create(request: ContainerCreateRequest): Promise<ContainerCreateResult>;
  list(): Promise<readonly ContainerInfo[]>;
  inspect(name: string): Promise<ContainerDetail>;
  stop(
    name: string,
    timeoutSecs: number,
  ): Promise<{ readonly name: string; readonly stopped: boolean }>;
  remove(
    name: string,
    force: boolean,
  ): Promise<{ readonly name: string; readonly removed: boolean }>;
  pull(
    image: string,
    onProgress: (progress: PullProgress) => void,
  ): Promise<{ readonly image: string; readonly pulled: boolean }>;
}

/** How far a pull has come. */
export interface PullProgress {
  /** What Docker said last, for people. */
  readonly text: string;
  /** Layers known so far, and those of them that are here. */
  readonly layers: number;
  readonly layers_done: number;
  /** Downloaded so far, and in all layers whose size is known; 0 while none is. */
  readonly bytes: number;
  readonly bytes_total: number;
}

/** Asks for a cable to the caller's own network namespace. */
export interface AgentAttachRequest {
  /** What it is called, as a container would be; absent: an agent without a name. */
  readonly name?: string | undefined;
  /** Suffix or full name of a managed network; absent for the default network. */
  readonly network?: string | undefined;
}

/** A cable that was laid, and what the caller must set up at its own end before it may join. */
export interface AgentAttachment {
  /** The host's end. */
  readonly port: string;
  /** The caller's end. */
  readonly interface: string;
  /** Dotted decimal. */
  readonly address: string;
  readonly prefix_length: number;
  /** Default route, resolver and proxy. */
  readonly gateway: string;
  /** Null: there is no proxy. */
  readonly proxy_port: number | null;
  /** Where each daemon puts its agent socket; to be shown at /run/outcall. */
  readonly agent_socket_folder: string;
  /** Where `outcall-agent` should be. */
  readonly shim: string;
}

/** Asks to plug a cable in. */
export interface AgentJoinRequest {
  readonly port: string;
  /** Observe it for so long from its first packet on; absent: not at all. */
  readonly observe_secs?: number | undefined;
}

/** Agents in network namespaces of this host, without Docker. */
export interface NamespaceAgentService {
  /** @param pid The calling process, on the kernel's word. */
  attach(request: AgentAttachRequest, pid: number): Promise<AgentAttachment>;
  join(request: AgentJoinRequest): Promise<{ readonly port: string; readonly joined: true }>;
}

/** Decisions, newest last. */
export interface DecisionService {
  /** Sequence of the newest change. */
  readonly sequence: number;
  /** Those in memory. */
  recent(limit?: number): readonly Decision[];
  /** One in memory or in the history; throws `history.unavailable` (503). */
  find(id: string): Promise<Decision | undefined>;
  /** The newest that suit, from memory and history. */
  query(query: DecisionQuery): Promise<DecisionList>;
  /** Counts over the history; throws `history.unavailable` (503). */
  stats(query: StatsQuery): Promise<DecisionStats>;
  /** Decisions as they are made, and those after a sequence; throws `events.too_many` (429). */
  subscribe(filter: DecisionFilter, afterSequence: number | null): Subscription;
}

/** The daemon's numbers, for Prometheus. */
export interface MetricsService {
  readonly contentType: string;
  text(): Promise<string>;
}

/** Everything the host API serves. */
export interface HostServices {
  readonly version: string;
  readonly bridge: BridgeService;
  readonly policy: PolicyService;
  readonly grants: GrantService;
  readonly dns: DnsService;
  readonly proxy: ProxyService;
  readonly networks: NetworkService;
  readonly containers: ContainerService;
  readonly namespaceAgents: NamespaceAgentService;
  readonly observations: ObservationService;
  readonly decisions: DecisionService;
  readonly requests: RuleRequestService;
  readonly metrics: MetricsService;
  readonly status: StatusService;
  /** Liveness and readiness, part by part. */
  health(): Promise<readonly PartHealth[]>;
}
