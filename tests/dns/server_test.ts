/** The DNS filter on real sockets; gateways are loopback addresses of the test's own. */
import assert from "node:assert/strict";
import type { Decision } from "../../lib/decision.ts";
import { readTcpMessage, writeTcpMessage } from "../../lib/dns/framing.ts";
import { LookupError } from "../../lib/dns/lookup.ts";
import { OutcallError } from "../../lib/errors.ts";
import { Hostname } from "../../lib/net/host.ts";
import { pause } from "../../lib/pause.ts";
import { eventually } from "../eventually.ts";
import { decode, encodeQuery, type OracleMessage } from "./oracle.ts";
import { allowHost, type Behaviour, ownAddress, replying } from "./support.ts";
import { CLIENT, good, World } from "./world.ts";

async function nextReply(conn: Deno.Conn): Promise<OracleMessage> {
  const reply = await readTcpMessage(conn);
  assert(reply !== null, "the connection was closed");
  return decode(reply);
}

const addresses = (reply: OracleMessage): readonly unknown[] =>
  reply.answers.map(({ data }) => data);

const QUERY = encodeQuery("a.test", "A", { opt: {} });
const RULES = [allowHost("a.test")];

Deno.test("every gateway is served by UDP and TCP (S007-FR-002, D6)", async () => {
  await using world = new World(RULES);
  const gateways = [ownAddress(), ownAddress()];
  await world.server.serve(gateways);
  for (const gateway of gateways) {
    assert.deepEqual(addresses(await world.udp(gateway, QUERY)), ["93.184.216.34"]);
    using conn = await world.connect(gateway);
    await writeTcpMessage(conn, QUERY);
    assert.deepEqual(addresses(await nextReply(conn)), ["93.184.216.34"]);
  }
  assert.deepEqual(world.server.status().listen_addresses, gateways);
});

Deno.test("serve() opens what is new, keeps the rest, and closes what is gone", async () => {
  await using world = new World(RULES);
  const [first, second] = [ownAddress(), ownAddress()];
  await world.server.serve([first]);
  using kept = await world.connect(first);
  await world.server.serve([first, second]);
  await world.udp(second, QUERY);
  await writeTcpMessage(kept, QUERY);
  await nextReply(kept);
  await world.server.serve([second]);
  await assert.rejects(world.connect(first), Deno.errors.ConnectionRefused);
  assert.equal(await readTcpMessage(kept).catch(() => null), null);
  await world.udp(second, QUERY);
});

Deno.test("a specific listen address is the only one that is bound (D6)", async () => {
  const [address, gateway] = [ownAddress(), ownAddress()];
  await using world = new World(RULES, good, { address });
  await world.server.serve([gateway]);
  await world.udp(address, QUERY);
  await assert.rejects(world.connect(gateway), Deno.errors.ConnectionRefused);
});

for (const transport of ["udp", "tcp"] as const) {
  Deno.test(`a ${transport} port in use is refused with its owner and a remedy (S007-EC-008)`, async () => {
    await using world = new World(RULES);
    const [served, taken] = [ownAddress(), ownAddress()];
    const squatter = transport === "udp"
      ? Deno.listenDatagram({ transport, hostname: taken, port: world.port })
      : Deno.listen({ hostname: taken, port: world.port });
    await world.server.serve([served]);
    await assert.rejects(world.server.serve([served, taken]), (thrown) => {
      assert(thrown instanceof OutcallError);
      assert.equal(thrown.code, "dns.bind");
      assert(thrown.message.includes(`${taken}:${world.port}/${transport}`), thrown.message);
      assert(thrown.message.includes(`(pid ${Deno.pid})`), thrown.message);
      assert(thrown.hint?.includes("systemctl disable --now systemd-resolved"));
      return true;
    });
    squatter.close();
    // What was served still is, and nothing of the failed attempt is left bound.
    await world.udp(served, QUERY);
    await world.server.serve([served, taken]);
    await world.udp(taken, QUERY);
  });
}

Deno.test("an address that is not this host's is refused with a remedy", async () => {
  await using world = new World(RULES, good, { address: "10.255.254.253" });
  await assert.rejects(
    world.server.serve([]),
    (thrown) => thrown instanceof OutcallError && thrown.hint?.includes("--dns-listen") === true,
  );
});

Deno.test("blocked names and strangers are refused over real sockets (ADV-DNS-02, S007-SC-003, S007-EC-015)", async () => {
  await using world = new World(RULES);
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  const blocked = await world.udp(gateway, encodeQuery("example.com", "A"));
  assert.deepEqual([blocked.rcode, blocked.aa], ["NXDOMAIN", true]);
  const stranger = await world.udp(gateway, QUERY, ownAddress());
  assert.equal(stranger.rcode, "REFUSED");
  assert.deepEqual(world.upstream.names, []);
  const { queries_total, queries_allowed, queries_blocked } = world.server.status();
  assert.deepEqual([queries_total, queries_allowed, queries_blocked], [2, 0, 2]);
});

Deno.test("while nothing can be judged, everything is SERVFAIL, by UDP and TCP, cached or not (S007-EC-005, S007-FR-032)", async () => {
  await using world = new World(RULES);
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  using conn = await world.connect(gateway);
  const ask = async (name: string): Promise<readonly string[]> => {
    const query = encodeQuery(name, "A", { opt: {} });
    await writeTcpMessage(conn, query);
    return [(await world.udp(gateway, query)).rcode, (await nextReply(conn)).rcode];
  };
  assert.deepEqual(await ask("a.test"), ["NOERROR", "NOERROR"]);
  world.policy.isBroken = true;
  assert.deepEqual(await ask("a.test"), ["SERVFAIL", "SERVFAIL"]);
  assert.deepEqual(await ask("blocked.test"), ["SERVFAIL", "SERVFAIL"]);
  assert.deepEqual(world.upstream.names, ["a.test"]);
  const reasons = world.decisions.recent().slice(-4).map(({ reason }) => reason);
  assert.deepEqual(new Set(reasons), new Set(["internal_error"]));
  world.policy.isBroken = false;
  assert.deepEqual(await ask("a.test"), ["NOERROR", "NOERROR"]);
  assert.deepEqual(await ask("blocked.test"), ["NXDOMAIN", "NXDOMAIN"]);
});

Deno.test("a source that asks faster than it may is refused for that", async () => {
  await using world = new World(RULES, good, { queryRate: { count: 3, windowSecs: 3600 } });
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  const other = ownAddress();
  world.agents.add(other, "other");
  for (let i = 0; i < 3; i++) {
    assert.equal((await world.udp(gateway, QUERY)).rcode, "NOERROR");
  }
  assert.equal((await world.udp(gateway, QUERY)).rcode, "SERVFAIL");
  assert.equal(
    (await world.udp(gateway, QUERY, other)).rcode,
    "NOERROR",
    "others are not concerned",
  );
  const reasons = world.decisions.recent().map(({ reason }) => reason);
  assert.deepEqual(reasons, ["rule", "rule", "rule", "query_rate", "rule"]);
});

Deno.test("an answer that comes late is for who asked, not for the next agent at that address (S013)", async () => {
  const { promise: pause, resolve: goOn } = Promise.withResolvers<void>();
  await using world = new World(RULES, async (question) => {
    await pause;
    return await good(question);
  });
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  const socket = Deno.listenDatagram({ transport: "udp", hostname: CLIENT, port: 0 });
  const server = { transport: "udp", hostname: gateway, port: world.port } as const;
  await socket.send(QUERY, server);
  using conn = await world.connect(gateway);
  await writeTcpMessage(conn, QUERY);
  await eventually(() => world.policy.judged === 2);
  world.agents.add(CLIENT, "next");
  world.server.forgetAgents();
  goOn();
  assert.equal(await readTcpMessage(conn), null);
  // The next agent's own answer is the first one that comes.
  await socket.send(encodeQuery("a.test", "A", { id: 7 }), server);
  assert.equal(decode((await socket.receive())[0]).id, 7);
  socket.close();
  const agents = world.decisions.recent().map(({ agent }) => agent?.name);
  assert.deepEqual(agents, ["coder", "coder", "next"]);
});

Deno.test("a flood by TCP is refused once, hung up on, and counted: its records displace nobody's", async () => {
  await using world = new World(RULES, good, { queryRate: { count: 3, windowSecs: 3600 } });
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  const startedMs = performance.now();
  const flood = async (): Promise<void> => {
    using conn = await world.connect(gateway);
    const query = Uint8Array.of(0, QUERY.length, ...QUERY);
    await conn.write(Uint8Array.from(Array.from({ length: 50 }, () => [...query]).flat()));
    while (await readTcpMessage(conn).catch(() => null) !== null);
  };
  const refusals = (): readonly Decision[] =>
    world.decisions.recent().filter(({ reason }) => reason === "query_rate");
  await eventually(async () => {
    await flood();
    return refusals().length > 3;
  });
  assert(refusals().length <= 1 + (performance.now() - startedMs) / 100, "one in 100 ms");
  assert((refusals().at(-1)?.count ?? 1) > 1, "a refusal stands for what was dropped before it");
  assert.deepEqual(new Set(world.upstream.names), new Set(["a.test"]));
  const { queries_total, queries_allowed } = world.server.status();
  const attempts = refusals().reduce((sum, { count = 1 }) => sum + count, 0);
  assert.deepEqual([queries_total, queries_allowed], [3 + attempts, 3]);
});

Deno.test("queries pipelined on one TCP connection are all answered (RFC 7766 §6.2.1)", async () => {
  await using world = new World([{ id: "all", condition: 'dns.query != ""' }]);
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  using conn = await world.connect(gateway);
  const ids = Array.from({ length: 100 }, (_, i) => i);
  const writing = (async () => {
    for (const id of ids) await writeTcpMessage(conn, encodeQuery(`n${id}.test`, "A", { id }));
  })();
  const seen: number[] = [];
  for (const _ of ids) seen.push((await nextReply(conn)).id);
  await writing;
  assert.deepEqual(seen.toSorted((a, b) => a - b), ids);
});

Deno.test("a client that closes its half still gets its answers", async () => {
  await using world = new World(RULES);
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  using conn = await world.connect(gateway);
  await writeTcpMessage(conn, QUERY);
  await conn.closeWrite();
  assert.deepEqual(addresses(await nextReply(conn)), ["93.184.216.34"]);
  assert.equal(await readTcpMessage(conn), null);
});

Deno.test("a TCP client that sends what deserves no answer is cut off (S007-EC-004, ADV-DNS-13)", async () => {
  await using world = new World(RULES);
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  for (const junk of [Uint8Array.of(0, 0), Uint8Array.of(0, 3, 1, 2, 3)]) {
    using conn = await world.connect(gateway);
    await conn.write(junk);
    assert.equal(await readTcpMessage(conn).catch(() => null), null);
  }
});

Deno.test("a length prefix that promises more than comes gets nothing (ADV-DNS-13)", async () => {
  await using world = new World(RULES);
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  using conn = await world.connect(gateway);
  await conn.write(Uint8Array.of(0xff, 0xff, ...QUERY));
  await conn.closeWrite();
  assert.equal(await readTcpMessage(conn), null);
  assert.deepEqual(world.decisions.recent(), []);
});

Deno.test("one source gets 16 TCP connections, and a place again when one ends", async () => {
  await using world = new World(RULES);
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  const conns: Deno.TcpConn[] = [];
  for (let i = 0; i < 16; i++) {
    const conn = await world.connect(gateway);
    conns.push(conn);
    await writeTcpMessage(conn, QUERY);
    await nextReply(conn);
  }
  const refused = await world.connect(gateway);
  assert.equal(await readTcpMessage(refused).catch(() => null), null);
  refused.close();
  conns.pop()?.close();
  // The server may need a moment to see that the connection ended.
  for (let served = false; !served;) {
    using conn = await world.connect(gateway);
    served = await writeTcpMessage(conn, QUERY).then(() => nextReply(conn)).then(
      () => true,
      () => false,
    );
  }
  for (const conn of conns) conn.close();
});

for (const by of ["udp", "tcp"] as const) {
  Deno.test(`stop() answers what is in flight by ${by} and takes nothing new (S007-AS-005, S007-EC-012)`, async () => {
    const gate = Promise.withResolvers<void>();
    await using world = new World(RULES, async (asked) => {
      await gate.promise;
      return await good(asked);
    });
    const gateway = ownAddress();
    await world.server.serve([gateway]);
    using conn = await world.connect(gateway);
    if (by === "tcp") await writeTcpMessage(conn, QUERY);
    const inFlight = by === "udp" ? world.udp(gateway, QUERY) : nextReply(conn);
    await eventually(() => world.upstream.names.length > 0);
    const stopping = world.server.stop();
    await assert.rejects(async () => {
      using late = await world.connect(gateway);
      await writeTcpMessage(late, QUERY);
      await nextReply(late);
    });
    await pause(100); // time for who does not wait to close
    gate.resolve();
    assert.deepEqual(addresses(await inFlight), ["93.184.216.34"]);
    await stopping;
    assert.equal(world.server.status().running, false);
    // Everything is closed: the very addresses can be bound again (S007-SC-009).
    Deno.listenDatagram({ transport: "udp", hostname: gateway, port: world.port }).close();
    Deno.listen({ hostname: gateway, port: world.port }).close();
  });
}

Deno.test("status, cache statistics, entries and flush say what happened (S007-IF-001 to 003)", async () => {
  await using world = new World(RULES);
  const gateway = ownAddress();
  assert.equal(world.server.status().running, false);
  await world.server.serve([gateway]);
  await world.udp(gateway, QUERY);
  await world.udp(gateway, QUERY);
  await world.udp(gateway, encodeQuery("b.test", "A"));
  assert.deepEqual(world.server.status(), {
    running: true,
    listen_addresses: [gateway],
    listen_port: world.port,
    upstreams: [`${world.upstream.address}:${world.upstream.port}`],
    cache_entries: 1,
    queries_total: 3,
    queries_allowed: 2,
    queries_blocked: 1,
  });
  const { hits, misses } = world.server.cacheStats();
  assert.deepEqual([hits, misses], [1, 1]);
  assert.deepEqual(
    world.server.cacheEntries().map(({ hostname, record_type }) => [hostname, record_type]),
    [["a.test", "A"]],
  );
  assert.equal(world.server.flush(), 1);
  assert.deepEqual(world.server.cacheEntries(), []);
});

Deno.test("10,000 answers are kept, and no query is refused for it (ADV-DNS-14, S007-EC-007)", async () => {
  await using world = new World([{ id: "all", condition: 'dns.query != ""' }]);
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  const to = { transport: "udp", hostname: gateway, port: world.port } as const;
  // Each agent asks for as many new names as it may in a minute.
  for (let agent = 0; agent < 84; agent++) {
    const socket = Deno.listenDatagram({ transport: "udp", hostname: ownAddress(), port: 0 });
    assert(socket.addr.transport === "udp");
    world.agents.add(socket.addr.hostname, `agent${agent}`);
    for (let n = 0; n < 120; n++) await socket.send(encodeQuery(`n${n}.a${agent}.test`, "A"), to);
    for (let n = 0; n < 120; n++) {
      const [reply] = await socket.receive();
      assert.equal(decode(reply).rcode, "NOERROR");
    }
    socket.close();
  }
  const { entries, max_entries, evictions } = world.server.cacheStats();
  assert.deepEqual([entries, max_entries, evictions], [10_000, 10_000, 80]);
});

function host(name: string): Hostname {
  const hostname = Hostname.parse(name);
  assert(hostname !== null);
  return hostname;
}

Deno.test("resolveFor() gives addresses from the same cache, restricted ones included (D23)", async () => {
  await using world = new World(
    RULES,
    replying(() => ({
      answers: ["10.0.0.1", "93.184.216.34"].map((data) => {
        return { name: "a.test", type: "A", ttl: 60, data };
      }),
    })),
  );
  const gateway = ownAddress();
  await world.server.serve([gateway]);
  const resolved = await world.server.resolveFor(world.agent, host("a.test"));
  assert.deepEqual(resolved.map(String), ["10.0.0.1", "93.184.216.34"]);
  assert.deepEqual(addresses(await world.udp(gateway, QUERY)), ["93.184.216.34"]);
  assert.equal(world.upstream.names.length, 1);
});

const failures: readonly (readonly [string, string, Behaviour])[] = [
  ["missing.test", "nxdomain", good],
  ["void.test", "nodata", good],
  ["a.test", "upstream_failed", () => []],
  [
    "a.test",
    "blocked_alias",
    replying(() => ({
      answers: [
        { name: "a.test", type: "CNAME", ttl: 60, data: "evil.test" },
        { name: "evil.test", type: "A", ttl: 60, data: "6.6.6.6" },
      ],
    })),
  ],
];
for (const [name, failure, behaviour] of failures) {
  Deno.test(`resolveFor() fails as "${failure}" for ${name}`, async () => {
    await using world = new World([
      { id: "no-evil", condition: 'dns.query == "evil.test"', action: "block" },
      { id: "all", condition: 'dns.query != ""' },
    ], behaviour);
    await assert.rejects(
      world.server.resolveFor(world.agent, host(name)),
      (thrown) => thrown instanceof LookupError && thrown.failure === failure,
    );
  });
}

Deno.test("resolveFor() asks nobody for .local, which no network but the link itself has (S007-FR-033)", async () => {
  await using world = new World([{ id: "all", condition: 'dns.query != ""' }]);
  await assert.rejects(
    world.server.resolveFor(world.agent, host("printer.local")),
    (thrown) => thrown instanceof LookupError && thrown.failure === "nxdomain",
  );
  assert.deepEqual(world.upstream.names, []);
});
