import assert from "node:assert/strict";
import { bytesOf } from "../../lib/proxy/bytes.ts";
import {
  fieldsForClient,
  framingForClient,
  parseResponseHead,
  type ResponseHead,
} from "../../lib/proxy/response.ts";
import { fuzz } from "./fuzz.ts";

function parse(lines: readonly string[], method = "GET"): ReturnType<typeof parseResponseHead> {
  return parseResponseHead(bytesOf([...lines, "", ""].join("\r\n")), method);
}

function response(lines: readonly string[], method = "GET"): ResponseHead {
  const parsed = parse(lines, method);
  assert.ok(parsed.kind === "response", JSON.stringify(parsed));
  return parsed;
}

function sent(head: ResponseHead, version: "1.0" | "1.1" = "1.1", persistent = true): string[] {
  return fieldsForClient(head, framingForClient(head.body, version), persistent)
    .map(({ spelling, value }) => `${spelling}: ${value}`);
}

Deno.test("the body of a response is framed by RFC 9112 §6.3", () => {
  const length = "Content-Length: 5";
  const chunked = "Transfer-Encoding: Chunked";
  assert.deepEqual(response(["HTTP/1.1 200 OK", length]).body, { kind: "length", bytes: 5 });
  assert.deepEqual(response(["HTTP/1.1 200 OK", length, length]).body, {
    kind: "length",
    bytes: 5,
  });
  assert.deepEqual(response(["HTTP/1.1 200 OK", chunked]).body, { kind: "chunked" });
  assert.deepEqual(response(["HTTP/1.1 200"]).body, { kind: "until_close" });
  assert.deepEqual(response(["HTTP/1.0 200 OK"]).body, { kind: "until_close" });
  for (const status of [100, 103, 204, 304]) {
    assert.deepEqual(response([`HTTP/1.1 ${status} x`, length]).body, { kind: "none" });
  }
  assert.deepEqual(response(["HTTP/1.1 200 OK", length], "HEAD").body, { kind: "none" });
});

Deno.test("a response that a client could split differently is not passed on", () => {
  for (
    const lines of [
      ["HTTP/1.1 200 OK", "Content-Length: 5", "Content-Length: 6"],
      ["HTTP/1.1 200 OK", "Content-Length: 5", "Transfer-Encoding: chunked"],
      ["HTTP/1.1 200 OK", "Transfer-Encoding: gzip, chunked"],
      ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
      ["HTTP/1.0 200 OK", "Transfer-Encoding: chunked"],
      ["HTTP/1.1 200 OK", "Content-Length: 5, 5"],
      ["HTTP/1.1 200 OK", "Content-Length: -5"],
      ["HTTP/1.1 200 OK", "Content-Length: 1e3"],
      ["HTTP/1.1 204 No Content", "Content-Length: x"],
      ["HTTP/1.1 200 OK", "X : y"],
      ["HTTP/1.1 200 OK", "X: y", "\tfolded"],
      ["HTTP/1.1 200 OK", "X: y\rSet-Cookie: z"],
      ["HTTP/1.1 200 OK\0"],
      ["HTTP/2 200"],
      ["HTTP/1.1 999 x"],
      ["HTTP/1.1 20 x"],
      ["ICY 200 OK"],
      [""],
    ]
  ) assert.equal(parse(lines).kind, "refused", JSON.stringify(lines));
});

Deno.test("the client gets one framing, ours, and no hop-by-hop field", () => {
  const head = response([
    "HTTP/1.1 200 OK",
    "Connection: X-Gone",
    "X-Gone: 1",
    "Keep-Alive: 5",
    "Proxy-Authenticate: Basic",
    "Trailer: T",
    "Transfer-Encoding: chunked",
    "Set-Cookie: a",
    "Set-Cookie: b",
  ]);
  assert.deepEqual(sent(head), [
    "Set-Cookie: a",
    "Set-Cookie: b",
    "Transfer-Encoding: chunked",
    "Connection: keep-alive",
  ]);
  // HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
  assert.deepEqual(sent(head, "1.0", false), [
    "Set-Cookie: a",
    "Set-Cookie: b",
    "Connection: close",
  ]);
  const sized = response(["HTTP/1.1 200 OK", "Content-Length: 007", "Content-Length: 007"]);
  assert.deepEqual(sent(sized), ["Content-Length: 7", "Connection: keep-alive"]);
  const described = response(["HTTP/1.1 200 OK", "Content-Length: 7"], "HEAD");
  assert.deepEqual(sent(described), ["Content-Length: 7", "Connection: keep-alive"]);
  assert.deepEqual(sent(response(["HTTP/1.1 204 x", "Content-Length: 7"])), [
    "Connection: keep-alive",
  ]);
});

Deno.test("fuzz: any response head is understood or refused, and never framed twice", () => {
  const seed = bytesOf(
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\n\r\n",
  );
  const other = bytesOf(
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
  );
  const spice = bytesOf("\r\n\0\t :,;01\x7f\xff");
  fuzz((random) => random.mutate(random.pick([seed, other]), spice), (input) => {
    const parsed = parseResponseHead(input, "GET");
    if (parsed.kind === "refused") return;
    const lines = sent(parsed);
    assert.ok(
      lines.filter((line) => /^(content-length|transfer-encoding):/i.test(line)).length <= 1,
    );
    assert.ok(lines.every((line) => !/[\r\n\0]/.test(line)));
  });
});
