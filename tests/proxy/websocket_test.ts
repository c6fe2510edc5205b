/** What asks for a WebSocket gets one where both sides mean it, or stays plain HTTP. */
import assert from "node:assert/strict";
import { Origin } from "./raw.ts";
import { getRequest, Lab, ok } from "./support.ts";

const ALLOW_A = { condition: 'http.host == "a.example"' };

/** What a client says that wants a WebSocket (the example of RFC 6455 §1.3), and a server that agrees. */
const WEBSOCKET_FIELDS = [
  "Connection: keep-alive, Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];
const WEBSOCKET_ANSWER = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" +
  "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

Deno.test("WebSocket: a request for it is judged, and behind the 101 bytes flow both ways (D26)", async () => {
  await using origin = new Origin(async (client) => {
    await client.until(/\r\n\r\n/);
    await client.send(`${WEBSOCKET_ANSWER}first`);
    await client.send(`echo ${await client.until(/ping/)}`);
  });
  await using lab = await Lab.start({ rules: [{ condition: 'http.path == "/ws"' }] });
  const request = (path: string): string =>
    getRequest(`http://a.example:${origin.port}${path}`, ...WEBSOCKET_FIELDS);
  using client = await lab.connect();
  await client.send(request("/ws"));
  const head = await client.until(/first/);
  assert.match(head, /^HTTP\/1\.1 101 /);
  assert.match(head, /\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst$/);
  await client.send("ping");
  assert.equal(await client.rest(), "echo ping");
  assert.match(
    origin.received[0] ?? "",
    /\r\nSec-WebSocket-Key: [^\r]+\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nping$/,
  );
  assert.match(await lab.exchange(request("/other")), /^HTTP\/1\.1 403 /);
});

Deno.test("a WebSocket request that is answered otherwise stays plain HTTP", async () => {
  await using origin = Origin.answering(ok("no"));
  await using lab = await Lab.start({ rules: [ALLOW_A] });
  using client = await lab.connect();
  await client.send(getRequest(`http://a.example:${origin.port}/`, ...WEBSOCKET_FIELDS));
  assert.match(await client.until(/no$/), /^HTTP\/1\.1 200 /);
});

Deno.test("a 101 that is no WebSocket's opens nothing: what follows is still judged", async () => {
  const answers = [
    WEBSOCKET_ANSWER.replace("websocket", "h2c"),
    WEBSOCKET_ANSWER.replace(/Sec-WebSocket-Accept: .*\r\n/, ""),
    WEBSOCKET_ANSWER.replace("s3pPLM", "AAAAAA"),
  ];
  await using lab = await Lab.start({ rules: [{ condition: 'http.path == "/ws"' }] });
  for (const answer of answers) {
    await using origin = new Origin(async (client) => {
      await client.until(/\r\n\r\n/);
      await client.send(answer);
      await client.rest();
    });
    const url = `http://a.example:${origin.port}`;
    using client = await lab.connect();
    await client.send(getRequest(`${url}/ws`, ...WEBSOCKET_FIELDS));
    await client.until(/\r\n\r\n/).then((head) => assert.match(head, /^HTTP\/1\.1 502 /));
    await client.send(getRequest(`${url}/secret`)).catch(() => {});
    await client.rest();
    assert.doesNotMatch(origin.received.join(), /secret/);
  }
  // Without a key it is no request for a WebSocket, and the server is not asked for one.
  await using origin = Origin.answering(WEBSOCKET_ANSWER);
  const answer = await lab.exchange(
    getRequest(`http://a.example:${origin.port}/ws`, ...WEBSOCKET_FIELDS.slice(0, 3)),
  );
  assert.match(answer, /^HTTP\/1\.1 502 /);
  assert.doesNotMatch(origin.received.join(), /upgrade/i);
});
