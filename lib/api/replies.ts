/**
 * What the host API answers, as the client checks it. Not strict: a newer daemon may say more than
 * an older client reads. Every reply also carries `ok` (lib/api/envelope.ts).
 */
import { z } from "zod";
import type {
  BridgeStatus,
  ContainerDetail,
  ContainerInfo,
  DnsCacheEntry,
  DnsCacheStats,
  DnsStatus,
  NetworkCreateResult,
  NetworkStatus,
  ProxyStatus,
  ReloadResult,
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
  /** `rule`, `rule_error`, `port` or `default`. */
  readonly reason: "rule" | "rule_error" | "port" | "default";
  /** Id of the rule that decided; null for the default policy. */
  readonly matched_rule: string | null;
  /** File and line of that rule. */
  readonly file: string | null;
  readonly line: number | null;
}

/** A dry run. */
export const evaluateResult = z.object({
  decision: z.enum(["allow", "block"]),
  reason: z.enum(["rule", "rule_error", "port", "default"]),
  matched_rule: z.string().nullable(),
  file: z.string().nullable(),
  line: z.int().nullable(),
}) satisfies z.ZodType<EvaluateResult>;

/** A dry run of the DNS layer, with the question as it was understood. */
export interface DnsTestResult extends EvaluateResult {
  readonly hostname: string;
  readonly record_type: string;
}

/** A dry run of the DNS layer. */
export const dnsTestResult = evaluateResult.extend({
  hostname: z.string(),
  record_type: z.string(),
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
});

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

/** The failure envelope; `status` only where a stream has begun before it failed. */
export const failureReply = z.object({
  ok: z.literal(false),
  error: z.string(),
  code: z.string(),
  status: z.int().optional(),
  hint: z.string().optional(),
  details: z.array(z.object({
    file: z.string(),
    line: z.int(),
    column: z.int(),
    message: z.string(),
  })).optional(),
});
