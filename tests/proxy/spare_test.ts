/** The connection to upstream that a client's connection keeps between its requests. */
import { deepEqual, equal, match } from "node:assert/strict";
import { Ip } from "../../lib/net/ip.ts";
import { SpareUpstream, type Upstream } from "../../lib/proxy/spare.ts";
import { BufferedConn } from "../../lib/proxy/stream.ts";
import { eventually } from "../eventually.ts";
import { Origin, type RawClient } from "./raw.ts";
import { withSockets } from "./sockets.ts";
import { getRequest, Lab, ok } from "./support.ts";

const ORIGIN = "api.example.com";

/** A live connection, with the other end held open for as long as `run` takes. */
function withUpstream(run: (upstream: Upstream) => void): Promise<void> {
  return withSockets(async ({ connected }) => {
    const [socket, peer] = await connected();
    const stream = new BufferedConn(socket);
    const ip = Ip.fromBytes(Uint8Array.of(127, 0, 0, 1));
    try {
      run({ stream, destination: { ip, isLocal: false } });
    } finally {
      stream.close();
      peer.close();
    }
  });
}

Deno.test("SpareUpstream keeps a connection for the next request to the same origin", async () => {
  await withUpstream((upstream) => {
    const spare = new SpareUpstream();
    equal(spare.take(ORIGIN), null);
    spare.keep(ORIGIN, upstream);
    equal(spare.take(ORIGIN)?.stream, upstream.stream);
  });
});

Deno.test("SpareUpstream does not keep what was dialled before a reload came in between", async () => {
  await withUpstream((upstream) => {
    const spare = new SpareUpstream();
    equal(spare.take(ORIGIN), null);
    spare.drop(); // as a reload does, while the request is under way
    spare.keep(ORIGIN, upstream);
    equal(spare.take(ORIGIN), null);
  });
});

/** An origin that answers request after request on a connection, with the connection's number. */
function persistentOrigin(): Origin {
  return new Origin(async (client, number) => {
    while (true) {
      await client.until(/\r\n\r\n/);
      await client.send(ok(`connection ${number}`));
    }
  });
}

/** Asks for `url` on an open connection; the body of the answer. */
async function ask(client: RawClient, url: string): Promise<string> {
  await client.send(getRequest(url));
  const answer = await client.until(/\r\n\r\nconnection [0-9]/);
  match(answer, /^HTTP\/1\.1 200 /);
  return answer.slice(-12);
}

Deno.test("a client's requests to one server share a connection; no other client and no other name gets it", async () => {
  await using origin = persistentOrigin();
  await using lab = await Lab.start({ rules: [{ condition: "true" }] });
  const url = `http://a.example:${origin.port}/`;
  using client = await lab.connect();
  using other = await lab.connect();
  equal(await ask(client, url), "connection 0");
  equal(await ask(client, `${url}x`), "connection 0");
  equal(await ask(other, url), "connection 1");
  equal(await ask(client, `http://b.example:${origin.port}/`), "connection 2");
  equal(await ask(client, url), "connection 3");
  // Every request was judged and recorded for itself.
  deepEqual(await lab.record(), Array.from({ length: 5 }, () => "allow http rule"));
  // The address of a kept connection is judged like any other.
  await lab.reload([{ condition: 'network.ip != "127.0.0.1"' }]);
  await client.send(getRequest(url));
  match(await client.rest(), /^HTTP\/1\.1 403 /);
});

Deno.test("a request that must not be sent twice never takes a kept connection", async () => {
  await using origin = persistentOrigin();
  await using lab = await Lab.start({ rules: [{ condition: "true" }] });
  using client = await lab.connect();
  const url = `http://a.example:${origin.port}/`;
  equal(await ask(client, url), "connection 0");
  await client.send(getRequest(url, "Content-Length: 0").replace("GET", "POST"));
  match(await client.until(/connection [0-9]/), /connection 1$/);
});

Deno.test("a body that upstream takes for another request is not answered: its connection ends", async () => {
  const served: string[] = [];
  await using origin = new Origin(async (client) => {
    while (true) {
      const head = await client.until(/\r\n\r\n/); // overlooks Content-Length
      served.push(head.split(" HTTP/")[0] ?? "");
      await client.send(ok("connection 0"));
      if (/^connection: close\r$/im.test(head)) return;
    }
  });
  await using lab = await Lab.start({ rules: [{ condition: 'http.method == "GET"' }] });
  using client = await lab.connect();
  const url = `http://a.example:${origin.port}/`;
  const smuggled = "DELETE /all HTTP/1.1\r\nHost: a.example\r\n\r\n";
  await client.send(getRequest(url, `Content-Length: ${smuggled.length}`) + smuggled);
  await client.until(/connection 0/);
  equal(await ask(client, url), "connection 0");
  deepEqual(served, ["GET /", "GET /"]);
});

Deno.test("a kept connection that upstream closed is replaced, whenever it closed", async () => {
  await using origin = new Origin(async (client, number) => {
    await client.until(/\r\n\r\n/);
    await client.send(ok(`connection ${number}`));
    if (number === 1) await client.until(/\r\n\r\n/); // closes on the next request, unanswered
  });
  await using lab = await Lab.start({ rules: [{ condition: "true" }] });
  using client = await lab.connect();
  const url = `http://a.example:${origin.port}/`;
  for (const expected of ["connection 0", "connection 1", "connection 2"]) {
    equal(await ask(client, url), expected);
  }
});

Deno.test("what upstream sends unasked is nobody's answer, and a reload closes what is kept", async () => {
  const closed: number[] = [];
  await using origin = new Origin(async (client, number) => {
    await client.until(/\r\n\r\n/);
    await client.send(ok(`connection ${number}`));
    if (number === 0) await client.send(ok("connection 9"));
    await client.rest();
    closed.push(number);
  });
  await using lab = await Lab.start({ rules: [{ condition: "true" }] });
  using client = await lab.connect();
  const url = `http://a.example:${origin.port}/`;
  equal(await ask(client, url), "connection 0");
  await eventually(() => closed.includes(0));
  equal(await ask(client, url), "connection 1");
  await lab.reload([]);
  await eventually(() => closed.includes(1));
});
