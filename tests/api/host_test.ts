import { deepEqual, equal, match, ok } from "node:assert/strict";
import { Hostname } from "../../lib/net/host.ts";
import { DECISION, OPENAI } from "./services.ts";
import { post, type Reply, send, withHostApi } from "./running.ts";

function get(path: string, url: string): Promise<Reply> {
  return send(path, "GET", url);
}

function field(reply: Reply, name: string): unknown {
  return reply.json instanceof Object ? Reflect.get(reply.json, name) : undefined;
}

Deno.test("GET /api/v1/bridge answers byte for byte what the guides print (D1)", () =>
  withHostApi(async ({ path, answers }) => {
    const up = await get(path, "/api/v1/bridge");
    equal(
      up.text,
      '{"ok":true,"name":"outcall0","up":true,"index":12,"nftables":"active"}',
    );
    equal(up.headers["content-type"], "application/json");
    answers.bridgeUp = false;
    equal(
      (await get(path, "/api/v1/bridge")).text,
      '{"ok":true,"name":"outcall0","up":false,"index":null,"nftables":"inactive"}',
    );
  }));

Deno.test("POST /api/v1/bridge/up needs no body and says ok (S001-IF-002)", () =>
  withHostApi(async ({ path, calls }) => {
    equal((await post(path, "/api/v1/bridge/up")).text, '{"ok":true}');
    deepEqual(calls, [["bridge.up"]]);
  }));

Deno.test("a refusal carries its status, code and hint (D1, ADV-HOST-10)", () =>
  withHostApi(async ({ path }) => {
    const reply = await post(path, "/api/v1/bridge/down");
    equal(reply.status, 409);
    deepEqual(reply.json, {
      ok: false,
      error: "containers are attached: my-agent",
      code: "bridge.busy",
      hint: "Stop them first.",
    });
  }));

Deno.test("GET /api/v1/rules lists the rules; /rule/:id shows one or 404s (S003-IF-002, -003)", () =>
  withHostApi(async ({ path }) => {
    deepEqual((await get(path, "/api/v1/rules")).json, { ok: true, rules: [OPENAI] });
    deepEqual((await get(path, "/api/v1/rule/allow-openai")).json, {
      ok: true,
      ...OPENAI,
      log: false,
      egress: {
        mode: "proxy",
        ports: null,
        allow_private_ips: false,
        tls: "sni",
        max_body_bytes: 16_777_216,
      },
      matches: 0,
      blocks: 0,
      errors: 0,
      last_matched: null,
    });
    const missing = await get(path, "/api/v1/rule/a%2Fb");
    equal(missing.status, 404);
    equal(field(missing, "error"), 'rule not found: "a/b"');
  }));

Deno.test("a reload that fails names file and line, and every problem in details (ADV-HOST-11)", () =>
  withHostApi(async ({ path, answers }) => {
    deepEqual((await post(path, "/api/v1/rules/reload")).json, {
      ok: true,
      files_loaded: 1,
      rules_loaded: 1,
      generation: 2,
      warnings: ['unused definition "legacy" in agent.yaml'],
    });
    answers.reloadFails = true;
    const reply = await post(path, "/api/v1/rules/reload");
    equal(reply.status, 422);
    match(
      reply.text,
      /^\{"ok":false,"error":"\/etc\/outcall\/rules\.d\/agent\.yaml:5: CEL parse error: undefined identifier 'http_host'",/,
    );
    const details = field(reply, "details");
    ok(Array.isArray(details));
    equal(details.length, 2);
  }));

Deno.test("a dry run normalises facts as the enforcing layers do and picks the layer", () =>
  withHostApi(async ({ path, answers, calls }) => {
    answers.verdict = {
      allowed: true,
      reason: "rule",
      rule: { id: "allow-openai", file: "agent.yaml", line: 3 },
      egress: { mode: "proxy", allowPrivateIps: false, tls: "sni" },
    };
    const reply = await post(path, "/api/v1/rule/evaluate", {
      context: { http: { host: "API.OpenAI.com.", method: "get", headers: { "X-A": "1" } } },
    });
    deepEqual(reply.json, {
      ok: true,
      decision: "allow",
      reason: "rule",
      matched_rule: "allow-openai",
      file: "agent.yaml",
      line: 3,
    });
    deepEqual(calls, [["evaluate", "http", {
      http: { host: "api.openai.com", method: "GET", headers: { "x-a": "1" } },
    }]]);
  }));

for (
  const [context, layer] of [
    [{ dns: { query: "example.com", record_type: "aaaa" } }, "dns"],
    [{ http: { host: "example.com", method: "connect" } }, "connect"],
    [{ network: { hostname: "example.com", port: 443 } }, "connect"],
    [{ run: { tool: "curl" }, network: { hostname: "example.com" } }, "agent"],
    [{ docker: { image: "x" } }, "container"],
    [{}, "connect"],
  ] as const
) {
  Deno.test(`a dry run of ${JSON.stringify(context)} is judged as ${layer}`, () =>
    withHostApi(async ({ path, calls }) => {
      equal((await post(path, "/api/v1/rule/evaluate", { context })).status, 200);
      equal(calls[0]?.[1], layer);
    }));
}

Deno.test("a dry run can name its layer", () =>
  withHostApi(async ({ path, calls }) => {
    await post(path, "/api/v1/rule/evaluate", { context: {}, layer: "sni" });
    equal(calls[0]?.[1], "sni");
    equal((await post(path, "/api/v1/rule/evaluate", { context: {}, layer: "x" })).status, 422);
  }));

Deno.test("GET /api/v1/dns/test tells what a query would get (S007-AS-012)", () =>
  withHostApi(async ({ path, calls }) => {
    const reply = await get(path, "/api/v1/dns/test?name=Example.COM&type=aaaa&agent=review");
    deepEqual(reply.json, {
      ok: true,
      hostname: "example.com",
      record_type: "AAAA",
      decision: "block",
      reason: "default",
      matched_rule: null,
      file: null,
      line: null,
      rcode: "NXDOMAIN",
      cached: false,
      type_passes: false,
      addresses: ["10.200.0.2"],
    });
    const [[call, question] = []] = calls;
    equal(call, "rehearse");
    const hostname = Hostname.parse("example.com");
    deepEqual(question, { hostname, type: 28, agentName: "review" });
    const type = async (text: string): Promise<unknown> =>
      field(await get(path, `/api/v1/dns/test?name=a.example&type=${text}`), "record_type");
    deepEqual([await type("TYPE28"), await type("type65280"), await type("https")], [
      "AAAA",
      "TYPE65280",
      "HTTPS",
    ]);
    const typo = await get(path, "/api/v1/dns/test?name=a.example&type=AAAAA");
    equal(typo.status, 422);
    equal(
      field(typo, "error"),
      'invalid query: field "type": "AAAAA" is not a record type, such as AAAA or TYPE65',
    );
    equal((await get(path, "/api/v1/dns/test?name=a.example&type=TYPE65536")).status, 422);
    equal((await get(path, "/api/v1/dns/test?name=1.2.3.4")).status, 422);
    equal((await get(path, "/api/v1/dns/test")).status, 422);
  }));

Deno.test("GET /api/v1/dns and its cache: statistics always, entries when asked (S007-IF-002)", () =>
  withHostApi(async ({ path }) => {
    equal(field(await get(path, "/api/v1/dns"), "listen_port"), 53);
    const stats = { entries: 1, max_entries: 10_000, hits: 3, misses: 5, evictions: 0 };
    deepEqual((await get(path, "/api/v1/dns/cache")).json, { ok: true, stats, entries: [] });
    deepEqual((await get(path, "/api/v1/dns/cache?entries=true")).json, {
      ok: true,
      stats,
      entries: [{ hostname: "api.openai.com", record_type: "A", ttl_remaining_secs: 42 }],
    });
    deepEqual((await post(path, "/api/v1/dns/cache/flush")).json, { ok: true, entries_flushed: 7 });
  }));

Deno.test("networks: null and absent mean the default network (S002-IF-001…004)", () =>
  withHostApi(async ({ path, calls }) => {
    await post(path, "/api/v1/network/create", { name: null });
    await post(path, "/api/v1/network/create", {});
    const undefinedFields = { name: undefined, subnet: undefined, gateway: undefined };
    for (const [, request] of calls) {
      deepEqual(Object.assign({ ...undefinedFields }, request), undefinedFields);
    }
    equal(calls.length, 2);
    deepEqual((await get(path, "/api/v1/network/config")).json, {
      ok: true,
      subnet_block: "10.200.0.0/16",
    });
    equal(field(await get(path, "/api/v1/network"), "exists"), false);
    equal(field(await get(path, "/api/v1/network?name=agent-net"), "subnet"), "10.200.0.0/24");
    deepEqual((await post(path, "/api/v1/network/destroy", { name: "agent-net" })).json, {
      ok: true,
      name: "outcall-agent-net",
      destroyed: true,
    });
  }));

Deno.test("containers: what cannot be asked for is refused by name (ADV-CONTAINER-08)", () =>
  withHostApi(async ({ path, calls }) => {
    for (const key of ["privileged", "cap_add", "ports", "pid_mode"]) {
      const reply = await post(path, "/api/v1/container/create", { image: "x", [key]: true });
      equal(reply.status, 422);
      equal(field(reply, "error"), `invalid request body: unknown field "${key}"`);
    }
    deepEqual(calls, []);
  }));

Deno.test("container stop waits 10 s unless told, and 300 s at most (ADV-CONTAINER-05)", () =>
  withHostApi(async ({ path, calls }) => {
    await post(path, "/api/v1/container/stop", { name: "a" });
    await post(path, "/api/v1/container/stop", { name: "a", timeout: 0 });
    await post(path, "/api/v1/container/stop", { name: "a", timeout: 300 });
    deepEqual(calls.map((call) => call[2]), [10, 0, 300]);
    for (const timeout of [-1, 301, 1.5, "5"]) {
      equal((await post(path, "/api/v1/container/stop", { name: "a", timeout })).status, 422);
    }
  }));

Deno.test("a pull answers at once, or line by line when asked for NDJSON", () =>
  withHostApi(async ({ path }) => {
    deepEqual((await post(path, "/api/v1/container/pull", { image: "x" })).json, {
      ok: true,
      image: "x",
      pulled: true,
    });
    const pull = async (image: string): Promise<unknown[]> => {
      const reply = await send(path, "POST", "/api/v1/container/pull", {
        body: JSON.stringify({ image }),
        headers: { "Content-Type": "application/json", Accept: "application/x-ndjson" },
      });
      equal(reply.headers["content-type"], "application/x-ndjson");
      return reply.text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
    };
    const layers = { layers: 2, bytes_total: 20_000_000 };
    const progress = [
      { progress: "pulling layer 1", ...layers, layers_done: 0, bytes: 5_000_000 },
      { progress: "pulling layer 2", ...layers, layers_done: 1, bytes: 15_000_000 },
    ];
    deepEqual(await pull("x"), [...progress, { ok: true, image: "x", pulled: true }]);
    deepEqual(await pull("missing"), [...progress, {
      ok: false,
      error: 'failed to pull image "missing": not found',
      code: "image.not_found",
      status: 404,
    }]);
  }));

Deno.test("decisions: the newest, one by id, or 404 (D28)", () =>
  withHostApi(async ({ path }) => {
    deepEqual((await get(path, "/api/v1/decisions?limit=5")).json, {
      ok: true,
      decisions: [DECISION],
      incomplete: null,
      last_event_id: "1767323045678001",
    });
    deepEqual((await get(path, `/api/v1/decisions/${DECISION.id}`)).json, {
      ok: true,
      ...DECISION,
    });
    equal((await get(path, "/api/v1/decisions/nope")).status, 404);
    for (const limit of ["0", "10001", "x", "-1", ""]) {
      equal((await get(path, `/api/v1/decisions?limit=${limit}`)).status, 422, limit);
    }
  }));

Deno.test("health always answers; ready is 503 while a part has failed (D17)", () =>
  withHostApi(async ({ path, answers }) => {
    equal((await get(path, "/api/v1/ready")).status, 200);
    answers.health.push({ name: "docker", state: "degraded", detail: "no socket" });
    deepEqual((await get(path, "/api/v1/ready")).json, {
      ok: true,
      status: "degraded",
      parts: answers.health,
    });
    answers.health.push({ name: "dns", state: "failed", detail: "port 53 is taken" });
    const health = await get(path, "/api/v1/health");
    equal(health.status, 200);
    equal(field(health, "status"), "failed");
    const ready = await get(path, "/api/v1/ready");
    equal(ready.status, 503);
    deepEqual(ready.json, {
      ok: false,
      error: "not ready: dns: port 53 is taken",
      code: "daemon.not_ready",
      parts: answers.health,
    });
    deepEqual((await get(path, "/api/v1/version")).json, { ok: true, version: "1.2.3" });
  }));

Deno.test("an unknown path is 404, a wrong method 405 with Allow, both as envelopes", () =>
  withHostApi(async ({ path }) => {
    const missing = await get(path, "/api/v2/bridge");
    equal(missing.status, 404);
    equal(field(missing, "code"), "request.not_found");
    const post405 = await post(path, "/api/v1/bridge");
    equal(post405.status, 405);
    equal(post405.headers["allow"], "GET, HEAD");
    equal(field(post405, "code"), "request.method");
    const get405 = await get(path, "/api/v1/rules/reload");
    equal(get405.status, 405);
    equal(get405.headers["allow"], "POST");
    equal((await send(path, "DELETE", "/api/v1/rule/x")).status, 405);
    equal((await send(path, "HEAD", "/api/v1/bridge")).status, 200);
  }));

Deno.test("agent API routes do not exist on the host socket (ADV-AGENT-14)", () =>
  withHostApi(async ({ path }) => {
    equal((await post(path, "/v1/checkin", {})).status, 404);
    equal((await post(path, "/v1/permissions/check", {})).status, 404);
  }));

Deno.test("a body over 1 MiB is 413, declared or chunked; one byte less is read", () =>
  withHostApi(async ({ path, calls }) => {
    const body = (bytes: number): string => {
      const shell = JSON.stringify({ image: "" });
      return JSON.stringify({ image: "x".repeat(bytes - shell.length) });
    };
    const headers = { "Content-Type": "application/json" };
    const url = "/api/v1/container/pull";
    const exact = await send(path, "POST", url, { body: body(1024 * 1024), headers });
    equal(exact.status, 200);
    const declared = await send(path, "POST", url, {
      headers: { ...headers, "Content-Length": "1048577" },
    });
    equal(declared.status, 413);
    equal(field(declared, "code"), "request.too_large");
    const chunked = await send(path, "POST", url, {
      body: body(1024 * 1024 + 1),
      headers: { ...headers, "Transfer-Encoding": "chunked" },
    });
    equal(chunked.status, 413);
    equal(calls.length, 1);
  }));

Deno.test("bodies that are not JSON are 400; JSON of another shape is 422, naming the field", () =>
  withHostApi(async ({ path, calls }) => {
    const json = { "Content-Type": "application/json; charset=utf-8" };
    const url = "/api/v1/network/create";
    const code = async (body: string, headers: Record<string, string>): Promise<unknown[]> => {
      const reply = await send(path, "POST", url, { body, headers });
      return [reply.status, field(reply, "code")];
    };
    deepEqual(await code("{", json), [400, "request.malformed"]);
    deepEqual(await code("", json), [400, "request.malformed"]);
    deepEqual(await code("{}", { "Content-Type": "text/plain" }), [400, "request.malformed"]);
    deepEqual(await code("{}", {}), [400, "request.malformed"]);
    deepEqual(await code("[]", json), [422, "request.invalid"]);
    deepEqual(await code("null", json), [422, "request.invalid"]);
    const typo = await post(path, url, { nmae: "x", subnet: 5 });
    equal(typo.status, 422);
    equal(
      field(typo, "error"),
      'invalid request body: field "subnet": expected string, received number; unknown field "nmae"',
    );
    const nested = await post(path, "/api/v1/rule/evaluate", { context: { http: { hots: "x" } } });
    equal(field(nested, "error"), 'invalid request body: unknown field "context.http.hots"');
    deepEqual(calls, []);
  }));

Deno.test("query parameters are strict: unknown and repeated ones are refused", () =>
  withHostApi(async ({ path }) => {
    const typo = await get(path, "/api/v1/dns/cache?entrie=true");
    equal(typo.status, 422);
    equal(field(typo, "error"), 'invalid query: unknown field "entrie"');
    equal((await get(path, "/api/v1/network?name=a&name=b")).status, 422);
    equal((await get(path, "/api/v1/bridge?x=1")).status, 422);
    equal((await get(path, "/api/v1/container")).status, 422);
  }));

Deno.test("a defect is told as internal, without its text", () =>
  withHostApi(async ({ path, answers }) => {
    Object.defineProperty(answers, "rules", {
      get: () => {
        throw new Error("/root/secret");
      },
    });
    const reply = await get(path, "/api/v1/rules");
    equal(reply.status, 500);
    deepEqual(reply.json, {
      ok: false,
      error: "internal error",
      code: "internal",
      hint: "The daemon's log has the details.",
    });
  }));
