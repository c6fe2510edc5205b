/** Request bodies: framed anew, never whole by half, and no longer than the rule admits. */
import assert from "node:assert/strict";
import { textOf } from "../../lib/proxy/bytes.ts";
import { eventually } from "../eventually.ts";
import { Origin, type RawClient } from "./raw.ts";
import { Lab, ok, type TestRule } from "./support.ts";

const ALLOW_A = { condition: 'http.host == "a.example"' };

Deno.test("bodies go up in a framing of ours, chunked or by length, byte for byte", async () => {
  const seen: string[] = [];
  await using origin = new Origin(async (client) => {
    const head = await client.until(/\r\n\r\n/);
    const body = await client.until(/transfer-encoding/i.test(head) ? /0\r\n\r\n/ : /end/);
    seen.push(body);
    await client.send(ok("done"));
  });
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  const target = `http://a.example:${origin.port}/ HTTP/1.1\r\nHost: a.example:${origin.port}\r\n`;
  using client = await lab.connect();
  await client.send(`POST ${target}Transfer-Encoding: chunked\r\n\r\n`);
  await client.send("3;ext=1\r\nab");
  await client.send("c\r\n000a\r\n0123456789\r\n0\r\nTrailer: dropped\r\n\r\n");
  await client.until(/done/);
  await client.send(`PUT ${target}Content-Length: 7\r\n\r\nthe`);
  await client.send(" end");
  await client.until(/done/);
  const decoded = seen.map((body) => body.replaceAll(/(^|\r\n)[0-9a-f]+\r\n/g, "").trimEnd());
  assert.deepEqual(decoded, ["abc0123456789", "the end"]);
  assert.doesNotMatch(origin.received.join(""), /dropped|ext=1/);
});

Deno.test("Expect: 100-continue is answered once the request is admitted, never before (D26)", async () => {
  await using origin = new Origin(async (client) => {
    await client.until(/abc$/);
    await client.send(ok("done"));
  });
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  const request = (host: string): string =>
    `PUT http://${host}:${origin.port}/ HTTP/1.1\r\nHost: ${host}:${origin.port}\r\n` +
    "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n";
  using client = await lab.connect();
  await client.send(request("a.example"));
  assert.equal(await client.until(/\r\n\r\n/), "HTTP/1.1 100 Continue\r\n\r\n");
  await client.send("abc");
  assert.match(await client.until(/done/), /^HTTP\/1\.1 200 /);
  assert.doesNotMatch(origin.received[0] ?? "", /expect/i);
  assert.match(await lab.exchange(request("b.example")), /^HTTP\/1\.1 403 /);
});

Deno.test("a broken or endless request body is cut off in the middle, so that upstream never takes it for whole", async () => {
  await using origin = new Origin(async (client) => {
    await client.rest();
  });
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  const post =
    `POST http://a.example:${origin.port}/ HTTP/1.1\r\nHost: a.example:${origin.port}\r\n` +
    "Transfer-Encoding: chunked\r\n\r\n";
  assert.match(await lab.exchange(`${post}3\r\nabc\r\nzz\r\n`), /^HTTP\/1\.1 400 /);
  await using big = await Lab.start({ rules: [ALLOW_A] });
  using client = await big.connect();
  await client.send(post);
  const chunk = `${(1024 * 1024).toString(16)}\r\n${"x".repeat(1024 * 1024)}\r\n`;
  const sending = (async () => {
    for (let i = 0; i < 17; i++) await client.send(chunk);
  })().catch(() => {});
  assert.match(await client.rest(), /^HTTP\/1\.1 413 /);
  await sending;
  for (const received of origin.received) assert.doesNotMatch(received, /\r\n0\r\n\r\n/);
});

/** Like {@linkcode ALLOW_A}, with a limit of its own for bodies. */
const allowBodies = (maxBytes: number): TestRule => ({
  ...ALLOW_A,
  egress: `allow_private_ips: true, max_body_bytes: ${maxBytes}`,
});

/** An origin that answers when a body of `bytes` has arrived, or a chunked one has ended. */
function uploads(bytes: number): Origin {
  return new Origin(async (client) => {
    await client.until(/\r\n\r\n/);
    await client.until(new RegExp(`x{${bytes}}|\r\n0\r\n\r\n`));
    await client.send(ok("taken"));
  });
}

function upload(port: number, ...fields: string[]): string {
  const authority = `a.example:${port}`;
  return [
    `POST http://${authority}/ HTTP/1.1`,
    `Host: ${authority}`,
    "Connection: close",
    ...fields,
    "",
    "",
  ].join("\r\n");
}

Deno.test("a rule's own limit for bodies holds before a byte goes upstream (ADV-HTTP-08, S006-FR-024)", async () => {
  await using origin = uploads(1000);
  await using lab = await Lab.start({ rules: [allowBodies(1000)] });
  const send = (bytes: number): Promise<string> =>
    lab.exchange(upload(origin.port, `Content-Length: ${bytes}`) + "x".repeat(bytes));
  assert.match(await send(1000), /^HTTP\/1\.1 200 .*taken$/s);
  const refused = await send(1001);
  assert.match(refused, /^HTTP\/1\.1 413 .*longer than 1000 bytes/s);
  assert.equal(origin.received.length, 1, "nobody was even connected to");
  assert.deepEqual(await lab.record(), ["allow http rule", "block http limit"]);
  assert.equal((await lab.recent())[1]?.rule?.id, "rule-0");
});

Deno.test("a rule may admit more than 16 MiB, declared or not, and only to its own hosts", async () => {
  const bytes = 16 * 1024 * 1024 + 1;
  // Not by a pattern over all of it, again with each piece.
  await using origin = new Origin(async (client, number) => {
    const buffer = new Uint8Array(65_536);
    for (let tail = ""; !tail.endsWith(number === 0 ? "end" : "\r\n0\r\n\r\n");) {
      const count = await client.conn.read(buffer) ?? 0;
      tail = (tail + textOf(buffer.subarray(Math.max(0, count - 8), count))).slice(-8);
    }
    await client.send(ok("taken"));
  });
  const other = { condition: 'http.host == "b.example"' };
  await using lab = await Lab.start({ rules: [allowBodies(bytes), other] });
  const body = `${"x".repeat(bytes - 3)}end`;
  const declared = upload(origin.port, `Content-Length: ${bytes}`);
  assert.match(await lab.exchange(declared + body), / 200 .*taken$/s);
  const chunked = `${upload(origin.port, "Transfer-Encoding: chunked")}${bytes.toString(16)}\r\n`;
  assert.match(await lab.exchange(`${chunked}${body}\r\n0\r\n\r\n`), / 200 .*taken$/s);
  assert.match(
    await lab.exchange(declared.replaceAll("a.example", "b.example")),
    /^HTTP\/1\.1 413 .*longer than 16777216 bytes/s,
  );
  assert.equal(origin.received.length, 2);
});

Deno.test("a chunked body that outgrows its rule is cut off, recorded, and never whole for upstream", async () => {
  await using origin = new Origin(async (client) => void await client.rest());
  await using lab = await Lab.start({ rules: [allowBodies(1000)] });
  const head = upload(origin.port, "Transfer-Encoding: chunked");
  using client = await lab.connect();
  await client.send(`${head}3e8\r\n${"x".repeat(1000)}\r\n`);
  await eventually(() => origin.received[0]?.includes("x".repeat(1000)) === true);
  await client.send("1\r\ny\r\n0\r\n\r\n");
  const answer = await client.rest();
  assert.match(answer, /^HTTP\/1\.1 413 .*longer than 1000 bytes/s);
  const [, refused] = await lab.recent();
  assert.deepEqual(await lab.record(), ["allow http rule", "block http limit"]);
  assert.equal(refused?.rule?.id, "rule-0");
  assert.match(answer, new RegExp(`X-Outcall-Decision: ${refused?.id}\r\n`));
  assert.doesNotMatch(origin.received[0] ?? "", /y|\r\n0\r\n/);
});

Deno.test("a reload's limits hold for bodies under way, declared or not", async () => {
  await using origin = new Origin(async (client) => void await client.rest());
  await using lab = await Lab.start({ rules: [allowBodies(3000)] });
  const begin = async (field: string, text: string): Promise<RawClient> => {
    const client = await lab.connect();
    const before = origin.received.length;
    await client.send(upload(origin.port, field) + text);
    await eventually(() => origin.received[before]?.includes("xx") === true);
    return client;
  };
  using declared = await begin("Content-Length: 2000", "xx");
  using grown = await begin("Transfer-Encoding: chunked", `5dc\r\n${"x".repeat(1500)}\r\n`);
  await eventually(() => origin.received[1]?.includes("x".repeat(1500)) === true);
  using growing = await begin("Transfer-Encoding: chunked", "2\r\nxx\r\n");
  assert.equal(await lab.reload([allowBodies(1000)]), 2, "both are longer than that already");
  assert.equal(await declared.rest(), "");
  assert.equal(await grown.rest(), "");
  await growing.send(`3e7\r\n${"y".repeat(999)}\r\n0\r\n\r\n`);
  assert.match(await growing.rest(), /^HTTP\/1\.1 413 .*longer than 1000 bytes/s);
  assert.equal((await lab.record()).filter((line) => line === "block http limit").length, 3);
  for (const received of origin.received) assert.doesNotMatch(received, /y|\r\n0\r\n/);
});

Deno.test("where two rules share a host by address, the limit is that of the rule that admits the address", async () => {
  await using origin = uploads(2000);
  const host = 'http.host == "a.example"';
  const limits = (maxBytes: number): string =>
    `allow_private_ips: true, max_body_bytes: ${maxBytes}`;
  await using lab = await Lab.start({
    rules: [
      { condition: `${host} && network.ip == "192.0.2.1"`, egress: limits(10) },
      { condition: host, egress: limits(2000) },
    ],
  });
  const send = (bytes: number): Promise<string> =>
    lab.exchange(upload(origin.port, `Content-Length: ${bytes}`) + "x".repeat(bytes));
  assert.match(await send(2000), / 200 .*taken$/s);
  assert.match(await send(2001), /^HTTP\/1\.1 413 /);
  assert.deepEqual((await lab.recent()).map(({ rule }) => rule?.id), ["rule-1", "rule-1"]);
});
