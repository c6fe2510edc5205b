/**
 * What the host API answers, as the client checks it. Not strict: a newer daemon may say more than
 * an older client reads. Every reply also carries `ok` (lib/api/envelope.ts).
 */
import { z } from "zod";
import { REASONS } from "../decision.ts";
import type { RuleCounter } from "../rules/counters.ts";
import type { RuleChanges } from "../rules/diff.ts";
import type { Clause, ExplainedRule } from "../rules/explain.ts";
import type { ExpressionResult } from "../rules/expression.ts";
import { type Layer, LAYERS, type VerdictReason } from "../rules/types.ts";
import type {
  AgentAttachment,
  BridgeStatus,
  ContainerCreateResult,
  ContainerDetail,
  ContainerInfo,
  DnsCacheEntry,
  DnsCacheStats,
  DnsRehearsal,
  DnsStatus,
  NetworkCreateResult,
  NetworkStatus,
  ProxyStatus,
  ReloadResult,
  RuleDetail,
  RuleSummary,
} from "./services.ts";

const strings = z.array(z.string()).readonly();
const count = z.int().min(0);

/** Bridge status. */
export const bridgeStatus = z.object({
  name: z.string(),
  up: z.boolean(),
  index: z.int().nullable(),
  nftables: z.enum(["active", "inactive"]),
  last_repair: z.object({ at: z.string(), wrong: strings }).optional(),
}) satisfies z.ZodType<BridgeStatus>;

/** Success of an action that has nothing to add. */
export const done = z.object({});

const ruleSummary = z.object({
  id: z.string(),
  file: z.string(),
  line: z.int(),
  action: z.enum(["allow", "block"]),
  priority: z.int(),
  condition: z.string(),
  description: z.string().nullable(),
}) satisfies z.ZodType<RuleSummary>;

/** Rules in evaluation order. */
export const ruleList = z.object({ rules: z.array(ruleSummary) });

const ruleCounter = z.object({
  id: z.string(),
  file: z.string(),
  line: z.int(),
  action: z.enum(["allow", "block"]),
  matches: count,
  blocks: count,
  errors: count,
  last_matched: z.string().nullable(),
}) satisfies z.ZodType<RuleCounter>;

/** Counters of the rules in evaluation order. */
export const ruleCounters = z.object({ rules: z.array(ruleCounter) });

/** One rule in full. */
export const ruleDetail = z.object({
  ...ruleSummary.shape,
  ...ruleCounter.shape,
  log: z.boolean(),
  egress: z.object({
    mode: z.enum(["proxy", "direct_ip"]),
    ports: z.array(z.int()).nullable(),
    allow_private_ips: z.boolean(),
    tls: z.enum(["sni", "any"]),
    max_body_bytes: z.int(),
  }).nullable(),
}) satisfies z.ZodType<RuleDetail>;

/** What a reload did. */
export const reloadResult = z.object({
  files_loaded: count,
  rules_loaded: count,
  generation: z.int(),
  warnings: strings,
}) satisfies z.ZodType<ReloadResult>;

/** A dry run of the policy: decides, records nothing. */
export interface EvaluateResult {
  readonly decision: "allow" | "block";
  readonly reason: VerdictReason;
  /** Id of the rule that decided; null for the default policy. */
  readonly matched_rule: string | null;
  /** File and line of that rule. */
  readonly file: string | null;
  readonly line: number | null;
}

const decision = z.enum(["allow", "block"]);
const reason = z.enum(["rule", "rule_error", "port", "proxy_only", "limit", "default", "observed"]);
const layer = z.enum(LAYERS);

/** A dry run. */
export const evaluateResult = z.object({
  decision,
  reason,
  matched_rule: z.string().nullable(),
  file: z.string().nullable(),
  line: z.int().nullable(),
}) satisfies z.ZodType<EvaluateResult>;

/** What a condition came to on given facts. */
export interface ExpressionReply extends Pick<ExpressionResult, "result" | "error" | "outcome"> {
  /** Facts that an unknown condition reads and that are not given. */
  readonly missing: readonly string[];
  /** The mistake in a wrong condition, several lines. */
  readonly report: string | null;
}

/** What a condition came to. */
export const expressionReply = z.object({
  result: z.boolean(),
  error: z.string().nullable(),
  outcome: z.enum(["true", "false", "unknown", "error"]),
  missing: strings,
  report: z.string().nullable(),
}) satisfies z.ZodType<ExpressionReply>;

const clause = z.object({
  text: z.string(),
  line: z.int(),
  column: z.int(),
  truth: z.enum(["true", "false", "error", "pending", "never"]),
  facts: z.record(z.string(), z.unknown()),
}) satisfies z.ZodType<Clause>;

const explainedRule = z.object({
  id: z.string(),
  file: z.string(),
  line: z.int(),
  action: decision,
  condition: z.string(),
  truth: clause.shape.truth,
  clauses: z.array(clause),
}) satisfies z.ZodType<ExplainedRule>;

/** What one layer says to a hypothetical request. */
export interface ExplainStep {
  readonly layer: Layer;
  readonly decision: "allow" | "block";
  readonly reason: VerdictReason;
  /** What the layer knows, as conditions name it. */
  readonly facts: object;
  /** Why the deciding rule cannot be evaluated; null when it can. */
  readonly error: string | null;
  /** The rule that decided. */
  readonly rule: ExplainedRule | null;
  /** Without a rule that decided: the allow rule that came nearest, and the clause in its way. */
  readonly nearest: { readonly rule: ExplainedRule; readonly failed: Clause | null } | null;
}

/** What the layers say to a hypothetical request, up to the first that blocks. */
export interface ExplainResult {
  /** In words, such as `GET https://x.org/ by worker`. */
  readonly request: string;
  readonly decision: "allow" | "block";
  readonly steps: readonly ExplainStep[];
}

/** What one layer says. */
export const explainStep = z.object({
  layer,
  decision,
  reason,
  facts: z.looseObject({}),
  error: z.string().nullable(),
  rule: explainedRule.nullable(),
  nearest: z.object({ rule: explainedRule, failed: clause.nullable() }).nullable(),
}) satisfies z.ZodType<ExplainStep>;

/** The answer to `rules explain`. */
export const explainResult = z.object({
  request: z.string(),
  decision,
  steps: z.array(explainStep),
}) satisfies z.ZodType<ExplainResult>;

/** What a set of rules says to a policy test's request. */
export interface TestOutcome {
  readonly decision: "allow" | "block";
  /** The layer that decided. */
  readonly layer: Layer | null;
  readonly matched_rule: string | null;
}

/** What a candidate set would change. */
export interface DiffResult {
  readonly rules: RuleChanges;
  readonly decisions: {
    /** Recorded decisions that could be judged again. */
    readonly examined: number;
    /** Most frequent first. */
    readonly flips: readonly {
      readonly layer: Layer;
      /** Empty for an agent that Docker does not know. */
      readonly agent: string;
      readonly host: string | null;
      readonly address: string | null;
      readonly port: number | null;
      readonly method: string | null;
      readonly path: string | null;
      readonly record_type: string | null;
      /** How many of the recorded decisions are this one. */
      readonly count: number;
      readonly before: EvaluateResult;
      readonly after: EvaluateResult;
    }[];
  };
  readonly tests: {
    /** Different requests among the policy tests of both sets. */
    readonly examined: number;
    readonly flips: readonly {
      readonly name: string;
      readonly before: TestOutcome;
      readonly after: TestOutcome;
    }[];
  };
}

const testOutcome = z.object({
  decision,
  layer: layer.nullable(),
  matched_rule: z.string().nullable(),
}) satisfies z.ZodType<TestOutcome>;

/** What a candidate set would change. */
export const diffResult = z.object({
  rules: z.object({ added: strings, removed: strings, changed: strings }),
  decisions: z.object({
    examined: count,
    flips: z.array(z.object({
      layer,
      agent: z.string(),
      host: z.string().nullable(),
      address: z.string().nullable(),
      port: z.int().nullable(),
      method: z.string().nullable(),
      path: z.string().nullable(),
      record_type: z.string().nullable(),
      count,
      before: evaluateResult,
      after: evaluateResult,
    })),
  }),
  tests: z.object({
    examined: count,
    flips: z.array(z.object({ name: z.string(), before: testOutcome, after: testOutcome })),
  }),
}) satisfies z.ZodType<DiffResult>;

/** What a DNS query would get, with the question as it was understood. */
export interface DnsTestResult
  extends Omit<EvaluateResult, "reason">, Pick<DnsRehearsal, "reason" | "rcode" | "cached"> {
  readonly hostname: string;
  readonly record_type: string;
  /** See {@linkcode DnsRehearsal.typePasses}. */
  readonly type_passes: boolean;
  /** Of the agents of that name. */
  readonly addresses: readonly string[];
}

/** What a DNS query would get. */
export const dnsTestResult = evaluateResult.extend({
  hostname: z.string(),
  record_type: z.string(),
  reason: z.enum(REASONS),
  rcode: z.string().nullable(),
  cached: z.boolean(),
  type_passes: z.boolean(),
  addresses: strings,
}) satisfies z.ZodType<DnsTestResult>;

/** State of the DNS filter. */
export const dnsStatus = z.object({
  running: z.boolean(),
  listen_addresses: strings,
  listen_port: z.int(),
  upstreams: strings,
  cache_entries: count,
  queries_total: count,
  queries_allowed: count,
  queries_blocked: count,
}) satisfies z.ZodType<DnsStatus>;

const dnsCacheStats = z.object({
  entries: count,
  max_entries: count,
  hits: count,
  misses: count,
  evictions: count,
}) satisfies z.ZodType<DnsCacheStats>;

const dnsCacheEntry = z.object({
  hostname: z.string(),
  record_type: z.string(),
  ttl_remaining_secs: z.int(),
  dnssec: z.literal(true).exactOptional(),
}) satisfies z.ZodType<DnsCacheEntry>;

/** The DNS cache; `entries` is empty unless asked for. */
export const dnsCache = z.object({ stats: dnsCacheStats, entries: z.array(dnsCacheEntry) });

/** How many cached answers were forgotten. */
export const dnsFlush = z.object({ entries_flushed: count });

/** State of the proxy. */
export const proxyStatus = z.object({
  running: z.boolean(),
  listen_addresses: strings,
  listen_port: z.int(),
  active_connections: count,
  tunnels: z.array(z.object({ agent: z.string(), address: z.string(), count })),
  requests_total: count,
  requests_blocked: count,
}) satisfies z.ZodType<ProxyStatus>;

/** A network that was made or found. */
export const networkCreated = z.object({
  network_id: z.string(),
  name: z.string(),
  subnet: z.string(),
  gateway: z.string(),
  created: z.boolean(),
}) satisfies z.ZodType<NetworkCreateResult>;

/** One network. */
export const networkStatus = z.object({
  exists: z.boolean(),
  network_id: z.string().nullable(),
  name: z.string(),
  bridge: z.string().nullable(),
  subnet: z.string().nullable(),
  gateway: z.string().nullable(),
  containers: z.array(z.object({ name: z.string(), ipv4_address: z.string() })),
}) satisfies z.ZodType<NetworkStatus>;

/** All managed networks. */
export const networkList = z.object({ networks: z.array(networkStatus) });

/** What became of a network. */
export const networkDestroyed = z.object({ name: z.string(), destroyed: z.boolean() });

/** A container that was made. */
export const containerCreated = z.object({
  container_id: z.string(),
  name: z.string(),
  created: z.boolean(),
  warnings: strings,
}) satisfies z.ZodType<ContainerCreateResult>;

/** A cable that was laid. */
export const agentAttachment = z.object({
  port: z.string(),
  interface: z.string(),
  address: z.string(),
  prefix_length: z.int(),
  gateway: z.string(),
  proxy_port: z.int().nullable(),
  agent_socket_folder: z.string(),
  shim: z.string(),
}) satisfies z.ZodType<AgentAttachment>;

/** A cable that was plugged in. */
export const agentJoined = z.object({ port: z.string(), joined: z.literal(true) });

const containerInfo = z.object({
  container_id: z.string(),
  name: z.string(),
  image: z.string(),
  state: z.string(),
  network: z.string(),
  created_at: z.string(),
}) satisfies z.ZodType<ContainerInfo>;

/** All agent containers. */
export const containerList = z.object({ containers: z.array(containerInfo) });

/** One agent container. */
export const containerDetail = containerInfo.extend({
  ip_address: z.string().nullable(),
  mounts: strings,
  env: strings,
}) satisfies z.ZodType<ContainerDetail>;

/** What became of a container that was to stop. */
export const containerStopped = z.object({ name: z.string(), stopped: z.boolean() });

/** What became of a container that was to be removed. */
export const containerRemoved = z.object({ name: z.string(), removed: z.boolean() });

/** What became of an image; `pulled` is false when it was there and current. */
export const imagePulled = z.object({ image: z.string(), pulled: z.boolean() });

/** A line of a pull's stream before its outcome. */
export const pullProgress = z.object({
  progress: z.string(),
  layers: z.number(),
  layers_done: z.number(),
  bytes: z.number(),
  bytes_total: z.number(),
});

/** The failure envelope; `status` only where a stream has begun before it failed. */
export const failureReply = z.object({
  ok: z.literal(false),
  error: z.string(),
  code: z.string(),
  status: z.int().optional(),
  hint: z.string().optional(),
  report: z.string().optional(),
  details: z.array(z.object({
    file: z.string(),
    line: z.int(),
    column: z.int(),
    message: z.string(),
  })).optional(),
});
