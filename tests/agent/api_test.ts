import { deepEqual, equal, match, ok } from "node:assert/strict";
import { Agent, request } from "node:http";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import { post, type Reply, send } from "../api/running.ts";
import { type Served, withAgentApi } from "./served.ts";

const RULES = `version: "1"
rules:
  - id: secret-name-of-a-rule
    condition: http.host == "api.openai.com" && agent.name == "worker"
    action: allow
  - id: tools
    condition: run.tool == "git" && !("--force" in run.flags) && run.context["ticket"] == "T-1"
    action: allow
`;
const RATES = {
  permissions: { count: 40, windowSecs: 60 },
  submissions: { count: 2, windowSecs: 60 },
};
const JSON_TYPE = { "Content-Type": "application/json" };

async function token(path: string): Promise<string> {
  const { text } = await send(path, "POST", "/v1/checkin");
  return /"session_token":"([^"]+)"/.exec(text)?.[1] ?? "";
}

const served = (test: (served: Served) => Promise<void>): Promise<void> =>
  withAgentApi({ rules: RULES, rates: RATES }, test);

async function asker(path: string): Promise<(body: unknown) => Promise<Reply>> {
  const headers = { ...JSON_TYPE, Authorization: `Bearer ${await token(path)}` };
  return (body) =>
    send(path, "POST", "/v1/permissions/check", { headers, body: JSON.stringify(body) });
}

Deno.test("check-in answers with identity, token and what may be sent, body or none (S004-IF-001)", () =>
  served(async ({ path }) => {
    const empty = await send(path, "POST", "/v1/checkin");
    const braces = await post(path, "/v1/checkin", {});
    deepEqual([empty.status, empty.json], [200, braces.json]);
    match(empty.text, /"session_token":"tok-[0-9a-f]{32}","context_keys":\["action_type"/);
    const more = await post(path, "/v1/checkin", { container_id: "b".repeat(64) });
    equal(more.status, 422); // ADV-AGENT-05
  }));

Deno.test("a verdict says what, and never by which rule of which file (S004-FR-010, ADV-AGENT-20)", () =>
  served(async ({ path, decisions }) => {
    const ask = await asker(path);
    const yes = await ask({ action_type: "network_call", target: "https://api.openai.com/v1" });
    match(
      yes.text,
      /^\{"ok":true,"allowed":true,"decision":"\w+","matched_rule":"rule-[0-9a-f]{12}","reason":null\}$/,
    );
    const no = await ask({ action_type: "network_call", target: "https://example.com/" });
    match(
      no.text,
      /"allowed":false,.*"matched_rule":null,"reason":"no rule allows network_call to https:/,
    );
    ok(!`${yes.text}${no.text}`.includes("secret-name"));
    deepEqual(decisions.recent().map(({ verdict, rule }) => [verdict, rule?.id ?? null]), [
      ["allow", "secret-name-of-a-rule"],
      ["block", null],
    ]);
  }));

Deno.test("arguments, flags and metadata reach the rules (S004-AS-009)", () =>
  served(async ({ path }) => {
    const ask = await asker(path);
    const git = (args: readonly string[], ticket: string): Promise<Reply> =>
      ask({
        action_type: "tool_exec",
        target: "git",
        metadata: { args_json: JSON.stringify(args), ticket },
      });
    match((await git(["push"], "T-1")).text, /"allowed":true/);
    match((await git(["push", "--force"], "T-1")).text, /"allowed":false/);
    match((await git(["push"], "T-2")).text, /"allowed":false/);
  }));

Deno.test("what is malformed is refused and nothing is decided (ADV-AGENT-05, ADV-AGENT-11, ADV-AGENT-12)", () =>
  served(async ({ path, decisions }) => {
    const ask = await asker(path);
    const net = { action_type: "network_call", target: "https://x.example/" };
    const tool = { action_type: "tool_exec", target: "git" };
    for (
      const body of [
        {},
        { ...net, agent: "admin" },
        { ...net, action_type: "sudo" },
        { ...net, target: "" },
        { ...net, target: "a\nb" },
        { ...net, target: "https://u:p@x.example/" },
        { ...net, target: "ftp://x.example/" },
        { ...net, target: "x.example:0" },
        { ...net, target: "https://x.example:0/" },
        { ...net, metadata: { protocol: "icmp" } },
        { ...net, metadata: { method: "GET /" } },
        { ...net, metadata: { port: 1 } },
        { ...tool, metadata: { args_json: "{}" } },
        { ...tool, metadata: { args_json: "[1]" } },
        { ...tool, metadata: { args_json: "[" } },
        { ...tool, metadata: { args_json: JSON.stringify(Array(1025).fill("x")) } },
      ]
    ) equal((await ask(body)).status, 422, JSON.stringify(body).slice(0, 80));
    const headers = { ...JSON_TYPE, Authorization: `Bearer ${await token(path)}` };
    const bad = await send(path, "POST", "/v1/permissions/check", { headers, body: "{" });
    equal(bad.status, 400);
    deepEqual(decisions.recent(), []);
  }));

Deno.test("a body of 65537 bytes is refused, and the next request is served (ADV-AGENT-06, S004-EC-010)", () =>
  served(async ({ path }) => {
    const headers = { ...JSON_TYPE, Authorization: `Bearer ${await token(path)}` };
    const body = "x".repeat(65_537);
    const large = await send(path, "POST", "/v1/permissions/check", { headers, body });
    deepEqual([large.status, /exceeds 65536 bytes/.test(large.text)], [413, true]);
    equal((await send(path, "POST", "/v1/checkin")).status, 200);
  }));

Deno.test("requests beyond the rate wait their turn, by Retry-After (ADV-AGENT-09)", () =>
  served(async ({ path, decisions }) => {
    const ask = await asker(path);
    const body = { action_type: "tool_exec", target: "ls" };
    for (let i = 0; i < 40; i++) equal((await ask(body)).status, 200);
    const limited = await ask(body);
    equal(limited.status, 429);
    match(String(limited.headers["retry-after"]), /^[1-9][0-9]?$/);
    equal(decisions.recent().length, 40);
  }));

Deno.test("nothing of the operator's API is here (ADV-AGENT-14)", () =>
  served(async ({ path }) => {
    for (
      const [method, url] of [
        ["GET", "/api/v1/bridge"],
        ["POST", "/api/v1/rules/reload"],
        ["GET", "/api/v1/requests/rules"],
        ["POST", "/api/v1/requests/rules/rr-000000000000/approve"],
        ["GET", "/v1/requests/rules"],
        ["DELETE", "/"],
      ] as const
    ) {
      const { status } = await send(path, method, url);
      ok(status === 404 || status === 405, `${method} ${url}: ${status}`);
    }
  }));

Deno.test("a rule request is stored before it is acknowledged, and its id is all that is needed", () =>
  served(async ({ path }) => {
    const headers = { ...JSON_TYPE, Authorization: `Bearer ${await token(path)}` };
    const rule_file =
      'version: "1"\nrules: [{ id: r, action: allow, condition: \'http.host == "a.example"\' }]\n';
    const body = JSON.stringify({ rule_file });
    const made = await send(path, "POST", "/v1/requests/rules", { headers, body });
    equal(made.status, 201);
    match(made.text, /"id":"rr-[0-9a-f]{12}","status":"pending","reason":null/);
    equal((await send(path, "POST", "/v1/requests/rules", { headers, body })).status, 200);
    equal((await send(path, "POST", "/v1/requests/rules", { headers, body })).status, 429);
    const id = /rr-[0-9a-f]{12}/.exec(made.text)?.[0] ?? "";
    equal((await send(path, "GET", `/v1/requests/rules/${id}`, { headers })).status, 200);
    equal((await send(path, "GET", `/v1/requests/rules/${id}`)).status, 401);
    equal((await send(path, "GET", `/v1/requests/rules/${id}?wait=61`, { headers })).status, 422);
    for (const other of ["rr-000000000000", "rr-..%2f..%2fescape"]) {
      equal((await send(path, "GET", `/v1/requests/rules/${other}`, { headers })).status, 404);
    }
  }));

Deno.test("an evaluation beyond its time is a denial with HTTP 200, and it is recorded (S004-FR-015, S004-EC-007, S004-AS-011)", () =>
  withAgentApi({ rules: RULES, rates: RATES, timeoutMs: -1 }, async ({ path, decisions }) => {
    const ask = await asker(path);
    const { status, text } = await ask({
      action_type: "network_call",
      target: "https://api.openai.com/",
    });
    equal(status, 200);
    match(text, /"allowed":false.*"reason":"evaluation timeout"/);
    deepEqual(decisions.recent().map(({ verdict, reason }) => [verdict, reason]), [
      ["block", "limit"],
    ]);
  }));

Deno.test("the 4097th agent gets no session, and the others keep theirs (ADV-AGENT-18)", async () => {
  let caller = 0;
  await withAgentApi(
    { rules: RULES, rates: RATES, nextCaller: () => caller },
    async ({ path }) => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const checkIn = (): Promise<number> =>
        new Promise((resolve, reject) => {
          const options = { socketPath: path, path: "/v1/checkin", method: "POST", agent };
          request(options, (response) => {
            response.resume().on("end", () => resolve(response.statusCode ?? 0));
          }).on("error", reject).end();
        });
      for (caller = 1; caller <= 4096; caller++) equal(await checkIn(), 200);
      equal(await checkIn(), 503);
      caller = 4096;
      equal(await checkIn(), 200);
      agent.destroy();
    },
  );
});

Deno.test("replies have the fields that are listed, and no others (S004-SC-004)", () =>
  served(async ({ path }) => {
    const headers = { ...JSON_TYPE, Authorization: `Bearer ${await token(path)}` };
    const rule_file = 'version: "1"\nrules: [{ id: r, action: allow, condition: "false" }]\n';
    const fields = async (
      method: string,
      url: string,
      body?: object,
    ): Promise<readonly [number, string]> => {
      const sent = body === undefined ? { headers } : { headers, body: JSON.stringify(body) };
      const { status, json } = await send(path, method, url, sent);
      ok(json instanceof Object);
      return [status, Object.keys(json).join(" ")];
    };
    const check = { action_type: "tool_exec", target: "ls" };
    const request = "ok id status reason edited expires_at";
    const made = await send(path, "POST", "/v1/requests/rules", {
      headers,
      body: JSON.stringify({ rule_file }),
    });
    const id = /rr-[0-9a-f]{12}/.exec(made.text)?.[0] ?? "";
    deepEqual(
      [
        await fields("POST", "/v1/checkin", {}),
        await fields("POST", "/v1/permissions/check", check),
        await fields("GET", `/v1/requests/rules/${id}`),
        await fields("POST", "/v1/requests/rules", { rule_file }),
        await fields("GET", "/v1/whoami"),
        await fields("GET", "/v1/requests/rules/rr-000000000000"),
      ],
      [
        [200, "ok container_id session_token context_keys"],
        [200, "ok allowed decision matched_rule reason"],
        [200, request],
        [200, request],
        [200, "ok name container_id address network limits how_to_ask"],
        [404, "ok error code"],
      ],
    );
  }));

Deno.test("one connection serves many checks", () =>
  served(async ({ path }) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const headers = { ...JSON_TYPE, Authorization: `Bearer ${await token(path)}` };
    const body = JSON.stringify({ action_type: "tool_exec", target: "ls" });
    let reused = 0;
    for (let i = 0; i < 3; i++) {
      await new Promise<void>((resolve, reject) => {
        const call = request(
          { socketPath: path, path: "/v1/permissions/check", method: "POST", agent, headers },
          (response) => response.resume().on("end", resolve),
        );
        call.on("error", reject).on("response", () => reused += call.reusedSocket ? 1 : 0);
        call.end(body);
      });
    }
    agent.destroy();
    equal(reused, 2);
  }));

Deno.test("UDP is a yes where a direct_ip rule opens it, and a no everywhere else (D12, D31)", () =>
  withAgentApi({
    rules: `version: "1"
rules:
  - id: time
    condition: |
      network.hostname == "ntp.example.com" && network.protocol == "udp" && network.port == 123
    action: allow
    egress: { mode: direct_ip }
  - id: web
    condition: 'http.host == "x.example.com" || network.ip == "9.9.9.9"'
    action: allow
`,
    rates: RATES,
  }, async ({ path }) => {
    const ask = await asker(path);
    const allowed = async (target: string, protocol: string): Promise<boolean> =>
      /"allowed":true/.test(
        (await ask({ action_type: "network_call", target, metadata: { protocol } })).text,
      );
    equal(await allowed("ntp.example.com:123", "udp"), true);
    equal(await allowed("ntp.example.com:123", "tcp"), false);
    equal(await allowed("ntp.example.com:124", "udp"), false);
    equal(await allowed("x.example.com:443", "udp"), false);
    equal(await allowed("9.9.9.9:443", "udp"), false);
    equal(await allowed("https://x.example.com/", "udp"), false);
    equal(await allowed("x.example.com:443", "tcp"), true);
  }));

Deno.test("an agent that is observed is told what the layers would do: all but what a rule blocks (D31)", async () => {
  let caller = 0;
  const rules = `version: "1"
rules: [{ id: no, action: block, condition: 'http.host == "bad.example" || run.tool == "rm"' }]
`;
  const options = { rules, rates: RATES, observed: 0, nextCaller: () => caller };
  await withAgentApi(options, async ({ path, decisions }) => {
    const answers = async (): Promise<boolean[]> => {
      const ask = await asker(path);
      const allowed: boolean[] = [];
      for (
        const [action_type, target, protocol] of [
          ["network_call", "https://x.example/", "tcp"],
          ["network_call", "http://x.example/", "tcp"],
          ["tool_exec", "git", "tcp"],
          ["file_access", "/etc/shadow", "tcp"],
          ["network_call", "https://bad.example/", "tcp"],
          ["tool_exec", "rm", "tcp"],
          // Observation opens neither what is private nor anything past the proxy.
          ["network_call", "10.0.0.1:443", "tcp"],
          ["network_call", "x.example:53", "udp"],
        ] as const
      ) {
        const { json } = await ask({ action_type, target, metadata: { protocol } });
        allowed.push(Object(json).allowed);
      }
      return allowed;
    };
    deepEqual(await answers(), [true, true, true, true, false, false, false, false]);
    deepEqual(decisions.recent().slice(0, 4).map(({ reason }) => reason), [
      "observed",
      "observed",
      "observed",
      "observed",
    ]);
    caller = 1; // Of the same name.
    deepEqual(await answers(), Array(8).fill(false));
  });
});

Deno.test("whatever agents do is logged with who they are, and never with arguments or tokens (S004-FR-016, ADV-HOST-12)", async () => {
  const records: LogRecord[] = [];
  await configure({
    sinks: { kept: (record) => records.push(record) },
    loggers: [
      { category: ["outcall", "agent_api"], lowestLevel: "debug", sinks: ["kept"] },
      { category: ["logtape", "meta"], lowestLevel: null },
    ],
  });
  try {
    await served(async ({ path }) => {
      const ask = await asker(path);
      const metadata = { args: "hunter2" };
      await ask({ action_type: "shell_exec", target: "deploy hunter2", metadata });
      const headers = { ...JSON_TYPE, Authorization: `Bearer ${await token(path)}` };
      const rule_file = 'version: "1"\nrules: [{ id: r, action: block, condition: "true" }]\n';
      const body = JSON.stringify({ rule_file });
      const { json } = await send(path, "POST", "/v1/requests/rules", { headers, body });
      await send(path, "GET", `/v1/requests/rules/${Object(json).id}`, { headers });
    });
  } finally {
    await reset();
  }
  const lines = records.map(({ message }) => message.join(""));
  const who = `worker (${"a".repeat(64)})`;
  deepEqual(lines.map((line) => line.replace(/rr-[0-9a-f]{12}/, "ID")), [
    `check-in of ${who}`,
    `permission check of ${who}: shell_exec`,
    `check-in of ${who}`,
    `rule request ID of ${who}`,
    `status query of ${who}: ID is pending`,
  ]);
});
