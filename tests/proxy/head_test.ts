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
import { below, fuzz, mutate, pick } from "./fuzz.ts";

function parse(text: string): RequestHead {
  return parseRequestHead(bytesOf(text));
}

/** A request with this request line and these field lines. */
function head(requestLine: string, ...fields: string[]): string {
  return [requestLine, ...fields, "", ""].join("\r\n");
}

function get(...fields: string[]): string {
  return head("GET http://a.example/x HTTP/1.1", "Host: a.example", ...fields);
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
  const cases: readonly (readonly [string, string, number, RegExp])[] = [
    [
      "ADV-HTTP-03 both framings",
      get("Content-Length: 1", "Transfer-Encoding: chunked"),
      400,
      /both/,
    ],
    [
      "ADV-HTTP-04 equal lengths",
      get("Content-Length: 1", "Content-Length: 1"),
      400,
      /more than one/,
    ],
    [
      "ADV-HTTP-04 lengths differ",
      get("Content-Length: 1", "Content-Length: 2"),
      400,
      /more than one/,
    ],
    ["ADV-HTTP-04 list of lengths", get("Content-Length: 1, 1"), 400, /malformed Content-Length/],
    ["signed length", get("Content-Length: +1"), 400, /malformed Content-Length/],
    ["negative length", get("Content-Length: -1"), 400, /malformed Content-Length/],
    ["octal-looking length", get("Content-Length: 010"), 400, /malformed Content-Length/],
    ["hexadecimal length", get("Content-Length: 0x10"), 400, /malformed Content-Length/],
    ["empty length", get("Content-Length:"), 400, /malformed Content-Length/],
    ["two codings", get("Transfer-Encoding: gzip, chunked"), 400, /other than chunked/],
    ["coding spelt oddly", get("Transfer-Encoding: xchunked"), 400, /other than chunked/],
    ["coding with tab", get("Transfer-Encoding: chunked\x0b"), 400, /malformed header field/],
    [
      "two coding fields",
      get("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
      400,
      /other/,
    ],
    ["identity", get("Transfer-Encoding: identity"), 400, /other than chunked/],
    ["ADV-HTTP-05", get("Host: a.example"), 400, /more than one Host/],
    ["ADV-HTTP-06", head("GET http://a.example/ HTTP/1.1"), 400, /missing/],
    ["ADV-HTTP-07 host", head("GET http://a.example/ HTTP/1.1", "Host: b.example"), 400, /differs/],
    [
      "ADV-HTTP-07 port",
      head("GET http://a.example/ HTTP/1.1", "Host: a.example:81"),
      400,
      /differs/,
    ],
    ["ADV-HTTP-07 empty", head("GET http://a.example/ HTTP/1.1", "Host:"), 400, /malformed Host/],
    ["ADV-HTTP-08", get("Content-Length: 16777217"), 413, /longer/],
    ["endless length", get("Content-Length: 99999999999999999999999"), 413, /longer/],
    [
      "ADV-HTTP-10",
      head("GET http://u:p@a.example/ HTTP/1.1", "Host: a.example"),
      400,
      /authority/,
    ],
    ["ADV-HTTP-11", head("GET http://a.example/#f HTTP/1.1", "Host: a.example"), 400, /fragment/],
    ["ADV-HTTP-12", head("GET https://a.example/ HTTP/1.1", "Host: a.example"), 400, /CONNECT/],
    ["ADV-HTTP-13", head("GET /x HTTP/1.1", "Host: a.example"), 400, /absolute/],
    ["asterisk form", head("OPTIONS * HTTP/1.1", "Host: a.example"), 400, /absolute/],
    ["other scheme", head("GET ftp://a.example/ HTTP/1.1", "Host: a.example"), 400, /absolute/],
    ["ADV-HTTP-14", `\r\n${get()}`, 400, /request line/],
    ["ADV-HTTP-15 space before colon", get("X : y"), 400, /malformed header field/],
    ["ADV-HTTP-15 folded line", get("X: y", " z"), 400, /malformed header field/],
    ["ADV-HTTP-15 bare CR", get("X: y\rZ: w"), 400, /malformed header field/],
    ["no colon", get("nonsense"), 400, /malformed header field/],
    ["empty name", get(": y"), 400, /malformed header field/],
    ["ADV-HTTP-16 NUL", get("X: \0"), 400, /malformed header field/],
    ["ADV-HTTP-16 DEL", get("X: \x7f"), 400, /malformed header field/],
    ["ADV-HTTP-16 name", get("X\xc3\xa9: y"), 400, /malformed header field/],
    ["ADV-HTTP-16 bad UTF-8", get("X: \xff"), 400, /UTF-8/],
    ["ADV-HTTP-16 overlong UTF-8", get("X: \xc0\xaf"), 400, /UTF-8/],
    ["ADV-HTTP-20", get("Expect: 200-ok"), 417, /100-continue/],
    [
      "ADV-HTTP-21",
      head("GE T http://a.example/ HTTP/1.1", "Host: a.example"),
      400,
      /request line/,
    ],
    ["two spaces", head("GET  http://a.example/ HTTP/1.1", "Host: a.example"), 400, /request line/],
    ["tab", head("GET\thttp://a.example/ HTTP/1.1", "Host: a.example"), 400, /request line/],
    [
      "control in target",
      head("GET http://a.example/\x01 HTTP/1.1", "Host: a.example"),
      400,
      /line/,
    ],
    [
      "raw Unicode target",
      head("GET http://a.example/\xc3\xa9 HTTP/1.1", "Host: a.example"),
      400,
      /line/,
    ],
    ["broken escape", head("GET http://a.example/%zz HTTP/1.1", "Host: a.example"), 400, /percent/],
    [
      "doubled escape",
      head("GET http://a.example/%%32e HTTP/1.1", "Host: a.example"),
      400,
      /percent/,
    ],
    [
      "backslash authority",
      head("GET http://a.example\\@b/ HTTP/1.1", "Host: a.example"),
      400,
      /author/,
    ],
    ["no authority", head("GET http:///x HTTP/1.1", "Host: a.example"), 400, /authority/],
    ["empty port", head("GET http://a.example:/ HTTP/1.1", "Host: a.example"), 400, /authority/],
    ["port 0", head("GET http://a.example:0/ HTTP/1.1", "Host: a.example:0"), 400, /authority/],
    ["HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\n", 505, /version/],
    ["HTTP/0.9", "GET http://a.example/\r\n\r\n", 400, /request line/],
    [
      "chunked in HTTP/1.0",
      head("POST http://a/ HTTP/1.0", "Transfer-Encoding: chunked"),
      400,
      /1\.0/,
    ],
    ["ADV-TLS-02", head("CONNECT a.example:443 HTTP/1.1", "Host: b.example:443"), 400, /differs/],
    [
      "ADV-TLS-02 port",
      head("CONNECT a.example:443 HTTP/1.1", "Host: a.example:444"),
      400,
      /differs/,
    ],
    ["ADV-TLS-03", head("CONNECT a:443 HTTP/1.1", "Host: a:443", "Content-Length: 0"), 400, /body/],
    [
      "ADV-TLS-03 chunked",
      head("CONNECT a:443 HTTP/1.1", "Host: a:443", "Transfer-Encoding: chunked"),
      400,
      /body/,
    ],
    [
      "ADV-TLS-04 zero",
      head("CONNECT a.example:0 HTTP/1.1", "Host: a.example"),
      400,
      /CONNECT target/,
    ],
    [
      "ADV-TLS-04 65536",
      head("CONNECT a.example:65536 HTTP/1.1", "Host: a.example"),
      400,
      /CONNECT target/,
    ],
    [
      "ADV-TLS-04 text",
      head("CONNECT a.example:https HTTP/1.1", "Host: a.example"),
      400,
      /CONNECT target/,
    ],
    [
      "ADV-TLS-04 missing",
      head("CONNECT a.example HTTP/1.1", "Host: a.example"),
      400,
      /needs a port/,
    ],
    [
      "CONNECT with a URI",
      head("CONNECT http://a.example/ HTTP/1.1", "Host: a.example"),
      400,
      /target/,
    ],
  ];
  for (const [name, text, status, problem] of cases) {
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

Deno.test("WebSocket is the only upgrade that is understood; others are dropped like any hop-by-hop field (D26)", () => {
  assert.equal(
    forwarded(get("Connection: keep-alive, Upgrade", "Upgrade: WebSocket")).webSocket,
    true,
  );
  for (
    const fields of [
      ["Upgrade: websocket"],
      ["Connection: upgrade", "Upgrade: h2c"],
      ["Connection: upgrade", "Upgrade: websocket, h2c"],
      ["Connection: upgrade", "Upgrade: websocket", "Content-Length: 1"],
    ]
  ) assert.equal(forwarded(get(...fields)).webSocket, false, fields.join());
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
    (next) => {
      if (below(next, 20) === 0) {
        return Uint8Array.from({ length: below(next, 64) }, () => below(next, 256));
      }
      return mutate(next, pick(next, seeds), spice);
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
