import assert from "node:assert/strict";
import fc from "fast-check";
import { bytesOf, textOf } from "../../lib/proxy/bytes.ts";
import { fieldsForUpstream, hostFieldValue, readingsOf } from "../../lib/proxy/facts.ts";
import { endToEnd, headEnd, renderHead } from "../../lib/proxy/fields.ts";
import {
  type ForwardRequest,
  MAX_FIELDS,
  MAX_HEAD_BYTES,
  parseRequestHead,
  type RequestHead,
} from "../../lib/proxy/head.ts";
import { fuzz } from "./fuzz.ts";
import { get, head, REFUSED_HEADS } from "./heads.ts";

function parse(text: string): RequestHead {
  return parseRequestHead(bytesOf(text));
}

function forwarded(text: string): ForwardRequest {
  const parsed = parse(text);
  assert.ok(parsed.kind === "forward", JSON.stringify(parsed));
  return parsed;
}

function assertRefused(text: string, status: number, problem: RegExp): void {
  const parsed = parse(text);
  assert.equal(parsed.kind, "refused", JSON.stringify(text.slice(0, 200)));
  assert.ok(parsed.kind === "refused");
  assert.equal(parsed.status, status);
  assert.match(parsed.problem, problem);
}

Deno.test("a plain request is taken apart (S006-FR-003)", () => {
  const request = forwarded(head(
    "post http://API.Example.:8080/a/b?q=1 HTTP/1.1",
    "Host: api.example:8080",
    "Content-Length: 12",
    "X-Two:  spaced out \t",
  ));
  assert.equal(request.method, "POST"); // ADV-HTTP-21: judged and sent on in one spelling
  assert.equal(String(request.target.host), "api.example");
  assert.equal(request.target.port, 8080);
  assert.equal(request.target.path, "/a/b");
  assert.equal(request.target.query, "?q=1");
  assert.deepEqual(request.body, { kind: "length", bytes: 12 });
  assert.equal(request.persistent, true);
  assert.equal(request.fields[2]?.value, "spaced out");
});

Deno.test("CONNECT is taken apart, with Host in any way that agrees (S006-IF-002)", () => {
  for (
    const text of [
      head("CONNECT Api.Example:443 HTTP/1.1", "Host: api.example:443"),
      head("CONNECT api.example.:443 HTTP/1.1", "Host: API.EXAMPLE"),
      head("CONNECT api.example:443 HTTP/1.0"),
    ]
  ) {
    const parsed = parse(text);
    assert.equal(parsed.kind, "tunnel", text);
    assert.ok(parsed.kind === "tunnel");
    assert.equal(String(parsed.host), "api.example");
    assert.equal(parsed.port, 443);
  }
});

Deno.test("the health check is known by its exact path (S006-FR-022, ADV-HTTP-24)", () => {
  assert.equal(parse(head("GET /outcall-health HTTP/1.1", "Host: 10.200.0.1:8080")).kind, "health");
  for (const path of ["/outcall-health?x", "/outcall-health/", "/Outcall-health", "/"]) {
    assertRefused(head(`GET ${path} HTTP/1.1`, "Host: a"), 400, /absolute/);
  }
  assertRefused(head("POST /outcall-health HTTP/1.1", "Host: a"), 400, /GET/);
  assertRefused(
    head("GET /outcall-health HTTP/1.1", "Host: a", "Content-Length: 0"),
    400,
    /no body/,
  );
});

Deno.test("what can be read in two ways is refused", async (t) => {
  for (const [name, text, status, problem] of REFUSED_HEADS) {
    await t.step(name, () => assertRefused(text, status, problem));
  }
});

Deno.test("odd spellings of a host are refused, usual ones are one host (ADV-HTTP-22)", () => {
  for (
    const host of [
      "[fe80::1%25eth0]",
      "2130706433",
      "0177.0.0.1",
      "0x7f.1",
      "127.1",
      "1.2.3.4.5",
      "a..example",
      "-a.example",
      "a.example..",
      "%61.example",
      "b\xc3\xbccher.example",
      "xn--.example",
      "[::1",
      "::1",
      "a.example:80:80",
      "[127.0.0.1]",
    ]
  ) {
    const text = head(`GET http://${host}/ HTTP/1.1`, `Host: ${host}`);
    assertRefused(text, 400, /authority|request line/);
  }
  for (const host of ["XN--BCHER-KVA.Example", "xn--bcher-kva.example."]) {
    const request = forwarded(head(`GET http://${host}/ HTTP/1.1`, "Host: xn--bcher-kva.example"));
    assert.equal(String(request.target.host), "xn--bcher-kva.example");
  }
  const literal = forwarded(head("GET http://[2001:DB8:0::1]/ HTTP/1.1", "Host: [2001:db8::1]:80"));
  assert.equal(String(literal.target.host), "2001:db8::1");
  assert.equal(hostFieldValue(literal.target.host, 80), "[2001:db8::1]");
});

Deno.test("head limits: 8 KiB and 128 fields pass, one more is 431 (ADV-HTTP-17, S006-EC-006)", () => {
  const rest = get("X: ").length;
  assert.equal(parse(get(`X: ${"a".repeat(MAX_HEAD_BYTES - rest)}`)).kind, "forward");
  assertRefused(get(`X: ${"a".repeat(MAX_HEAD_BYTES - rest + 1)}`), 431, /8192/);
  const fields = (count: number): string[] => Array.from({ length: count }, (_, i) => `X${i}: y`);
  assert.equal(parse(get(...fields(MAX_FIELDS - 1))).kind, "forward");
  assertRefused(get(...fields(MAX_FIELDS)), 431, /128/);
});

Deno.test("the end of a head is found wherever its bytes were split; a bare LF is told at once", () => {
  const bytes = bytesOf(`${get("X: y")}rest`);
  const end = bytes.length - 4;
  for (let split = 0; split < bytes.length; split++) {
    const first = headEnd(bytes.subarray(0, split), 0);
    assert.equal(first, split >= end ? end : null);
    if (first === null) assert.equal(headEnd(bytes, Math.max(0, split - 3)), end);
  }
  assert.equal(headEnd(bytesOf("GET / HTTP/1.1\n"), 0), "bare_line_feed"); // ADV-HTTP-15
  assert.equal(headEnd(bytesOf("GET / HTTP/1.1\r\nA: b\n\r\n"), 0), "bare_line_feed");
  assert.equal(headEnd(bytesOf("\n"), 0), "bare_line_feed");
});

Deno.test("hop-by-hop fields and those Connection names do not pass; Host and framing stay ours (ADV-HTTP-19)", () => {
  const request = forwarded(head(
    "PUT http://a.example/ HTTP/1.1",
    "Connection: X-Private, Host, Content-Length, close",
    "Proxy-Connection: keep-alive",
    "Keep-Alive: timeout=5",
    "Proxy-Authorization: Basic c2VjcmV0",
    "Proxy-Authenticate: x",
    "TE: trailers",
    "Trailer: x",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABk",
    "X-Private: 1",
    "X-Kept: 2",
    "Host: A.example:80",
    "Content-Length: 3",
  ));
  const sent = fieldsForUpstream(request).map(({ spelling, value }) => `${spelling}: ${value}`);
  assert.deepEqual(sent, [
    "Host: a.example",
    "HTTP2-Settings: AAMAAABk",
    "X-Kept: 2",
    "Content-Length: 3",
    "Connection: close",
  ]);
  assert.equal(request.persistent, false);
});

Deno.test("rules see the headers that go upstream, joined, decoded, and nothing inherited", () => {
  const request = forwarded(get(
    "X: 1",
    "x: 2",
    "__proto__: p",
    "Name: J\xc3\xbcrgen",
    "Connection: X-Hidden",
    "X-Hidden: y",
  ));
  const [reading] = readingsOf(request, fieldsForUpstream(request), {
    name: "agent",
    address: "10.200.0.2",
    network: "outcall-agent-net",
  });
  const headers = reading?.facts.http?.headers ?? {};
  assert.equal(headers["x"], "1, 2");
  assert.equal(headers["name"], "Jürgen");
  assert.equal(headers["host"], "a.example");
  assert.equal(headers["x-hidden"], undefined);
  assert.equal(Object.getOwnPropertyDescriptor(headers, "__proto__")?.value, "p");
  assert.equal(headers["constructor"], undefined);
});

Deno.test("a WebSocket is the only upgrade that is understood; others are dropped like any hop-by-hop field (D26)", () => {
  const asked = (...fields: readonly string[]): boolean => forwarded(get(...fields)).webSocket;
  const upgrade = ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket"];
  const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
  const version = "Sec-WebSocket-Version: 13";
  assert.equal(asked(...upgrade, key, version), true);
  for (
    const fields of [
      ["Upgrade: websocket", key, version],
      ["Connection: upgrade", "Upgrade: h2c", key, version],
      ["Connection: upgrade", "Upgrade: websocket, h2c", key, version],
      [...upgrade, key, version, "Content-Length: 1"],
      [...upgrade, version],
      [...upgrade, version, key, key],
      [...upgrade, version, "Sec-WebSocket-Key: short"],
      [...upgrade, key],
      [...upgrade, key, "Sec-WebSocket-Version: 8"],
    ]
  ) assert.equal(asked(...fields), false, fields.join());
});

Deno.test("an accepted head is read the same after it was rendered again (property)", () => {
  const token = fc.stringMatching(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}$/);
  const value = fc.stringMatching(/^[!-~]([ -~]{0,20}[!-~])?$/);
  fc.assert(
    fc.property(token, fc.array(fc.tuple(token, value), { maxLength: 20 }), (method, extra) => {
      const critical = /^(host|content-length|transfer-encoding|expect|connection|upgrade)$/i;
      const lines = extra.filter(([name]) => !critical.test(name)).map(([name, text]) =>
        `${name}: ${text}`
      );
      const parsed = parse(
        head(`${method} http://a.example/ HTTP/1.1`, "Host: a.example", ...lines),
      );
      if (method.toUpperCase() === "CONNECT") return assert.equal(parsed.kind, "refused");
      assert.equal(parsed.kind, "forward");
      assert.ok(parsed.kind === "forward");
      const again = parse(renderHead(`${parsed.method} http://a.example/ HTTP/1.1`, parsed.fields));
      assert.deepEqual(again, parsed);
    }),
    { numRuns: 500 },
  );
});

Deno.test("fuzz: any bytes give a request or a refusal, and a request is sound", () => {
  const seeds = [
    get("Accept: */*", "Content-Length: 5", "Connection: keep-alive, X"),
    get("Transfer-Encoding: chunked", "Expect: 100-continue"),
    head("CONNECT a.example:443 HTTP/1.1", "Host: a.example:443", "Proxy-Connection: Keep-Alive"),
    head("GET http://[2001:db8::1]:8080/a/../%2e/b?c HTTP/1.1", "Host: [2001:db8::1]:8080"),
    head("GET /outcall-health HTTP/1.1", "Host: 10.200.0.1"),
  ].map((text) => bytesOf(text));
  const spice = bytesOf("\r\n\0\t :,;@#%/\\[]0\x7f\x80\xff\xc3");
  fuzz(
    (random) => {
      if (random.below(20) === 0) {
        return random.bytes(random.below(64));
      }
      return random.mutate(random.pick(seeds), spice);
    },
    (input) => {
      const parsed = parseRequestHead(input);
      if (parsed.kind === "refused") return;
      for (const { name, value } of parsed.fields) {
        assert.match(name, /^[!#$%&'*+\-.^_`|~0-9a-z]+$/);
        assert.doesNotMatch(value, /[\r\n\0]/);
      }
      assert.ok(parsed.fields.filter(({ name }) => name === "host").length <= 1);
      if (parsed.kind !== "forward") return;
      const rendered = textOf(bytesOf(renderHead("X", fieldsForUpstream(parsed))));
      assert.equal(rendered.match(/^host:/gim)?.length, 1);
      const framings = rendered.match(/^(content-length|transfer-encoding):/gim)?.length ?? 0;
      assert.equal(framings, parsed.body.kind === "none" ? 0 : 1);
      assert.ok(endToEnd(parsed.fields).length <= parsed.fields.length);
    },
  );
});
