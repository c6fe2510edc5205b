import { deepEqual, equal, ok } from "node:assert/strict";
import type { NewDecision } from "../../lib/decision.ts";
import { DecisionLog } from "../../lib/decision.ts";
import { DecisionMetrics } from "../../lib/metrics/decisions.ts";
import { Metrics, type MetricSources } from "../../lib/metrics/metrics.ts";
import { parser } from "@prometheus-io/lezer-promql";
import { type Exposition, readExposition, valueOf } from "./exposition.ts";

/** A daemon that has done a little of everything. */
const SOURCES: MetricSources = {
  dns: () => ({
    running: true,
    listen_addresses: ["10.200.0.1"],
    listen_port: 53,
    upstreams: ["9.9.9.9:53"],
    cache_entries: 3,
    queries_total: 10,
    queries_allowed: 7,
    queries_blocked: 3,
  }),
  dnsCache: () => ({ entries: 3, max_entries: 10, hits: 5, misses: 2, evictions: 1 }),
  proxy: () => ({
    running: true,
    listen_addresses: ["10.200.0.1"],
    listen_port: 8080,
    active_connections: 4,
    tunnels: [{ agent: "a", address: "10.200.0.2", count: 2 }, {
      agent: "b",
      address: "10.200.0.3",
      count: 1,
    }],
    requests_total: 9,
    requests_blocked: 4,
  }),
  rules: () => [{
    id: 'odd"name',
    file: "/r/a.yaml",
    line: 2,
    action: "allow",
    matches: 6,
    blocks: 0,
    errors: 1,
    last_matched: null,
  }],
  policy: () => ({
    generation: 5,
    rules: 1,
    files: 1,
    loaded_at: "2026-01-02T03:04:05.000Z",
    reloads: 4,
    reloads_refused: 2,
    refusal: null,
  }),
  grants: () => 2,
  agents: () => 3,
  repairs: () => 1,
  drops: () => ({ reported: 12, ignored: 2, lost: 1, restarts: 0, growing: 1 }),
  firewall: () => Promise.resolve([{ table: "inet", rule: "agent to outside", packets: 99 }]),
  history: () => ({ written: 20, merged: 3, lost: 0 }),
  streams: () => ({ readers: 1, lost: 0 }),
  threadFailures: () => ({ dns: 1, proxy: 0 }),
  pendingRequests: () => 1,
  health: () => Promise.resolve([{ name: "dns", state: "degraded", detail: "" }]),
};

const DECISION: NewDecision = {
  generation: 1,
  layer: "dns",
  agent: null,
  source: "10.200.0.2",
  attempt: { host: "example.com" },
  verdict: "allow",
  reason: "rule",
  rule: null,
};

/** The metrics after one decision of each kind that is counted in a way of its own. */
async function exposition(sources: MetricSources = SOURCES): Promise<Exposition> {
  const decisions = new DecisionMetrics();
  const metrics = new Metrics(decisions, sources);
  const log = new DecisionLog();
  log.addSink(decisions.count);
  log.record({ ...DECISION, upstreamMs: 12, count: 3 });
  log.record({ ...DECISION, upstreamMs: null, count: 2 });
  log.record({ ...DECISION, layer: "http", verdict: "block", reason: "default", durationMs: 8 });
  const tunnel = log.record({ ...DECISION, layer: "connect" });
  log.update(tunnel, {
    durationMs: 90_000,
    tunnel: { upBytes: 10, downBytes: 2000, end: "closed" },
  });
  decisions.countDial(30, true);
  decisions.countDial(5000, false);
  return readExposition(await metrics.text());
}

Deno.test("metrics are what a Prometheus parser reads, with the daemon's numbers", async () => {
  const metrics = await exposition();
  const expected: readonly [string, Readonly<Record<string, string>>, number][] = [
    ["outcall_decisions_total", { layer: "dns", verdict: "allow", reason: "rule" }, 5],
    ["outcall_decisions_total", { layer: "http", verdict: "block", reason: "default" }, 1],
    ["outcall_decisions_total", { layer: "connect", verdict: "allow" }, 1],
    ["outcall_dns_upstream_seconds_count", {}, 1],
    ["outcall_dns_upstream_seconds_bucket", { le: "0.01" }, 0],
    ["outcall_dns_upstream_seconds_bucket", { le: "0.025" }, 1],
    ["outcall_decision_seconds_sum", { layer: "http" }, 0.008],
    ["outcall_tunnel_seconds_sum", {}, 90],
    ["outcall_tunnel_bytes_total", { direction: "down" }, 2000],
    ["outcall_tunnels_ended_total", { end: "closed" }, 1],
    ["outcall_proxy_dial_seconds_count", { result: "connected" }, 1],
    ["outcall_proxy_dial_seconds_count", { result: "failed" }, 1],
    ["outcall_dns_queries_total", { verdict: "block" }, 3],
    ["outcall_dns_cache_lookups_total", { result: "hit" }, 5],
    ["outcall_dns_cache_evictions_total", {}, 1],
    ["outcall_dns_cache_entries", {}, 3],
    ["outcall_proxy_requests_total", { verdict: "allow" }, 5],
    ["outcall_proxy_connections", {}, 4],
    ["outcall_tunnels", {}, 3],
    ["outcall_policy_generation", {}, 5],
    ["outcall_policy_loaded_timestamp_seconds", {}, Date.UTC(2026, 0, 2, 3, 4, 5) / 1000],
    ["outcall_policy_reloads_total", { result: "refused" }, 2],
    ["outcall_rule_decisions_total", { rule: 'odd"name', action: "allow" }, 6],
    ["outcall_rule_errors_total", { rule: 'odd"name' }, 1],
    ["outcall_grants", {}, 2],
    ["outcall_requests_pending", {}, 1],
    ["outcall_agents", {}, 3],
    ["outcall_repairs_total", {}, 1],
    ["outcall_kernel_drops_total", { table: "inet", rule: "agent to outside" }, 99],
    ["outcall_kernel_log_packets_total", { result: "recorded" }, 10],
    ["outcall_kernel_log_packets_total", { result: "lost" }, 1],
    ["outcall_history_records_total", { result: "written" }, 20],
    ["outcall_history_records_total", { result: "merged" }, 3],
    ["outcall_stream_readers", {}, 1],
    ["outcall_thread_failures_total", { thread: "dns" }, 1],
    ["outcall_part_state", { part: "dns", state: "degraded" }, 1],
    ["outcall_part_state", { part: "dns", state: "ok" }, 0],
  ];
  for (const [name, labels, value] of expected) {
    equal(valueOf(metrics, name, labels), value, `${name} ${JSON.stringify(labels)}`);
  }
  ok((valueOf(metrics, "process_resident_memory_bytes") ?? 0) > 1e6);
});

Deno.test("two readings of the same numbers are the same: reading counts nothing", async () => {
  const metrics = new Metrics(new DecisionMetrics(), SOURCES);
  const stable = async (): Promise<unknown> =>
    [...readExposition(await metrics.text())].filter(([name]) => !name.startsWith("process_"));
  deepEqual(await stable(), await stable());
});

Deno.test("the number of series does not grow with agents, hosts or rules", async () => {
  const rules = Array.from({ length: 3000 }, (_, i) => ({
    id: `rule-${i}`,
    file: "/r/a.yaml",
    line: i,
    action: i % 2 === 0 ? "allow" as const : "block" as const,
    matches: 1,
    blocks: 0,
    errors: 1,
    last_matched: null,
  }));
  const decisions = new DecisionMetrics();
  const metrics = new Metrics(decisions, { ...SOURCES, rules: () => rules });
  const log = new DecisionLog();
  log.addSink(decisions.count);
  for (let i = 0; i < 5000; i++) {
    log.record({
      ...DECISION,
      agent: { name: `agent-${i}`, address: "10.200.0.2", network: "outcall-x" },
      attempt: { host: `host-${i}.example` },
      rule: { id: `rule-${i}`, file: "/r/a.yaml", line: 1 },
    });
  }
  const read = readExposition(await metrics.text());
  equal(read.get("outcall_decisions_total")?.length, 1);
  equal(read.get("outcall_rule_decisions_total")?.length, 1002);
  equal(valueOf(read, "outcall_rule_decisions_total", { rule: "(others)", action: "block" }), 1000);
});

Deno.test("a part that cannot tell its numbers hides those of no other", async () => {
  const metrics = await exposition({
    ...SOURCES,
    firewall: () => Promise.reject(new Error("nft is away")),
    grants: () => {
      throw new Error("no");
    },
  });
  equal(metrics.get("outcall_kernel_drops_total"), undefined);
  equal(valueOf(metrics, "outcall_agents"), 3);
});

interface Dashboard {
  readonly panels: readonly {
    readonly title: string;
    readonly targets: readonly { readonly expr: string }[];
  }[];
}

/** Metrics of a query with the labels it asks for; throws when it is no PromQL. */
function metricsOf(query: string): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  let labels = new Set<string>();
  // The variables of dashboards are filled in before Prometheus sees a query.
  const text = query.replaceAll("$__rate_interval", "5m").replaceAll("$job", ".*");
  parser.parse(text).iterate({
    enter: ({ type, from, to }) => {
      if (type.isError) throw new Error(`no PromQL: ${text}`);
      if (type.name === "Identifier") {
        labels = found.get(text.slice(from, to)) ?? new Set();
        found.set(text.slice(from, to), labels);
      }
      if (type.name === "LabelName") labels.add(text.slice(from, to));
    },
  });
  return found;
}

Deno.test("each query of the example dashboard is PromQL and asks for metrics and labels that exist", async () => {
  const metrics = await exposition();
  const dashboard: Dashboard = JSON.parse(
    await Deno.readTextFile(new URL("../../docs/grafana-dashboard.json", import.meta.url)),
  );
  const asked = new Set<string>();
  for (const { title, targets } of dashboard.panels) {
    for (const { expr } of targets) {
      for (const name of metricsOf(expr).keys()) {
        ok(metrics.has(name), `${title}: there is no metric ${name}`);
        asked.add(name);
      }
      for (const [, labels = ""] of expr.matchAll(/(?:by|without) \(([^)]*)\)/g)) {
        const names = labels.split(",").map((label) => label.trim());
        const [metric = ""] = metricsOf(expr).keys();
        for (const name of names) {
          ok(
            metrics.get(metric)?.some((sample) => name in sample.labels),
            `${title}: ${metric} has no label ${name}`,
          );
        }
      }
    }
  }
  ok(asked.size > 20);
});

Deno.test("each alert in docs/metrics.md is PromQL and asks for metrics that exist", async () => {
  const metrics = await exposition();
  const text = await Deno.readTextFile(new URL("../../docs/metrics.md", import.meta.url));
  const queries = [...text.matchAll(/^ +expr: (.*)$/gm)].map(([, query = ""]) => query);
  ok(queries.length >= 5);
  for (const query of queries) {
    for (const name of metricsOf(query).keys()) ok(metrics.has(name), `${query}: no ${name}`);
  }
});

Deno.test("docs/metrics.md lists every metric, and none that does not exist", async () => {
  const text = await Deno.readTextFile(new URL("../../docs/metrics.md", import.meta.url));
  const listed = [...text.matchAll(/^\| `((?:outcall|process)_[a-z_]+)`/gm)].map(([, name]) =>
    name
  );
  const names = new Set(
    [...(await exposition()).keys()].map((name) => name.replace(/_(bucket|sum|count)$/, "")),
  );
  deepEqual([...new Set(listed)].sort(), [...names].sort());
});
