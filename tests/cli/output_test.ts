import { deepEqual, equal } from "node:assert/strict";
import { OPENAI } from "../api/services.ts";
import { type Running, withHostApi } from "../api/running.ts";
import { outcall } from "./outcall.ts";

/** Checks that a command prints exactly `expected`, and nothing on stderr. */
async function prints(running: Running, args: string, expected: string): Promise<void> {
  const outcome = await outcall("--socket", running.path, ...args.split(" "));
  deepEqual(outcome, { code: 0, out: expected, err: "" });
}

Deno.test("bridge status prints the quickstart's four lines (S001-IF-005)", () =>
  withHostApi(async (running) => {
    await prints(
      running,
      "bridge status",
      `Bridge:    outcall0
Status:    up
Index:     12
nftables:  active
`,
    );
    running.answers.bridgeUp = false;
    await prints(
      running,
      "bridge status",
      `Bridge:    outcall0
Status:    down
nftables:  inactive
`,
    );
    await prints(running, "bridge up", "Bridge is up.\n");
  }));

Deno.test("dns status and dns flush (S007-IF-005)", () =>
  withHostApi(async (running) => {
    await prints(
      running,
      "dns status",
      `DNS Filter:     active
Listen:         10.200.0.1:53, 10.200.255.1:53
Upstreams:      1.1.1.1:53, 9.9.9.9:53
Cache:          2 entries
Queries:        9 total (5 allowed, 4 blocked)
`,
    );
    running.answers.dnsRunning = false;
    await prints(running, "dns status", "DNS Filter:     inactive (bridge not up)\n");
    await prints(running, "dns flush", "DNS cache flushed (7 entries cleared).\n");
  }));

Deno.test("dns test: the default policy blocks, and that is not a failure (S007-AS-012)", () =>
  withHostApi(async (running) => {
    await prints(
      running,
      "dns test Example.COM",
      `Hostname:       example.com
Record type:    A
Decision:       BLOCK
Matched rule:   (default policy)
Answer:         NXDOMAIN
`,
    );
    running.answers.verdict = {
      allowed: true,
      reason: "rule",
      rule: OPENAI,
      egress: { mode: "proxy", allowPrivateIps: false, tls: "sni" },
    };
    await prints(
      running,
      "dns test api.openai.com --type aaaa --agent review",
      `Hostname:       api.openai.com
Record type:    AAAA
Decision:       ALLOW
Matched rule:   allow-openai (/etc/outcall/rules.d/agent.yaml)
Answer:         as an upstream says, without such records
Agent:          review (10.200.0.2)
`,
    );
    running.answers.verdict = { allowed: false, reason: "limit", rule: OPENAI, egress: null };
    await prints(
      running,
      "dns test api.openai.com --agent reviwe",
      `Hostname:       api.openai.com
Record type:    A
Decision:       BLOCK
Matched rule:   allow-openai (/etc/outcall/rules.d/agent.yaml)
Reason:         limit
Answer:         NXDOMAIN
Agent:          reviwe (none of that name is attached)
`,
    );
    deepEqual(running.calls.map((call) => Reflect.get(Object(call[1]), "agentName")), [
      "",
      "review",
      "reviwe",
    ]);
  }));

Deno.test("dns cache: counters, hit rate, and the entries when asked (S007-IF-005)", () =>
  withHostApi(async (running) => {
    const counters = `Entries:        1 / 10000
Hits:           3
Misses:         5
Evictions:      0
Hit rate:       37.5%
`;
    await prints(running, "dns cache", counters);
    await prints(
      running,
      "dns cache --entries",
      `${counters}
HOSTNAME                         TYPE   TTL
api.openai.com                   A      42s
`,
    );
    running.answers.hits = 0;
    await prints(
      running,
      "dns cache",
      counters.replace("Hits:           3", "Hits:           0")
        .replace("Misses:         5", "Misses:         0")
        .replace("37.5%", "N/A"),
    );
  }));

Deno.test("proxy status shows listeners, tunnels and counts, or that there is no proxy", () =>
  withHostApi(async (running) => {
    await prints(
      running,
      "proxy status",
      `HTTP Proxy:     active
Listen:         10.200.0.1:8080
Proxy URL:      http://10.200.0.1:8080
Active conns:   1
Tunnels:        worker (10.200.0.2) 1
Requests:       12 total (3 blocked)
`,
    );
    running.answers.proxyRunning = false;
    await prints(running, "proxy status", "HTTP Proxy:     inactive\n");
  }));

Deno.test("network create: new, default, existing (S002-IF-006)", () =>
  withHostApi(async (running) => {
    await prints(
      running,
      "network create --name new-net --subnet 10.200.7.0/24",
      'Network "outcall-new-net" created (10.200.7.0/24).\n',
    );
    await prints(
      running,
      "network create",
      'Network "outcall-default" created (10.200.255.0/24).\n',
    );
    await prints(
      running,
      "network create --name agent-net",
      'Network "outcall-agent-net" already exists (id: 0123456789ab).\n',
    );
  }));

Deno.test("network status, list, destroy (S002-IF-006)", () =>
  withHostApi(async (running) => {
    await prints(
      running,
      "network status --name agent-net",
      `Network:      outcall-agent-net
Status:       active
Subnet:       10.200.0.0/24
Gateway:      10.200.0.1
Containers:   2
  my-agent         10.200.0.2
  other-agent      10.200.0.3
`,
    );
    await prints(running, "network status", 'Network "outcall-default" does not exist.\n');
    await prints(
      running,
      "network list",
      `NAME               SUBNET           CONTAINERS
outcall-agent-net  10.200.0.0/24    2
`,
    );
    await prints(
      running,
      "network destroy --name agent-net",
      'Network "outcall-agent-net" destroyed.\n',
    );
    await prints(running, "network destroy", 'Network "outcall-default" did not exist.\n');
    running.answers.networks.length = 0;
    await prints(running, "network list", "NAME               SUBNET           CONTAINERS\n");
  }));

Deno.test("container create passes on what was asked, with the shim wired up, and shows warnings (S008-IF-007)", () =>
  withHostApi(async (running) => {
    const outcome = await outcall(
      ...["container", "create", "--image", "python:3.12", "--network", "agent-net"],
      ...["--name", "task", "--memory", "256m", "--cpu-shares", "512", "-e", "A=1", "--env", "B=2"],
      ...["--volume", "/p:/workspace", "--workdir", "/workspace", "--user", "1000:1000", "-it"],
      ...["--socket", running.path, "--", "python", "-c", "print(1)", "--json", "--socket", "/no"],
    );
    deepEqual(outcome, {
      code: 0,
      out: 'Container "task" created and started.\n',
      err: 'warning: container "worker-2" is the same agent to rules: "worker"\n',
    });
    const [[, request] = []] = running.calls;
    deepEqual(JSON.parse(JSON.stringify(request)), {
      image: "python:3.12",
      network: "agent-net",
      name: "task",
      memory_limit: 268_435_456,
      cpu_shares: 512,
      env: ["A=1", "B=2"],
      cmd: ["python", "-c", "print(1)", "--json", "--socket", "/no"],
      volumes: ["/p:/workspace"],
      working_dir: "/workspace",
      user: "1000:1000",
      tty: true,
      interactive: true,
      include_outcall_helper_mounts: true,
    });
  }));

Deno.test("container list, inspect, stop, remove, pull (S008-IF-008)", () =>
  withHostApi(async (running) => {
    await prints(
      running,
      "container list",
      `NAME                           IMAGE                STATE      NETWORK              CREATED
outcall-a3f7b201               my-agent:latest      running    outcall-default      2026-04-21T14:30:00Z
`,
    );
    await prints(
      running,
      "container inspect --name outcall-a3f7b201",
      `Container:    outcall-a3f7b201
ID:           a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90
Image:        my-agent:latest
State:        running
Network:      outcall-default
IP Address:   10.200.0.2
Mounts:
  /run/outcall/agent:/run/outcall:ro
Environment (values redacted):
  HTTP_PROXY=<redacted>
  NO_PROXY=<redacted>
Created:      2026-04-21T14:30:00Z
`,
    );
    await prints(
      running,
      "container stop --name outcall-a3f7b201 --timeout 0",
      'Container "outcall-a3f7b201" stopped.\n',
    );
    await prints(running, "container stop --name x", 'Container "x" was not running.\n');
    await prints(
      running,
      "container remove --name outcall-a3f7b201 --force",
      'Container "outcall-a3f7b201" removed.\n',
    );
    await prints(running, "container remove --name x", 'Container "x" did not exist.\n');
    deepEqual(
      await outcall("--socket", running.path, "container", "pull", "--image", "a/b:c"),
      {
        code: 0,
        out: 'Image "a/b:c" pulled.\n',
        err: "pulling a/b:c: 25% of 20.0 MB, 0 of 2 layers complete\n" +
          "pulling a/b:c: 75% of 20.0 MB, 1 of 2 layers complete\n",
      },
    );
    await prints(
      running,
      "--json container pull --image current",
      '{"ok":true,"image":"current","pulled":false}\n',
    );
    deepEqual(running.calls, [
      ["container.stop", "outcall-a3f7b201", 0],
      ["container.stop", "x", 10],
      ["container.remove", "outcall-a3f7b201", true],
      ["container.remove", "x", false],
      ["container.pull", "a/b:c"],
      ["container.pull", "current"],
    ]);
  }));

Deno.test("rules list and rules reload (S003-IF-011)", () =>
  withHostApi(async (running) => {
    running.answers.rules.push({
      ...OPENAI,
      id: "a-rule-with-a-name-longer-than-its-column",
      action: "block",
      condition: 'dns.query == "a" ||\n  dns.query == "b"\n',
    });
    await prints(
      running,
      "rules list",
      `ID                                        FILE                 ACTION CONDITION
allow-openai                              agent.yaml           allow  http.host == "api.openai.com"
a-rule-with-a-name-longer-than-its-column agent.yaml           block  dns.query == "a" || dns.query == "b"
`,
    );
    await prints(
      running,
      "rules reload",
      `Reloaded 1 rule(s) from 1 file(s).
  warning: unused definition "legacy" in agent.yaml
`,
    );
    running.answers.rules.length = 0;
    await prints(running, "rules list", "No rules are loaded: everything is denied.\n");
    await prints(running, "rules counters", "No rules are loaded: everything is denied.\n");
  }));

Deno.test("what agents and files name cannot steer the terminal (CWE-150)", () =>
  withHostApi(async (running) => {
    running.answers.rules = [{ ...OPENAI, id: "\x1b[2Jevil\x9b\u202e" }];
    const list = await outcall("rules", "list", "--socket", running.path);
    equal(list.out.split("\n")[1]?.split(" ")[0], "\\u001b[2Jevil\\u009b\\u202e");
    const json = await outcall("rules", "list", "--json", "--socket", running.path);
    equal(/[^\P{C}\n]/u.test(json.out), false);
    equal(JSON.parse(json.out).rules[0].id, "\x1b[2Jevil\x9b\u202e");
    const error = await outcall(
      "container",
      "inspect",
      "--name",
      "\x1bX",
      "--socket",
      running.path,
    );
    equal(error.err, 'error: container "\\u001bX" does not exist\n');
    const usage = await outcall("\x1bX");
    equal(usage.err, "error: unknown command '\\u001bX'\n");
  }));
