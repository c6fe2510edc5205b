import assert from "node:assert/strict";
import { REFUSED_HEADS } from "./heads.ts";
import { Origin } from "./raw.ts";
import { getRequest, Lab, ok, type TestRule } from "./support.ts";

const ALLOW_A = { condition: 'http.host == "a.example"' };

/** The request with its closing field, as origins end a connection after one answer. */
function closing(url: string, ...fields: string[]): string {
  return getRequest(url, "Connection: close", ...fields);
}

Deno.test("an allowed GET is forwarded in origin form and its answer comes back (S006-AS-001, SC-001)", async () => {
  await using origin = Origin.answering(ok("hello", "X-Up: 1"));
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  const url = `http://a.example:${origin.port}/v1/data?q=1`;
  const answer = await lab.exchange(closing(url, "Accept: */*", "Proxy-Connection: x"));
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
  assert.match(answer, /\r\nX-Up: 1\r\n/);
  assert.match(answer, /\r\n\r\nhello$/);
  assert.deepEqual(origin.received, [
    `GET /v1/data?q=1 HTTP/1.1\r\nHost: a.example:${origin.port}\r\nAccept: */*\r\nConnection: close\r\n\r\n`,
  ]);
  assert.deepEqual(await lab.record(), ["allow http rule"]);
  const [decision] = await lab.recent();
  assert.deepEqual(decision?.attempt, {
    host: "a.example",
    port: origin.port,
    method: "GET",
    path: "/v1/data", // without the query: it may hold secrets
    address: "127.0.0.1",
  });
  assert.equal(decision?.rule?.id, "rule-0");
});

Deno.test("a blocked GET gets a 403 that says what, where and how to ask, and no rule; nothing arrives (S006-AS-002, S006-IF-004)", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({
    rules: [{ condition: 'http.path == "/secret-rule"', action: "block" }, ALLOW_A],
  });
  const answer = await lab.exchange(closing(`http://a.example:${origin.port}/secret-rule?token=1`));
  const [decision] = await lab.recent();
  assert.match(answer, /^HTTP\/1\.1 403 Forbidden\r\n/);
  assert.match(answer, /\r\nX-Outcall-Block-Reason: rule\r\n/);
  assert.match(answer, new RegExp(`\r\nX-Outcall-Decision: ${decision?.id}\r\n`));
  assert.match(answer, /\r\n\r\nBlocked by outcall: GET http:\/\/a\.example:[0-9]+\/secret-rule: /);
  assert.match(answer, /layer: http, reason: rule/);
  assert.match(answer, /outcall-agent request http:\/\/a\.example/);
  assert.doesNotMatch(answer, /rule-0|test\.yaml|token=1/);
  assert.deepEqual(await lab.record(), ["block http rule"]);
  assert.deepEqual(origin.received, []);
  assert.deepEqual(lab.resolved, []); // not even a look-up
});

Deno.test("a refusal is JSON for those who ask for it, and has no body for HEAD", async () => {
  await using lab = await Lab.start({ rules: [] });
  const json = await lab.exchange(
    getRequest("http://a.example/", "Accept: text/html, application/json;q=0.9"),
  );
  const body: unknown = JSON.parse(json.slice(json.indexOf("\r\n\r\n")));
  const [decision] = await lab.recent();
  assert.match(json, /\r\nContent-Type: application\/json\r\n/);
  assert.deepEqual(body, {
    ok: false,
    error:
      "Blocked by outcall: GET http://a.example/: not allowed by policy (layer: http, reason: default)",
    code: "proxy.default",
    layer: "http",
    reason: "default",
    decision: decision?.id,
    hint: 'outcall-agent request http://a.example --reason "<why you need it>"',
  });
  const head = await lab.exchange("HEAD http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
  assert.match(head, /^HTTP\/1\.1 403 .*\r\n\r\n$/s);
  assert.match(head, /\r\nContent-Length: [1-9]/);
});

Deno.test("host, method, path, headers and body size are what rules see (S006-FR-007, S006-AS-006, S006-EC-007)", async () => {
  await using origin = Origin.answering(ok("x"));
  const port = origin.port;
  await using lab = await Lab.start({
    rules: [{
      condition: 'network.hostname.endsWith(".internal.corp") && http.method == "PATCH" && ' +
        `http.path == "/status" && network.port == ${port} && network.protocol == "tcp" && ` +
        'http.headers["x-tenant"] == "blue" && http.body_size == 3 && agent.name == "worker"',
    }],
  });
  const request = (method: string, path: string, tenant: string, body: string): string =>
    [
      `${method} http://api.internal.corp:${port}${path} HTTP/1.1`,
      `Host: api.internal.corp:${port}`,
      `X-Tenant: ${tenant}`,
      `Content-Length: ${body.length}`,
      "Connection: close",
      "",
      body,
    ].join("\r\n");
  assert.match(await lab.exchange(request("PATCH", "/status", "blue", "abc")), / 200 /);
  assert.match(await lab.exchange(request("GET", "/status", "blue", "abc")), / 403 /);
  assert.match(await lab.exchange(request("PATCH", "/other", "blue", "abc")), / 403 /);
  assert.match(await lab.exchange(request("PATCH", "/status", "red", "abc")), / 403 /);
  assert.match(await lab.exchange(request("PATCH", "/status", "blue", "abcd")), / 403 /);
  assert.equal(origin.received.length, 1);
});

Deno.test("a header that Connection strips cannot satisfy a rule", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({ rules: [{ condition: 'http.headers["x-key"] == "1"' }] });
  const url = `http://a.example:${origin.port}/`;
  assert.match(
    await lab.exchange(getRequest(url, "X-Key: 1", "Connection: close, x-key")),
    / 403 /,
  );
  assert.match(await lab.exchange(closing(url, "X-Key: 1")), / 200 /);
  assert.equal(origin.received.length, 1);
});

Deno.test("a path that can be read in two ways is refused where policy would differ", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({
    rules: [
      { condition: 'http.path.startsWith("/admin")', action: "block" },
      { condition: 'http.path.startsWith("/public/") || http.path.startsWith("/%61")' },
    ],
  });
  const url = `http://a.example:${origin.port}`;
  for (
    const path of [
      "/public/..%2fadmin",
      "/public/../admin",
      "/public/%2e%2e/admin",
      "/public/..;/admin",
      "//admin",
    ]
  ) {
    assert.match(await lab.exchange(closing(url + path)), / 403 /, path);
  }
  // Allowed in its normal form only, or in its raw form only.
  assert.match(await lab.exchange(closing(`${url}/x/../public/y`)), / 400 /);
  assert.match(await lab.exchange(closing(`${url}/%61`)), / 403 /);
  assert.equal(origin.received.length, 0);
  // Read in two ways, allowed in both: it goes on as it was sent (signed URLs depend on it).
  assert.match(await lab.exchange(closing(`${url}/public/a%2Fb%7e`)), / 200 /);
  assert.match(origin.received[0] ?? "", /^GET \/public\/a%2Fb%7e HTTP/);
  assert.ok((await lab.record()).includes("block http malformed"));
});

Deno.test("a path whose parameters servers may take out is refused where policy would differ", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({
    rules: [{ condition: 'http.path == "/admin"', action: "block" }, { condition: "true" }],
  });
  const url = `http://a.example:${origin.port}`;
  for (const path of ["/;/admin", "/admin;x", "/;v=1/admin;y", "/admin%3bx", "/;%2fadmin"]) {
    assert.match(await lab.exchange(closing(url + path)), / 400 /, path);
  }
  assert.match(await lab.exchange(closing(`${url}/admin`)), / 403 /);
  assert.equal(origin.received.length, 0);
  assert.match(await lab.exchange(closing(`${url}/other;v=1/a`)), / 200 /);
  assert.match(origin.received[0] ?? "", /^GET \/other;v=1\/a HTTP/);
});

Deno.test("a header that can be read in two ways is refused where policy would differ", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({
    rules: [
      {
        condition: '"x-role" in http.headers && http.headers["x-role"] == "admin"',
        action: "block",
      },
      { condition: 'http.headers["x_key"] == "k"' },
    ],
  });
  const attempt = (...fields: readonly string[]): Promise<string> =>
    lab.exchange(closing(`http://a.example:${origin.port}/`, ...fields));
  const ambiguous: readonly (readonly string[])[] = [
    ["X-Role: user", "X-Role: admin"],
    ["X-Role: admin", "X-Role: user"],
    ["X_Role: admin"],
    ["X-Role: user", "x_role: admin"],
    ["X.Role: admin"],
    ["X-Role: user", "X!Role: admin"],
    ["X_Key: no", "X_Key: k"],
  ];
  for (const fields of ambiguous) {
    assert.match(await attempt("X_Key: k", ...fields), /^HTTP\/1\.1 40[03] /, fields.join());
  }
  assert.match(await attempt("X_Key: k", "X-Role: admin"), / 403 /);
  assert.match(await attempt("X-Key: k"), / 403 /);
  assert.deepEqual(origin.received, []);
  assert.match(await attempt("X_Key: k", "Accept: a", "Accept: b", "X_Role: user"), / 200 /);
  assert.match(origin.received[0] ?? "", /\r\nAccept: a\r\nAccept: b\r\nX_Role: user\r\n/);
});

Deno.test("what is ambiguous in two respects is judged in every combination", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({
    rules: [
      { condition: 'http.path == "/admin" && http.body_size > 1000', action: "block" },
      ALLOW_A,
    ],
  });
  const authority = `a.example:${origin.port}`;
  const answer = await lab.exchange(
    `POST http://${authority}/;/admin HTTP/1.1\r\nHost: ${authority}\r\n` +
      "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
  );
  assert.match(answer, /^HTTP\/1\.1 400 /);
  assert.deepEqual(origin.received, []);
});

Deno.test("a chunked body cannot hide its size from a rule: 411", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({ rules: [] });
  const send = async (...rules: TestRule[]): Promise<string> => {
    await lab.reload(rules);
    return await lab.exchange(
      `POST http://a.example:${origin.port}/ HTTP/1.1\r\nHost: a.example:${origin.port}\r\n` +
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\n\r\n",
    );
  };
  const blocks = (condition: string): TestRule => ({ condition, action: "block" });
  for (
    const condition of ["http.body_size > 1000", "http.body_size == 1", "http.body_size % 2 == 1"]
  ) {
    assert.match(await send(blocks(condition), ALLOW_A), /^HTTP\/1\.1 411 /, condition);
  }
  assert.match(await send({ condition: "http.body_size < 1000" }), /^HTTP\/1\.1 411 /);
  assert.match(await send(blocks("http.body_size == 0"), ALLOW_A), /^HTTP\/1\.1 403 /);
  assert.deepEqual(origin.received, []);
  const elsewhere = blocks('http.host == "b.example" && http.body_size > 1000');
  const small = { condition: "http.body_size < 1000" };
  assert.match(await send(elsewhere, small, ALLOW_A), /^HTTP\/1\.1 200 /);
});

Deno.test("malformed and ambiguous requests are answered, recorded, and reach nobody (ADV-HTTP-01 to 17, S006-EC-017)", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({ rules: [{ condition: "true" }] });
  const url = `http://a.example:${origin.port}/`;
  const requests: readonly (readonly [string, number])[] = [
    [closing(url) + closing(url), 400], // ADV-HTTP-01
    [`${closing(url, "Content-Length: 1")}ab`, 400], // ADV-HTTP-09
    [closing(url, "Content-Length: 1", "Transfer-Encoding: chunked"), 400],
    [closing(url, "Content-Length: 16777217"), 413],
    [closing(url, `X: ${"a".repeat(8192)}`), 431],
    [closing(url).replaceAll("\r\n", "\n"), 400],
    [closing(url, "Expect: magic"), 417],
    [`\x16\x03\x01\x02\x00\n`, 400], // TLS on the proxy's own port
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505],
    ["GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 400],
  ];
  for (const [text, status] of requests) {
    const answer = await lab.exchange(text);
    assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), JSON.stringify(text.slice(0, 80)));
    assert.match(answer, /\r\nX-Outcall-Decision: /);
  }
  assert.deepEqual(origin.received, []);
  assert.equal((await lab.record()).length, requests.length);
  assert.ok(
    (await lab.record()).every((line) => /^block http (malformed|limit)$/.test(line)),
    (await lab.record()).join(),
  );
});

Deno.test("what can be read in two ways is refused on the wire, and no name is looked up for it (ADV-HTTP-03 to -16, -20, -21, ADV-TLS-02 to -04)", async () => {
  await using lab = await Lab.start({ rules: [{ condition: "true" }] });
  for (const [name, text, status] of REFUSED_HEADS) {
    const answer = await lab.exchange(text);
    assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} [^]*\r\nX-Outcall-Decision: `), name);
  }
  assert.deepEqual(lab.resolved, []);
  const record = await lab.record();
  assert.equal(record.length, REFUSED_HEADS.length);
  assert.ok(record.every((line) => /^block http (malformed|limit)$/.test(line)), record.join());
});

Deno.test("what Connection names stays here, Host and framing excepted, and a method is one in any case (ADV-HTTP-02, -19, -21)", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({ rules: [{ condition: 'http.method == "POST"' }] });
  const chunked = ["Transfer-Encoding: chunked", "Connection: close, X-Hop, Host", "X-Hop: 1"];
  const request = closing(`http://a.example:${origin.port}/`, ...chunked, "TE: trailers")
    .replace(/^GET/, "pOsT");
  assert.match(await lab.exchange(`${request}1\r\nx\r\n0\r\n\r\n`), / 200 /);
  const [received = ""] = origin.received;
  assert.match(received, new RegExp(`^POST / HTTP/1\\.1\r\nHost: a\\.example:${origin.port}\r\n`));
  assert.match(received, /\r\nTransfer-Encoding: chunked\r\n/);
  assert.doesNotMatch(received, /x-hop|\bTE:/i);
});

Deno.test("nothing is sent to ports where other services could take its lines for commands", async () => {
  await using lab = await Lab.start({
    rules: [ALLOW_A, { condition: 'http.host == "b.example" && network.port == 25' }],
    names: {},
  });
  const request = (host: string): string =>
    `POST http://${host}/ HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 6\r\n\r\nQUIT\r\n`;
  for (const port of [22, 25, 6379, 6667]) {
    const answer = await lab.exchange(request(`a.example:${port}`));
    assert.match(answer, /^HTTP\/1\.1 403 [^]*X-Outcall-Block-Reason: port\r\n/, `${port}`);
  }
  assert.deepEqual(lab.resolved, []);
  assert.match(await lab.exchange(request("b.example:25")), /^HTTP\/1\.1 502 /);
  assert.deepEqual(lab.resolved, ["b.example"]);
});

Deno.test("keep-alive: each request on a connection is judged for itself (D26)", async () => {
  await using origin = Origin.answering(ok("hello"));
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  using client = await lab.connect();
  for (let i = 0; i < 3; i++) {
    await client.send(getRequest(`http://a.example:${origin.port}/${i}`));
    assert.match(await client.until(/hello$/), /\r\nConnection: keep-alive\r\n/);
  }
  await client.send(getRequest(`http://b.example:${origin.port}/`));
  assert.match(await client.rest(), /^HTTP\/1\.1 403 /);
  assert.deepEqual(origin.received.map((text) => text.split(" ")[1]), ["/0", "/1", "/2"]);
  assert.deepEqual(await lab.record(), [
    "allow http rule",
    "allow http rule",
    "allow http rule",
    "block http default",
  ]);
  assert.equal(lab.proxy.status().requests_total, 4);
  assert.equal(lab.proxy.status().requests_blocked, 1);
});

Deno.test("a redirect is the client's business: its target is judged like any request (ADV-HTTP-27)", async () => {
  await using origin = Origin.answering(
    "HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n",
  );
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  using client = await lab.connect();
  await client.send(getRequest(`http://a.example:${origin.port}/`));
  assert.match(await client.until(/\r\n\r\n/), /\r\nLocation: http:\/\/evil\.example\/\r\n/);
  await client.send(getRequest("http://evil.example/"));
  assert.match(await client.rest(), /^HTTP\/1\.1 403 /);
});

Deno.test("a response of any framing reaches the client whole", async () => {
  const responses: readonly (readonly [string, RegExp])[] = [
    [
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
      /\r\n\r\n5\r\nhello\r\n0\r\n\r\n$/,
    ],
    ["HTTP/1.0 200 OK\r\n\r\nhello", /Transfer-Encoding: chunked\r\n.*5\r\nhello\r\n0\r\n\r\n$/s],
    [
      "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
      /204 No Content\r\nX: y\r\nConnection: close\r\n\r\n$/,
    ],
    [
      "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
      /Content-Length: 9\r\nConnection: close\r\n\r\n$/,
    ],
    // Some clients would take an interim response for the answer.
    ["HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + ok("x"), /^HTTP\/1\.1 200 [^]*\r\n\r\nx$/],
    ["HTTP/1.1 100 Continue\r\n\r\n" + ok("x"), /^HTTP\/1\.1 200 /],
  ];
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  for (const [response, expected] of responses) {
    await using origin = Origin.answering(response);
    assert.match(await lab.exchange(closing(`http://a.example:${origin.port}/`)), expected);
  }
  await using old = Origin.answering(
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
  );
  const answer = await lab.exchange(`GET http://a.example:${old.port}/ HTTP/1.0\r\n\r\n`);
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\nConnection: close\r\n\r\nhello$/);
});

Deno.test("an upstream that fails or cheats gives 502 before the answer has begun, and a cut answer after (S006-FR-021)", async () => {
  const bad = [
    "",
    "nonsense\r\n\r\n",
    "HTTP/1.1 200 OK\nX: y\n\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    `HTTP/1.1 200 OK\r\nX: ${"y".repeat(70_000)}\r\n\r\n`,
    "HTTP/1.1 102 Processing\r\n\r\n".repeat(20),
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5",
  ];
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  for (const response of bad) {
    await using origin = Origin.answering(response);
    const answer = await lab.exchange(closing(`http://a.example:${origin.port}/`));
    assert.match(answer, /^HTTP\/1\.1 502 Bad Gateway\r\n/, response.slice(0, 60));
    assert.doesNotMatch(answer, /X-Outcall-Block-Reason/);
    const last = (await lab.recent()).at(-1);
    assert.match(answer, new RegExp(`X-Outcall-Decision: ${last?.id}\r\n`));
    assert.equal(last?.reason, "upstream_failed", response.slice(0, 60));
  }
  await using cut = Origin.answering(
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
  );
  const answer = await lab.exchange(closing(`http://a.example:${cut.port}/`));
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n[^]*3\r\nhel\r\n$/);
  const each = ["allow http rule", "block dial upstream_failed"];
  assert.deepEqual(await lab.record(), [...bad, cut].flatMap(() => each));
  assert.equal(lab.proxy.status().requests_blocked, 0);
});

Deno.test("a client that knows no chunks is told by a reset that an answer is not whole", async () => {
  await using origin = Origin.answering(
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
  );
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  using client = await lab.connect();
  await client.send(`GET http://a.example:${origin.port}/ HTTP/1.0\r\n\r\n`);
  await assert.rejects(async () => {
    while (await client.conn.read(new Uint8Array(1000)) !== null);
  }, Deno.errors.ConnectionReset);
});

Deno.test("a name that does not resolve, or an address that refuses, is 502 and generic (S006-EC-002, EC-003)", async () => {
  await using lab = await Lab.start({
    rules: [{ condition: "true" }],
    names: { "a.example": ["127.0.0.1"] },
  });
  const unresolved = await lab.exchange(closing("http://nowhere.example/"));
  assert.match(unresolved, /^HTTP\/1\.1 502 Bad Gateway\r\n/);
  assert.doesNotMatch(unresolved, /no such name|Blocked by outcall/);
  const { port } = new URL(`http://x:${await freePort()}`);
  assert.match(await lab.exchange(closing(`http://a.example:${port}/`)), /^HTTP\/1\.1 502 /);
  assert.deepEqual(await lab.record(), [
    "block dial upstream_failed",
    "block dial upstream_failed",
  ]);
  assert.equal(lab.proxy.status().requests_blocked, 0);
});

/** A port that nothing listens on. */
function freePort(): Promise<number> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return Promise.resolve(listener.addr.port);
}

Deno.test("a silent upstream is 504, a dribbled head 408, a dribbled body 408 (S006-AS-007, ADV-HTTP-18)", async () => {
  await using silent = new Origin(async (client) => void await client.rest());
  await using lab = await Lab.start({ rules: [ALLOW_A], limits: { idleMs: 500, headMs: 500 } });
  const url = `http://a.example:${silent.port}/`;
  assert.match(await lab.exchange(closing(url)), /^HTTP\/1\.1 504 Gateway Timeout\r\n/);
  assert.match(
    await lab.exchange("GET http://a.example/ HT"),
    /^HTTP\/1\.1 408 Request Timeout\r\n/,
  );
  assert.match(await lab.exchange(getRequest(url, "Content-Length: 5")), /^HTTP\/1\.1 408 /);
  assert.equal(await lab.exchange(""), ""); // nothing was asked, nothing is answered or recorded
  assert.deepEqual(await lab.record(), [
    "allow http rule",
    "block dial upstream_failed",
    "block http limit",
    "allow http rule",
    "block http limit",
  ]);
});

Deno.test("an answer that comes before the request was read is passed on", async () => {
  await using origin = Origin.answering("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  using client = await lab.connect();
  await client.send(getRequest(`http://a.example:${origin.port}/`, "Content-Length: 1000000"));
  const answer = await client.rest();
  assert.match(answer, /^HTTP\/1\.1 413 Too Large\r\n/);
  assert.match(answer, /\r\nConnection: close\r\n\r\nno$/);
});

Deno.test("a refused upload can read its refusal, though it sends on", async () => {
  await using lab = await Lab.start({ rules: [] });
  using client = await lab.connect();
  await client.send(getRequest("http://a.example/", "Content-Length: 8000000"));
  await client.send("x".repeat(8_000_000));
  assert.match(await client.rest(), /^HTTP\/1\.1 403 /);
});

Deno.test("a slow reader is waited for, not stored: the origin feels the back-pressure (ADV-HTTP-29)", async () => {
  const total = 64 * 1024 * 1024;
  let sentBytes = 0;
  await using origin = new Origin(async (client) => {
    await client.until(/\r\n\r\n/);
    await client.send(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`);
    const piece = new Uint8Array(1024 * 1024);
    for (; sentBytes < total; sentBytes += piece.length) await client.send(piece);
  });
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  using client = await lab.connect();
  await client.send(closing(`http://a.example:${origin.port}/`));
  let before = -1;
  while (sentBytes !== before) {
    before = sentBytes;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  assert.ok(sentBytes < total / 2, `${sentBytes} bytes left the origin unread`);
});

Deno.test("the health check answers agents and is never forwarded (S006-IF-006, ADV-HTTP-24)", async () => {
  await using lab = await Lab.start({ rules: [{ condition: "true" }] });
  const answer = await lab.exchange("GET /outcall-health HTTP/1.1\r\nHost: gateway\r\n\r\n");
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\nContent-Type: application\/json\r\n/);
  assert.match(answer, /\r\n\r\n\{"status":"ok"\}$/);
  assert.deepEqual(lab.resolved, []);
  assert.equal(lab.proxy.status().requests_total, 0);
});
