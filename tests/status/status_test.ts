import { deepEqual, equal, match, ok } from "node:assert/strict";
import type { DaemonStatus } from "../../lib/api/status.ts";
import { statusLines } from "../../lib/cli/status.ts";
import { type Decision, DecisionLog, type NewDecision } from "../../lib/decision.ts";
import { attentionTo, type Circumstances } from "../../lib/status/attention.ts";
import { blockedOfLate, topBlocked } from "../../lib/status/blocked.ts";
import { Status, type StatusSources } from "../../lib/status/status.ts";
import { healthy } from "../api/services.ts";
import { withHostApi } from "../api/running.ts";
import { outcall } from "../cli/outcall.ts";

const WELL: Circumstances = {
  parts: [{ name: "bridge", state: "ok", detail: "" }],
  policy: healthy().status.policy,
  pendingRequests: 0,
  repairs: 0,
  lastRepair: undefined,
};

Deno.test("a daemon that is well needs nobody", () => {
  deepEqual(attentionTo(WELL), []);
});

Deno.test("what needs an operator comes with a command, what has failed first", () => {
  const attention = attentionTo({
    parts: [
      { name: "docker", state: "degraded", detail: "it is away" },
      { name: "bridge", state: "failed", detail: "outcall0 is down" },
      { name: "history", state: "degraded", detail: "disk full" },
    ],
    policy: { ...WELL.policy, rules: 0 },
    pendingRequests: 2,
    repairs: 3,
    lastRepair: { at: "2026-05-04T09:30:00.000Z", wrong: ["the firewall was changed"] },
  });
  deepEqual(attention.map(({ what, command }) => [what.split(":")[0], command]), [
    ["bridge failed", "outcall bridge up"],
    ["docker degraded", "systemctl status docker"],
    ["history degraded", null],
    ["no rules are loaded", "outcall rules check"],
    ["2 rule requests wait for an answer", "outcall requests list"],
    [
      "another program changed the firewall (the firewall was changed); it was put right 3 times, last at 2026-05-04T09",
      "outcall bridge status",
    ],
  ]);
});

const BLOCKED: NewDecision = {
  generation: 1,
  layer: "dns",
  agent: { name: "worker", address: "10.200.0.2", network: "outcall-x" },
  source: "10.200.0.2",
  attempt: { host: "example.org", recordType: "A" },
  verdict: "block",
  reason: "default",
  rule: null,
};

function decisions(...changes: readonly Partial<NewDecision>[]): readonly Decision[] {
  const log = new DecisionLog();
  return changes.map((change) => log.record({ ...BLOCKED, ...change }));
}

Deno.test("attempts that are alike are one line with the newest decision, most frequent first", () => {
  const all = decisions(
    { attempt: { host: "rare.example" } },
    {},
    { count: 4 },
    { agent: null, source: "172.18.0.9" },
    {
      layer: "kernel",
      attempt: { address: "1.1.1.1", port: 1, protocol: "tcp" },
      reason: "forward_denied",
      count: 900,
      targets: { distinct: 800, first: [] },
    },
  );
  deepEqual(topBlocked(all).map(({ agent, what, attempts }) => [agent, what, attempts]), [
    ["worker", "tcp 1.1.1.1:1 and 799 more", 900],
    ["worker", "example.org A", 5],
    ["worker", "rare.example", 1],
    ["172.18.0.9", "example.org A", 1],
  ]);
  equal(topBlocked(all)[1]?.last_id, all[2]?.id);
  equal(
    topBlocked(decisions(...Array.from({ length: 20 }, (_, i) => ({
      attempt: { host: `${i}.example` },
    })))).length,
    5,
  );
});

Deno.test("the last hour counts attempts, and says what it does not know", async () => {
  const asked: unknown[] = [];
  const found = decisions({ count: 3 }, {});
  const late = await blockedOfLate({
    query: (query) => {
      asked.push(query);
      return Promise.resolve({ decisions: found, incomplete: "the disk is full" });
    },
  }, Date.UTC(2026, 4, 4, 10));
  deepEqual(asked, [{ verdict: "block", sinceMs: Date.UTC(2026, 4, 4, 9), limit: 5000 }]);
  deepEqual([late.attempts, late.since, late.incomplete], [
    4,
    "2026-05-04T09:00:00.000Z",
    "the disk is full",
  ]);
});

const SOURCES: StatusSources = {
  health: () => Promise.resolve(WELL.parts),
  policy: () => WELL.policy,
  bridge: () =>
    Promise.resolve({ name: "outcall0", up: true, index: 3, nftables: "active" as const }),
  repairs: () => 0,
  agentAddresses: () => ["10.200.0.2", "10.200.0.3"],
  identify: (address) =>
    address === "10.200.0.2" ? { name: "worker", address, network: "outcall-x" } : null,
  grants: () => 2,
  tunnels: () => 1,
  pendingRequests: () => 0,
  decisions: { query: () => Promise.resolve({ decisions: decisions({}), incomplete: null }) },
};

Deno.test("the status gathers what the parts say", async () => {
  const status = await new Status(SOURCES).status();
  deepEqual([status.ready, status.status, status.grants, status.tunnels], [true, "ok", 2, 1]);
  deepEqual(status.agents, [{ name: "worker", address: "10.200.0.2", network: "outcall-x" }]);
  equal(status.blocked.attempts, 1);
  const failed = await new Status({
    ...SOURCES,
    health: () => Promise.resolve([{ name: "dns", state: "failed", detail: "" }]),
  }).status();
  deepEqual([failed.ready, failed.status], [false, "failed"]);
});

Deno.test("outcall status exits with 1 when the daemon is not ready, and prints all the same", () =>
  withHostApi(async (running) => {
    const ask = (...args: readonly string[]): ReturnType<typeof outcall> =>
      outcall("--socket", running.path, "status", ...args);
    equal((await ask()).code, 0);
    running.answers.status = { ...running.answers.status, ready: false, status: "failed" };
    const notReady = await ask();
    equal(notReady.code, 1);
    match(notReady.out, /^outcalld 0\.1\.0: NOT READY, failed, up since /);
    const json = await ask("--json");
    equal(json.code, 1);
    const { ok: isAnswered, ready }: { ok: boolean; ready: boolean } = JSON.parse(json.out);
    deepEqual([isAnswered, ready], [true, false]);
  }));

Deno.test("outcall status exits with 1 when nobody answers (D19)", async () => {
  const { code, err } = await outcall("--socket", "/run/no-such.sock", "status");
  equal(code, 1);
  match(err, /^error: daemon unreachable \(\/run\/no-such\.sock: No such file or directory\)\n/);
});

Deno.test("a screen without agents, rules, blocks and worries says so", () => {
  const status: DaemonStatus = {
    ...healthy().status,
    status: "ok",
    parts: WELL.parts,
    policy: { ...WELL.policy, loaded_at: null },
    agents: [],
    blocked: { since: "", attempts: 0, top: [], incomplete: "disk full" },
    attention: [],
  };
  const lines = statusLines(status);
  for (
    const line of [
      "Rules:    none loaded",
      "Agents:   none",
      "Nothing was blocked in the last hour.",
      "  older decisions are missing: disk full",
      "Nothing needs you.",
    ]
  ) ok(lines.includes(line), line);
});

Deno.test("many agents are named in part, and counted", () => {
  const agents = Array.from({ length: 12 }, (_, i) => ({
    name: `a${i}`,
    address: `10.200.0.${i + 2}`,
    network: "n",
  }));
  const lines = statusLines({ ...healthy().status, agents });
  ok(
    lines.some((line) =>
      line.startsWith("Agents:   12: a0 10.200.0.2, ") && line.endsWith("and 2 more")
    ),
  );
});
