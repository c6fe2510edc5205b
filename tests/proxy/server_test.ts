import assert from "node:assert/strict";
import { DecisionLog } from "../../lib/decision.ts";
import { OutcallError } from "../../lib/errors.ts";
import { SystemError } from "../../lib/linux/libc.ts";
import { pause } from "../../lib/pause.ts";
import { admit } from "../../lib/proxy/admission.ts";
import { asRefusal, Refusal } from "../../lib/proxy/refusal.ts";
import { ProxyServer } from "../../lib/proxy/server.ts";
import { ConnectionClosed } from "../../lib/proxy/socket.ts";
import { UnexpectedEnd } from "../../lib/proxy/stream.ts";
import { RequestReads } from "../../lib/rules/reads.ts";
import { eventually } from "../eventually.ts";
import { labTest } from "../lab/requirements.ts";
import { HungThread, workerThreads } from "../threads.ts";
import { Origin, RawClient } from "./raw.ts";
import { AGENT, connectRequest, getRequest, Lab, ok, TUNNELLED } from "./support.ts";

const ANYTHING = { condition: "true" };

Deno.test("a source outside every managed network is closed without an answer, and recorded (D5, S006-EC-015)", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({ rules: [ANYTHING], agents: { identify: () => null } });
  assert.equal(await lab.exchange(getRequest(`http://a.example:${origin.port}/`)), "");
  assert.equal(await lab.exchange("GET /outcall-health HTTP/1.1\r\nHost: x\r\n\r\n"), "");
  assert.deepEqual(await lab.record(), [
    "block connect unknown_source",
    "block connect unknown_source",
  ]);
  const [decision] = await lab.recent();
  assert.equal(decision?.agent, null);
  assert.equal(decision?.source, "127.0.0.1");
  assert.deepEqual(origin.received, []);
});

Deno.test("when identifying fails, nobody is served", async () => {
  await using lab = await Lab.start({
    rules: [ANYTHING],
    agents: { identify: () => Promise.reject(new Error("Docker is away")) },
  });
  assert.equal(await lab.exchange(getRequest("http://a.example/")), "");
  assert.deepEqual(await lab.record(), ["block connect unknown_source"]);
});

Deno.test("an address that is not known to Docker yet is judged without a name, and by name once it is (D5)", async () => {
  await using origin = Origin.answering(ok("x"));
  let name = "";
  await using lab = await Lab.start({
    rules: [{ condition: 'agent.name == "worker"' }, { condition: 'http.path == "/open"' }],
    agents: { identify: () => ({ ...AGENT, name }) },
  });
  using client = await lab.connect();
  const url = `http://a.example:${origin.port}`;
  await client.send(getRequest(`${url}/open`));
  await client.until(/x$/);
  name = "worker";
  await client.send(getRequest(`${url}/closed`));
  assert.match(await client.until(/x$/), /^HTTP\/1\.1 200 /);
  name = "";
  // Nobody said so: it may take a second to be noticed.
  await eventually(async () => {
    const answer = await lab.exchange(getRequest(`${url}/closed`, "Connection: close"));
    return answer.startsWith("HTTP/1.1 403 ");
  });
});

Deno.test("a policy that throws blocks (S006-FR-023, S006-EC-008)", () => {
  const broken = {
    judge: (): never => {
      throw new Error("broken policy");
    },
    reads: () => new RequestReads([]),
  };
  for (const layer of ["connect", "http", "dial"] as const) {
    assert.throws(
      () => admit(broken, layer, [{ facts: {}, ambiguity: null }]),
      (thrown) =>
        thrown instanceof Refusal && thrown.status === 403 && thrown.reason === "rule_error",
    );
  }
});

Deno.test("without a policy nothing is admitted", async () => {
  const proxy = new ProxyServer({
    port: 0,
    address: "127.0.0.1",
    onFailures: () => {},
    resolve: () => Promise.reject(new Error("not reached")),
    isLocalAddress: () => false,
    agents: { identify: () => AGENT },
    decisions: new DecisionLog(),
  });
  await proxy.serve([]);
  try {
    for (const request of [getRequest("http://a.example/"), connectRequest("a.example:443")]) {
      using client = await RawClient.connect(proxy.status().listen_port);
      await client.send(request);
      assert.match(await client.rest(), /^HTTP\/1\.1 403 [^]*X-Outcall-Block-Reason: default\r\n/);
    }
  } finally {
    await proxy.stop();
  }
});

Deno.test("limits: one agent is told 429, all together 503, and places come free again (S006-AS-008, ADV-HTTP-28)", async () => {
  await using lab = await Lab.start({
    rules: [ANYTHING],
    limits: { maxConnections: 3, maxConnectionsPerAgent: 2 },
  });
  const health = "GET /outcall-health HTTP/1.1\r\nHost: x\r\n\r\n";
  using first = await lab.connect();
  using second = await lab.connect();
  await eventually(() => lab.proxy.status().active_connections === 2);
  const third = await lab.exchange(health);
  assert.match(third, /^HTTP\/1\.1 429 Too Many Requests\r\n/);
  assert.match(third, /\r\nX-Outcall-Decision: /);
  first[Symbol.dispose]();
  await eventually(() => lab.proxy.status().active_connections === 1);
  assert.match(await lab.exchange(health), /^HTTP\/1\.1 200 /);

  await using small = await Lab.start({
    rules: [ANYTHING],
    limits: { maxConnections: 1, maxConnectionsPerAgent: 2 },
  });
  using only = await small.connect();
  await eventually(() => small.proxy.status().active_connections === 1);
  assert.match(await small.exchange(health), /^HTTP\/1\.1 503 Service Unavailable\r\n/);
  only[Symbol.dispose]();
  second[Symbol.dispose]();
  assert.deepEqual(await small.record(), ["block connect limit"]);
});

Deno.test("serve() follows the gateways: new ones open, gone ones close with what is connected, the rest stays", async () => {
  await using lab = await Lab.start({ rules: [ANYTHING] });
  const { port } = lab;
  using staying = await lab.connect();
  await lab.proxy.serve(["127.0.0.1", "127.0.0.9"]);
  assert.deepEqual(lab.proxy.status().listen_addresses, ["127.0.0.1", "127.0.0.9"]);
  await lab.proxy.serve(["127.0.0.1"]);
  assert.deepEqual(lab.proxy.status().listen_addresses, ["127.0.0.1"]);
  assert.equal(lab.port, port);
  await staying.send("GET /outcall-health HTTP/1.1\r\nHost: x\r\n\r\n");
  assert.match(await staying.rest(), /^HTTP\/1\.1 200 /);
  using leaving = await lab.connect();
  await eventually(() => lab.proxy.status().active_connections === 1);
  await lab.proxy.serve([]);
  assert.equal(await leaving.rest(), "");
  assert.equal(lab.proxy.status().running, false);
});

Deno.test("a port in use says by whom and what to do, and leaves nothing half bound (D6)", async () => {
  using taken = Deno.listen({ hostname: "127.0.0.8", port: 0 });
  const { port } = taken.addr;
  const proxy = new ProxyServer({
    port,
    address: null,
    onFailures: () => {},
    resolve: () => Promise.resolve([]),
    isLocalAddress: () => false,
    agents: { identify: () => null },
    decisions: new DecisionLog(),
  });
  await assert.rejects(proxy.serve(["127.0.0.7", "127.0.0.8"]), (thrown) => {
    assert.ok(thrown instanceof OutcallError);
    assert.equal(thrown.code, "proxy.bind");
    assert.match(thrown.message, new RegExp(`127\\.0\\.0\\.8:${port}: address already in use`));
    assert.match(thrown.message, new RegExp(`pid ${Deno.pid}\\)`));
    assert.match(thrown.hint ?? "", /--proxy-addr 0\.0\.0\.0:18080.*--no-proxy/);
    return true;
  });
  assert.deepEqual(proxy.status().listen_addresses, []);
  Deno.listen({ hostname: "127.0.0.7", port }).close(); // free again
  await proxy.stop();
});

Deno.test("stop() lets a transfer end, turns away who comes new, closes idle connections at once, and the rest after the drain time (S006-FR-015, EC-013)", async () => {
  let release = (): void => {};
  const held = new Promise<void>((resolve) => release = resolve);
  await using slow = new Origin(async (client) => {
    const head = await client.until(/\r\n\r\n/);
    await (head.includes("/late") ? held : client.rest());
    await client.send(ok("late"));
  });
  const lab = await Lab.start({ rules: [ANYTHING], limits: { drainMs: 1_500 } });
  using idle = await lab.connect();
  using busy = await lab.connect();
  await busy.send(getRequest(`http://a.example:${slow.port}/late`));
  using never = await lab.connect();
  await never.send(getRequest(`http://a.example:${slow.port}/`));
  await eventually(() => slow.received.filter((text) => text.endsWith("\r\n\r\n")).length === 2);
  const { port } = lab;
  const stopping = lab.proxy.stop();
  assert.equal(lab.proxy.status().running, false);
  assert.equal(await idle.rest(), "");
  const turnedAway = await lab.exchange(getRequest("http://a.example/"));
  assert.match(turnedAway, /^HTTP\/1\.1 503 [^]*the daemon is stopping/);
  release();
  assert.match(await busy.until(/late$/), /^HTTP\/1\.1 200 /);
  assert.equal(await never.rest(), ""); // still waits for an answer when the time is up
  await stopping;
  await eventually(() => lab.proxy.status().active_connections === 0);
  await assert.rejects(RawClient.connect(port), Deno.errors.ConnectionRefused);
});

Deno.test("a transfer under way is cut off when nobody wants to wait for it any more, before or while it drains (D2)", async () => {
  await using slow = new Origin(async (client) => void await client.rest());
  for (const isEarly of [true, false]) {
    const lab = await Lab.start({ rules: [ANYTHING], limits: { drainMs: 3_600_000 } });
    using busy = await lab.connect();
    await busy.send(getRequest(`http://a.example:${slow.port}/`));
    await eventually(() => slow.openConnections === 1);
    const hurry = new AbortController();
    if (isEarly) hurry.abort();
    const drained = lab.proxy.drain(hurry.signal);
    if (!isEarly) await eventually(async () => (await lab.exchange("x")).includes("503"));
    hurry.abort();
    await drained;
    assert.equal(await busy.rest(), "");
    await eventually(() => slow.openConnections === 0);
    assert.deepEqual(await lab.record().then((lines) => lines[0]), "allow http rule");
    await lab.proxy.stop();
  }
});

Deno.test("a reload ends a transfer under way that it would not admit", async () => {
  await using origin = new Origin(async (client) => {
    await client.until(/\r\n\r\n/);
    await client.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin");
    await client.rest();
  });
  await using lab = await Lab.start({ rules: [{ condition: 'http.host == "a.example"' }] });
  using client = await lab.connect();
  await client.send(getRequest(`http://a.example:${origin.port}/`));
  await client.until(/begin/);
  assert.equal(
    await lab.reload([{ condition: 'http.host == "a.example" && http.method == "GET"' }]),
    0,
  );
  assert.equal(await lab.reload([]), 1);
  assert.equal(await client.rest(), "");
  assert.deepEqual(await lab.record(), ["allow http rule", "block http default"]);
});

Deno.test("ten agents at once are served independently (S006-AS-011, SC-008)", async () => {
  await using origin = new Origin(async (client) => {
    const head = await client.until(/\r\n\r\n/);
    await client.send(ok(/Host: ([^\r:]+)/.exec(head)?.[1] ?? ""));
  });
  await using lab = await Lab.start({ rules: [{ condition: 'http.host.startsWith("agent-")' }] });
  const answers = await Promise.all(Array.from({ length: 10 }, async (_, i) => {
    const allowed = await lab.exchange(
      getRequest(`http://agent-${i}.example:${origin.port}/`, "Connection: close"),
    );
    const blocked = await lab.exchange(getRequest(`http://other-${i}.example/`));
    return [allowed.endsWith(`agent-${i}.example`), blocked.startsWith("HTTP/1.1 403 ")];
  }));
  assert.ok(answers.flat().every(Boolean));
});

Deno.test("clients that leave at any moment leave nothing behind (S006-EC-004)", async () => {
  await using origin = new Origin(async (client) => {
    await client.until(/\r\n\r\n/);
    await client.send(`HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n${"x".repeat(100_000)}`);
    await client.rest();
  });
  await using lab = await Lab.start({ rules: [ANYTHING] });
  const requests = [
    "",
    "GET http://a.exam",
    getRequest(`http://a.example:${origin.port}/`),
    getRequest(`http://a.example:${origin.port}/`, "Content-Length: 10"),
    connectRequest("a.example:443"),
  ];
  for (const request of requests) {
    const client = await lab.connect();
    await client.send(request);
    client[Symbol.dispose]();
  }
  await eventually(() => lab.proxy.status().active_connections === 0);
});

Deno.test("a defect of ours is 500, recorded as internal_error, and opens nothing", async () => {
  await using origin = Origin.answering(ok("x"));
  await using lab = await Lab.start({
    rules: [ANYTHING],
    isLocalAddress: () => {
      throw new TypeError("broken");
    },
  });
  const answer = await lab.exchange(getRequest(`http://a.example:${origin.port}/`));
  assert.match(answer, /^HTTP\/1\.1 500 [^]*\r\nX-Outcall-Decision: /);
  assert.doesNotMatch(answer, /broken/);
  assert.deepEqual(await lab.record(), ["block http internal_error"]);
  assert.deepEqual(origin.received, []);
});

Deno.test("whatever is thrown ends an attempt with a reason", () => {
  const refusal = new Refusal(403, "sni", "sni_missing", "no name");
  assert.equal(asRefusal(refusal, "connect"), refusal);
  const reset = new SystemError("recv", 104); // ECONNRESET
  for (const thrown of [reset, new ConnectionClosed(), new UnexpectedEnd()]) {
    assert.equal(asRefusal(thrown, "connect").reason, "client_closed");
  }
  for (const thrown of [new TypeError("x"), "text", null, undefined]) {
    assert.equal(asRefusal(thrown, "http").reason, "internal_error");
  }
});

Deno.test("a thread that fails closes every connection, and the next one serves by the same rules", async () => {
  const threads: Worker[] = [];
  const RealWorker = Worker;
  globalThis.Worker = class extends RealWorker {
    constructor(...args: ConstructorParameters<typeof Worker>) {
      super(...args);
      threads.push(this);
    }
  };
  try {
    await using origin = Origin.echoing();
    const egress = `allow_private_ips: true, ports: [${origin.port}]`;
    await using lab = await Lab.start({
      rules: [{ condition: 'http.host == "a.example"', egress }],
    });
    using tunnel = await lab.tunnelTo(origin);
    using idle = await lab.connect();
    await eventually(() => lab.proxy.status().active_connections === 2);

    threads[0]?.postMessage(null); // nothing that it understands; the next message wakes it
    await lab.proxy.settle();
    assert.equal(await tunnel.rest(), "");
    assert.equal(await idle.rest(), "");
    await eventually(() => lab.proxy.status().active_connections === 0);
    // A network that comes before the next thread: it starts for both of them, and once.
    await lab.proxy.serve(["127.0.0.1", "127.0.0.2"]);

    assert.match(await lab.exchange(connectRequest("b.example:443")), /^HTTP\/1\.1 403 /);
    using next = await lab.connect();
    await next.send(connectRequest(`a.example:${origin.port}`));
    assert.match(await next.until(/\r\n\r\n/), /^HTTP\/1\.1 200 /);
    await pause(500); // the pause before a new thread is over
    assert.equal(threads.length, 2);
    assert.equal(lab.proxy.workerFailures, 1);
  } finally {
    globalThis.Worker = RealWorker;
  }
});

labTest("a thread that hangs is replaced, asked or not, and nothing is open after it", {
  tools: ["python3"],
}, async () => {
  let others = workerThreads();
  await using origin = Origin.echoing();
  const egress = `allow_private_ips: true, ports: [${origin.port}]`;
  const rules = [{ condition: 'http.host == "a.example"', egress }];
  await using lab = await Lab.start({ rules });
  const hang = async (notice: () => Promise<unknown>): Promise<void> => {
    using tunnel = await lab.tunnelTo(origin);
    using idle = await lab.connect();
    await eventually(() => lab.proxy.status().active_connections === 2);
    await using _hung = await HungThread.stop(others);
    others = workerThreads();
    await notice();
    assert.equal(await tunnel.rest(), "");
    assert.equal(await idle.rest(), "");
    await eventually(() => origin.openConnections === 0);
    assert.equal(lab.proxy.status().active_connections, 0);
  };
  await hang(() => eventually(() => lab.proxy.workerFailures === 1)); // nobody asks it anything
  await hang(() => lab.reload([]));
  assert.equal(lab.proxy.workerFailures, 2);
  const refused = await lab.exchange(connectRequest(`a.example:${origin.port}`));
  assert.match(refused, /^HTTP\/1\.1 403 /);
});

Deno.test("the record of a tunnel tells what moved through it, how it ended and how long it took", async () => {
  await using origin = Origin.echoing();
  const egress = `allow_private_ips: true, ports: [${origin.port}]`;
  await using lab = await Lab.start({ rules: [{ condition: 'http.host == "a.example"', egress }] });
  const closed = await lab.tunnelTo(origin);
  await lab.proxy.settle(); // reported as begun
  closed[Symbol.dispose]();
  await eventually(async () => (await lab.recent())[0]?.tunnel !== undefined);
  using cut = await lab.tunnelTo(origin);
  await lab.reload([]);
  assert.equal(await cut.rest(), "");
  const [first, second, third] = await lab.recent();
  const bytes = { upBytes: TUNNELLED.length, downBytes: TUNNELLED.length };
  assert.deepEqual(first?.tunnel, { ...bytes, end: "closed" });
  assert.ok(first.durationMs !== undefined && first.updated !== undefined);
  assert.deepEqual(second?.tunnel, { ...bytes, end: "policy" });
  assert.equal(third?.verdict, "block");
});
