import { deepEqual, equal, throws } from "node:assert/strict";
import { BadReply, MAX_REPLY_BYTES, parseReply } from "../../lib/shim/reply.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function reply(
  body: string,
  head = `HTTP/1.1 200 OK\r\nContent-Length: ${bytes(body).length}`,
): string {
  return `${head}\r\n\r\n${body}`;
}

Deno.test("parseReply() reads a reply once all of it is there, wherever it is cut", () => {
  const whole = bytes(reply('{"ok":true,"name":"ü"}'));
  for (let end = 0; end < whole.length; end++) equal(parseReply(whole.subarray(0, end)), null);
  deepEqual(parseReply(whole), { status: 200, body: { ok: true, name: "ü" } });
});

Deno.test("parseReply() takes nothing else for an answer (S005-EC-005)", () => {
  for (
    const text of [
      reply("{}", "HTTP/1.0 200 OK\r\nContent-Length: 2"),
      reply("{}", "SSH-2.0-x"),
      reply("{}", "HTTP/1.1 200 OK"),
      reply("{}", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2"),
      reply("{}", "HTTP/1.1 200 OK\r\nContent-Length: -2"),
      reply("{}", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"),
      reply("{}", `HTTP/1.1 200 OK\r\nContent-Length: ${MAX_REPLY_BYTES}`),
      `${reply("{}")}HTTP/1.1`,
      reply("{"),
      reply(""),
    ]
  ) throws(() => parseReply(bytes(text)), BadReply, text);
  throws(() => parseReply(new Uint8Array(MAX_REPLY_BYTES + 1)), BadReply);
});
