/** A daemon's worth of plain answers for tests of the API and of the command line. */
import type { ActiveGrant } from "../../lib/api/grants.ts";
import type {
  AgentAttachRequest,
  AgentJoinRequest,
  ContainerCreateRequest,
  HostServices,
  NetworkCreateRequest,
  NetworkStatus,
  RuleSummary,
} from "../../lib/api/services.ts";
import type { DaemonStatus } from "../../lib/api/status.ts";
import type { Decision } from "../../lib/decision.ts";
import { OutcallError } from "../../lib/errors.ts";
import type { PartHealth } from "../../lib/health.ts";
import { egressDetail } from "../../lib/policy.ts";
import { explainDecision } from "../../lib/record/explain.ts";
import { matches } from "../../lib/record/filter.ts";
import type { StreamEvent, Subscription } from "../../lib/record/streams.ts";
import { suggest } from "../../lib/record/suggest.ts";
import type { DecisionStats } from "../../lib/record/table.ts";
import { explain } from "../../lib/rules/explain.ts";
import { PolicyHistory } from "../../lib/rules/history.ts";
import { emptyPolicy } from "../../lib/rules/policy.ts";
import { DEFAULT_EGRESS, type Facts, type Layer, type Verdict } from "../../lib/rules/types.ts";

/** What the services were asked to do, in order. */
export interface Journal {
  readonly calls: unknown[][];
}

/** Answers that tests change. */
export interface Answers {
  bridgeUp: boolean;
  reloadFails: boolean;
  rules: RuleSummary[];
  verdict: Verdict;
  networks: NetworkStatus[];
  health: PartHealth[];
  status: DaemonStatus;
  dnsRunning: boolean;
  proxyRunning: boolean;
  hits: number;
  decisions: Decision[];
  stats: DecisionStats;
  /** What a stream sends before it ends. */
  events: StreamEvent[];
}

/** The quickstart's rule. */
export const OPENAI: RuleSummary = {
  id: "allow-openai",
  file: "/etc/outcall/rules.d/agent.yaml",
  line: 3,
  action: "allow",
  priority: 100,
  condition: 'http.host == "api.openai.com"',
  description: "agent may call the OpenAI API",
};

/** A grant in force. */
export const GRANT: ActiveGrant = {
  id: "4f0c2a91",
  container: "my-agent",
  src_ip: "10.200.0.2",
  destination: "93.184.216.34",
  protocol: "tcp",
  port: 443,
  inserted_at: "2026-04-22T10:30:00.000Z",
  expires_in_secs: 900,
  source: "operator",
  hosts: [],
  persistent: false,
};

/** Counters of a rule that never matched. */
const UNUSED = { matches: 0, blocks: 0, errors: 0, last_matched: null };

/** The quickstart's network. */
export const AGENT_NET: NetworkStatus = {
  exists: true,
  network_id: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
  name: "outcall-agent-net",
  bridge: "outcall1",
  subnet: "10.200.0.0/24",
  gateway: "10.200.0.1",
  containers: [
    { name: "my-agent", ipv4_address: "10.200.0.2" },
    { name: "other-agent", ipv4_address: "10.200.0.3" },
  ],
};

/** One blocked DNS question. */
export const DECISION: Decision = {
  schema: 1,
  id: "01k9zzzzz0000abcd",
  time: "2026-01-02T03:04:05.678Z",
  generation: 1,
  layer: "dns",
  agent: null,
  source: "10.200.0.2",
  attempt: { host: "example.com", recordType: "A" },
  verdict: "block",
  reason: "default",
  rule: null,
};

const CONTAINER = {
  container_id: "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90",
  name: "outcall-a3f7b201",
  image: "my-agent:latest",
  state: "running",
  network: "outcall-default",
  created_at: "2026-04-21T14:30:00Z",
};

/** A daemon that works, has blocked something, and waits for its operator. */
const STATUS: DaemonStatus = {
  version: "0.1.0",
  started_at: "2026-05-04T09:30:00.000Z",
  ready: true,
  status: "degraded",
  parts: [
    { name: "bridge", state: "ok", detail: "outcall0 is up, nftables active" },
    { name: "kernel_log", state: "ok", detail: "reading drops from log group 28515" },
    { name: "rule_engine", state: "ok", detail: "3 rule(s)" },
    { name: "dns", state: "ok", detail: "10.200.0.1" },
    { name: "dns_worker", state: "ok", detail: "answering by UDP" },
    { name: "proxy", state: "ok", detail: "10.200.0.1" },
    { name: "proxy_worker", state: "ok", detail: "serving" },
    { name: "docker", state: "degraded", detail: "cannot reach Docker: connection refused" },
    { name: "history", state: "ok", detail: "61 records, 0.2 MiB" },
  ],
  policy: {
    generation: 4,
    rules: 3,
    files: 1,
    loaded_at: "2026-05-04T09:30:00.000Z",
    reloads: 4,
    reloads_refused: 0,
    refusal: null,
  },
  agents: [
    { name: "my-agent", address: "10.200.0.2", network: "outcall-agent-net" },
    { name: "", address: "10.200.0.3", network: "outcall-agent-net" },
  ],
  grants: 0,
  tunnels: 1,
  blocked: {
    since: "2026-05-04T09:30:00.000Z",
    attempts: 1019,
    top: [
      {
        agent: "my-agent",
        layer: "kernel",
        what: "tcp 93.184.216.34:1 and 999 more",
        reason: "forward_denied",
        attempts: 1000,
        last_id: "01kdecision000000",
      },
      {
        agent: "my-agent",
        layer: "dns",
        what: "example.org A",
        reason: "default",
        attempts: 19,
        last_id: "01kdecision000000",
      },
    ],
    incomplete: null,
  },
  attention: [
    {
      what: "docker degraded: cannot reach Docker: connection refused",
      command: "systemctl status docker",
    },
    { what: "1 rule request waits for an answer", command: "outcall requests list" },
  ],
};

/** The answers a healthy daemon gives. */
export function healthy(): Answers {
  return {
    bridgeUp: true,
    reloadFails: false,
    rules: [OPENAI],
    verdict: { allowed: false, reason: "default", rule: null, egress: null },
    networks: [AGENT_NET],
    health: [{ name: "bridge", state: "ok", detail: "outcall0 is up" }],
    status: STATUS,
    dnsRunning: true,
    proxyRunning: true,
    hits: 3,
    decisions: [DECISION],
    stats: {
      allowed: 9,
      blocked: 4,
      hosts: [
        { name: "example.com", allowed: 0, blocked: 4 },
        { name: "api.openai.com", allowed: 9, blocked: 0 },
      ],
      agents: [{ name: "worker", allowed: 9, blocked: 4 }],
      rules: [
        { name: "", allowed: 0, blocked: 4 },
        { name: "allow-openai", allowed: 9, blocked: 0 },
      ],
      layers: [{ name: "dns", allowed: 9, blocked: 4 }],
    },
    events: [],
  };
}

/** A stream of these events, and then its end. */
function subscription(events: readonly StreamEvent[]): Subscription {
  const batches = events.length === 0 ? [] : [events];
  return { next: () => Promise.resolve(batches.shift() ?? null), close: () => {} };
}

/** Services that give `answers` and write down what they were asked. */
export function services(answers: Answers, { calls }: Journal): HostServices {
  const networkName = (suffix: string | undefined): string => `outcall-${suffix ?? "default"}`;
  const found = (suffix: string | undefined): NetworkStatus | undefined =>
    answers.networks.find((network) => network.name === networkName(suffix));
  return {
    version: "1.2.3",
    bridge: {
      status: () =>
        Promise.resolve(
          answers.bridgeUp
            ? { name: "outcall0", up: true, index: 12, nftables: "active" }
            : { name: "outcall0", up: false, index: null, nftables: "inactive" },
        ),
      up: () => Promise.resolve(void calls.push(["bridge.up"])),
      down: () =>
        Promise.reject(
          new OutcallError(409, "bridge.busy", "containers are attached: my-agent", {
            hint: "Stop them first.",
          }),
        ),
    },
    policy: {
      list: () => answers.rules,
      find: (id) => {
        const rule = answers.rules.find((rule) => rule.id === id);
        return rule && {
          ...rule,
          log: false,
          egress: egressDetail(DEFAULT_EGRESS),
          ...UNUSED,
        };
      },
      counters: () =>
        answers.rules.map(({ id, file, line, action }) => ({ id, file, line, action, ...UNUSED })),
      explain: (request) => explain(emptyPolicy(1), request),
      explainDecision: (decision, recorded) =>
        explainDecision(decision, new PolicyHistory(), emptyPolicy(1), recorded),
      suggest: (recorded, request) => suggest(emptyPolicy(1), recorded, request),
      diff: () => {
        throw new OutcallError(422, "rules.invalid", "the rules are not valid");
      },
      reload: () =>
        answers.reloadFails
          ? Promise.reject(
            new OutcallError(422, "rules.invalid", "the rules are not valid", {
              details: [
                {
                  file: "/etc/outcall/rules.d/agent.yaml",
                  line: 5,
                  column: 17,
                  message: "CEL parse error: undefined identifier 'http_host'",
                },
                {
                  file: "/etc/outcall/rules.d/z.yaml",
                  line: 1,
                  column: 1,
                  message: "version is missing",
                },
              ],
              hint: "The rules loaded before stay in force.",
            }),
          )
          : Promise.resolve({
            files_loaded: 1,
            rules_loaded: 1,
            generation: 2,
            warnings: ['unused definition "legacy" in agent.yaml'],
          }),
      evaluate: (layer: Layer, facts: Facts) => {
        calls.push(["evaluate", layer, facts]);
        return answers.verdict;
      },
    },
    grants: {
      list: () => Promise.resolve([GRANT]),
      allow: (request) => {
        calls.push(["grants.allow", request]);
        if (!request.persistent) return Promise.resolve([GRANT]);
        const kept = {
          ...GRANT,
          expires_in_secs: null,
          persistent: true,
          hosts: ["db.example.com"],
        };
        return Promise.resolve([kept, { ...kept, id: "4f0c2a92", destination: "93.184.216.35" }]);
      },
      revoke: (id) => {
        calls.push(["grants.revoke", id]);
        return Promise.resolve();
      },
      flush: () => Promise.resolve(3),
    },
    dns: {
      status: () => ({
        running: answers.dnsRunning,
        listen_addresses: ["10.200.0.1", "10.200.255.1"],
        listen_port: 53,
        upstreams: ["1.1.1.1:53", "9.9.9.9:53"],
        cache_entries: 2,
        queries_total: 9,
        queries_allowed: 5,
        queries_blocked: 4,
      }),
      rehearse: (question) => {
        calls.push(["rehearse", question]);
        const { allowed, reason, rule } = answers.verdict;
        return Promise.resolve({
          verdict: allowed ? "allow" : "block",
          reason,
          rule,
          rcode: allowed ? null : "NXDOMAIN",
          cached: false,
          typePasses: question.type !== 28,
          addresses: question.agentName === "review" ? ["10.200.0.2"] : [],
        });
      },
      cacheStats: () => ({
        entries: 1,
        max_entries: 10_000,
        hits: answers.hits,
        misses: answers.hits === 0 ? 0 : 5,
        evictions: 0,
      }),
      cacheEntries: () => [
        { hostname: "api.openai.com", record_type: "A", ttl_remaining_secs: 42 },
      ],
      flush: () => 7,
    },
    proxy: {
      status: () => ({
        running: answers.proxyRunning,
        listen_addresses: ["10.200.0.1"],
        listen_port: 8080,
        active_connections: 1,
        tunnels: [{ agent: "worker", address: "10.200.0.2", count: 1 }],
        requests_total: 12,
        requests_blocked: 3,
      }),
    },
    networks: {
      subnetBlock: "10.200.0.0/16",
      create: (request: NetworkCreateRequest) => {
        calls.push(["network.create", request]);
        const existing = found(request.name);
        return Promise.resolve({
          network_id: existing?.network_id ?? "fedcba9876543210",
          name: networkName(request.name),
          subnet: request.subnet ?? "10.200.255.0/24",
          gateway: "10.200.255.1",
          created: existing === undefined,
        });
      },
      status: (name) =>
        Promise.resolve(
          found(name) ?? {
            exists: false,
            network_id: null,
            name: networkName(name),
            bridge: null,
            subnet: null,
            gateway: null,
            containers: [],
          },
        ),
      list: () => Promise.resolve(answers.networks),
      destroy: (name) =>
        Promise.resolve({ name: networkName(name), destroyed: found(name) !== undefined }),
    },
    namespaceAgents: {
      attach: (request: AgentAttachRequest, pid: number) => {
        calls.push(["agent.attach", { ...request, pid }]);
        return Promise.resolve({
          port: "ocr01234567",
          interface: "eth0",
          address: "10.200.255.254",
          prefix_length: 24,
          gateway: "10.200.255.1",
          proxy_port: 8080,
          agent_socket_folder: "/run/outcall/agent.sock.d",
          shim: "/usr/local/bin/outcall-agent",
        });
      },
      join: ({ port }: AgentJoinRequest) => {
        calls.push(["agent.join", { port }]);
        return Promise.resolve({ port, joined: true as const });
      },
    },
    observations: {
      list: () => [{
        agent: "worker",
        key: CONTAINER.container_id,
        began_at: "2026-05-04T09:30:00.000Z",
        ends_in_secs: 3540,
      }],
      end: (agent) => {
        calls.push(["observations.end", agent]);
        return Promise.resolve(1);
      },
    },
    containers: {
      create: (request: ContainerCreateRequest) => {
        calls.push(["container.create", request]);
        return Promise.resolve({
          container_id: CONTAINER.container_id,
          name: request.name ?? CONTAINER.name,
          created: true,
          warnings: ['container "worker-2" is the same agent to rules: "worker"'],
        });
      },
      list: () => Promise.resolve([CONTAINER]),
      inspect: (name) =>
        name === CONTAINER.name
          ? Promise.resolve({
            ...CONTAINER,
            ip_address: "10.200.0.2",
            mounts: ["/run/outcall/agent:/run/outcall:ro"],
            env: ["HTTP_PROXY=<redacted>", "NO_PROXY=<redacted>"],
          })
          : Promise.reject(
            new OutcallError(404, "container.not_found", `container "${name}" does not exist`),
          ),
      stop: (name, timeoutSecs) => {
        calls.push(["container.stop", name, timeoutSecs]);
        return Promise.resolve({ name, stopped: name === CONTAINER.name });
      },
      remove: (name, force) => {
        calls.push(["container.remove", name, force]);
        return Promise.resolve({ name, removed: name === CONTAINER.name });
      },
      pull: async (image, onProgress) => {
        calls.push(["container.pull", image]);
        const layers = { layers: 2, bytes_total: 20_000_000 };
        onProgress({ text: "pulling layer 1", ...layers, layers_done: 0, bytes: 5_000_000 });
        await Promise.resolve();
        onProgress({ text: "pulling layer 2", ...layers, layers_done: 1, bytes: 15_000_000 });
        if (image === "missing") {
          throw new OutcallError(
            404,
            "image.not_found",
            'failed to pull image "missing": not found',
          );
        }
        return { image, pulled: image !== "current" };
      },
    },
    decisions: {
      recent: (limit) => answers.decisions.slice(-(limit ?? answers.decisions.length)),
      sequence: 1_767_323_045_678_001,
      find: (id) => Promise.resolve(answers.decisions.find((decision) => decision.id === id)),
      query: (query) => {
        const decisions = answers.decisions.filter((decision) => matches(query, decision));
        return Promise.resolve({ decisions: decisions.slice(-query.limit), incomplete: null });
      },
      stats: () => Promise.resolve(answers.stats),
      subscribe: (filter, after) => {
        calls.push(["events", filter, after]);
        return subscription(answers.events);
      },
    },
    status: { status: () => Promise.resolve(answers.status) },
    metrics: {
      contentType: "text/plain; version=0.0.4; charset=utf-8",
      text: () => Promise.resolve("outcall_agents 1\n"),
    },
    requests: {
      list: () => [],
      get: () => {
        throw new OutcallError(404, "requests.not_found", "rule request not found");
      },
      approve: () =>
        Promise.reject(new OutcallError(409, "requests.answered", "request is approved already")),
      events: () => [],
      extend: () => Promise.resolve({ expiresMs: null }),
      reject: () => Promise.resolve(),
    },
    health: () => Promise.resolve(answers.health),
  };
}
