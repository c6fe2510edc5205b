import assert from "node:assert/strict";
import { bytesOf, textOf } from "../../lib/proxy/bytes.ts";
import { eventually } from "../eventually.ts";
import { clientHello, helloMessage, join, records } from "./hello.ts";
import { Origin, type RawClient } from "./raw.ts";
import { refusedHellos, soundHellos } from "./hellos.ts";
import { connectRequest, Lab, type LabOptions } from "./support.ts";

const ESTABLISHED = "HTTP/1.1 200 Connection Established\r\n\r\n";

/** A rule that admits tunnels to `host` on the port of `origin`. */
function tunnelRule(
  host: string,
  origin: Origin,
  egress = "allow_private_ips: true",
): { readonly condition: string; readonly egress: string } {
  return {
    condition: `http.host == "${host}"`,
    egress: `${egress}, ports: [${origin.port}]`,
  };
}

/** Opens a tunnel to `authority` and returns the client behind the 200. */
async function open(lab: Lab, authority: string): Promise<RawClient> {
  const client = await lab.connect();
  await client.send(connectRequest(authority));
  assert.equal(await client.until(/\r\n\r\n/), ESTABLISHED);
  return client;
}

Deno.test("an allowed host: 200, the hello upstream unchanged, then bytes both ways (S006-AS-003, AS-005, SC-002, SC-006)", async () => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({ rules: [tunnelRule("a.example", origin)] });
  using client = await open(lab, `a.example:${origin.port}`);
  const hello = clientHello({ names: ["a.example"], alpn: ["h2"] });
  await client.send(join(hello, bytesOf("more")));
  await client.until(/more/);
  await client.send("and more");
  await client.until(/and more/);
  assert.equal(origin.received[0], `${textOf(hello)}moreand more`);
  assert.deepEqual(await lab.record(), ["allow sni rule"]);
  const [decision] = await lab.recent();
  assert.deepEqual(decision?.attempt, {
    host: "a.example",
    port: origin.port,
    method: "CONNECT",
    address: "127.0.0.1",
  });
});

Deno.test("a blocked host gets 403, no 200, no look-up, no byte upstream (ADV-TLS-01, S006-AS-004)", async () => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({ rules: [tunnelRule("a.example", origin)] });
  const answer = await lab.exchange(connectRequest(`b.example:${origin.port}`));
  assert.match(answer, /^HTTP\/1\.1 403 Forbidden\r\n/);
  assert.match(answer, /\r\nX-Outcall-Block-Reason: default\r\n/);
  assert.match(answer, /Blocked by outcall: CONNECT b\.example:[0-9]+: /);
  assert.match(answer, /outcall-agent request https:\/\/b\.example/);
  assert.doesNotMatch(answer, /200/);
  assert.deepEqual(lab.resolved, []);
  assert.deepEqual(origin.received, []);
  assert.deepEqual(await lab.record(), ["block connect default"]);
});

Deno.test("only port 443, unless the rule admits another one (D25, ADV-TLS-05)", async () => {
  await using lab = await Lab.start({
    rules: [
      { condition: 'http.host == "a.example"' },
      { condition: 'http.host == "b.example" && network.port == 8443' },
    ],
    names: {},
  });
  const services = [
    20,
    21,
    22,
    23,
    25,
    53,
    110,
    119,
    143,
    389,
    445,
    465,
    587,
    636,
    993,
    995,
    1433,
    1521,
  ];
  for (
    const port of [
      ...services,
      3306,
      3389,
      5432,
      5672,
      5900,
      6379,
      9200,
      9300,
      11211,
      27017,
      80,
      8443,
    ]
  ) {
    const answer = await lab.exchange(connectRequest(`a.example:${port}`));
    assert.match(answer, /^HTTP\/1\.1 403 [^]*X-Outcall-Block-Reason: port\r\n/, `${port}`);
  }
  for (const authority of ["a.example:443", "b.example:8443"]) {
    using client = await open(lab, authority);
    client[Symbol.dispose]();
  }
});

Deno.test("the server name must be the CONNECT host, or nothing goes upstream (D24, ADV-TLS-06 to -12)", async (t) => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({
    rules: [tunnelRule("a.example", origin), tunnelRule("b.example", origin)],
  });
  const firstBytes = refusedHellos("a.example", "b.example");
  for (const [name, bytes, reason] of firstBytes) {
    await t.step(name, async () => {
      using client = await open(lab, `a.example:${origin.port}`);
      await client.send(bytes);
      assert.equal(await client.rest(), "");
      assert.equal((await lab.record()).at(-1), `block sni ${reason}`);
    });
  }
  assert.deepEqual(origin.received, []);
  assert.deepEqual(lab.resolved, []);
  assert.equal((await lab.record()).length, firstBytes.length);
});

Deno.test("what an admitted tunnel says behind its hello is nobody's to see: another Host passes (ADV-TLS-14)", async () => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({ rules: [tunnelRule("a.example", origin)] });
  using client = await open(lab, `a.example:${origin.port}`);
  await client.send(join(clientHello({ names: ["a.example"] }), bytesOf("Host: other.example")));
  await client.until(/Host: other\.example$/);
});

Deno.test("a hello that names the host, in any way that clients have, goes up as it was sent", async () => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({ rules: [tunnelRule("a.example", origin)] });
  for (const [index, [name, bytes]] of soundHellos("a.example").entries()) {
    using client = await open(lab, `A.example.:${origin.port}`);
    await client.send(join(bytes, bytesOf("through")));
    await client.until(/through/);
    assert.equal(origin.received[index], `${textOf(bytes)}through`, name);
  }
});

Deno.test("a hello in many segments and records is judged when it is whole (ADV-TLS-08)", async () => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({ rules: [tunnelRule("a.example", origin)] });
  using client = await open(lab, `a.example:${origin.port}`);
  const hello = records(helloMessage({ names: ["a.example"] }), 50);
  for (const byte of hello.subarray(0, -1)) await client.send(Uint8Array.of(byte));
  assert.deepEqual(origin.received, []);
  await client.send(join(hello.subarray(-1), bytesOf("end")));
  await client.until(/end/);
  assert.equal(origin.received[0], `${textOf(hello)}end`);
});

Deno.test("a hello that does not come, or never ends, closes the tunnel (ADV-TLS-12)", async () => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({
    rules: [tunnelRule("a.example", origin)],
    limits: { helloMs: 100 },
  });
  const hello = clientHello({ names: ["a.example"] });
  for (const sent of [hello.subarray(0, 0), hello.subarray(0, 40)]) {
    using client = await open(lab, `a.example:${origin.port}`);
    await client.send(sent);
    assert.equal(await client.rest(), "");
  }
  assert.deepEqual(await lab.record(), ["block sni limit", "block sni limit"]);
  await using patient = await Lab.start({ rules: [tunnelRule("a.example", origin)] });
  using leaving = await open(patient, `a.example:${origin.port}`);
  await leaving.conn.closeWrite();
  assert.equal(await leaving.rest(), "");
  assert.deepEqual(await patient.record(), ["block sni not_tls"]);
  assert.deepEqual(origin.received, []);
});

Deno.test("tls: any admits any bytes, also a server that speaks first (D24)", async () => {
  await using origin = new Origin(async (client) => {
    await client.send("SSH-2.0-server\r\n");
    await client.until(/client\r\n/);
    await client.send("bye");
  });
  await using lab = await Lab.start({
    rules: [tunnelRule("a.example", origin, "allow_private_ips: true, tls: any")],
  });
  using client = await open(lab, `a.example:${origin.port}`);
  await client.until(/server\r\n/);
  await client.send("SSH-2.0-client\r\n");
  assert.equal(await client.rest(), "bye");
  assert.deepEqual(await lab.record(), ["allow connect rule"]);
});

Deno.test("tls: any of a rule that does not admit the address opens nothing for a rule that does (D24, D32)", async () => {
  await using origin = Origin.echoing();
  const egress = `allow_private_ips: true, ports: [${origin.port}]`;
  await using lab = await Lab.start({
    rules: [
      {
        condition: 'http.host == "a.example" && network.ip == "127.0.0.9"',
        egress: `${egress}, tls: any`,
      },
      { condition: 'http.host == "a.example"', egress },
    ],
  });
  using client = await open(lab, `a.example:${origin.port}`);
  await client.send("not TLS");
  assert.equal(await client.rest(), "");
  assert.deepEqual(await lab.record(), ["block sni sni_missing"]);
  assert.deepEqual(origin.received, []);
});

Deno.test("the record names the rule that admitted the address (D32)", async () => {
  await using origin = Origin.echoing();
  const egress = `allow_private_ips: true, ports: [${origin.port}]`;
  await using lab = await Lab.start({
    rules: [
      { condition: 'http.host == "a.example" && network.ip == "127.0.0.9"', egress },
      { condition: 'http.host == "a.example"', egress },
    ],
  });
  using client = await open(lab, `a.example:${origin.port}`);
  await client.send(join(clientHello({ names: ["a.example"] }), bytesOf("x")));
  await client.until(/x$/);
  assert.equal((await lab.recent())[0]?.rule?.id, "rule-1");
});

Deno.test("bytes ahead of the 200 are refused: they could be read as another request", async () => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({ rules: [tunnelRule("a.example", origin)] });
  const request = connectRequest(`a.example:${origin.port}`);
  const answer = await lab.exchange(request + textOf(clientHello({ names: ["a.example"] })));
  assert.match(answer, /^HTTP\/1\.1 400 /);
  assert.deepEqual(origin.received, []);
});

Deno.test("the address that was checked is the one that is dialled; restricted ones only where the rule admits them (D23, ADV-HTTP-25, -26, S006-EC-016)", async (t) => {
  await using origin = Origin.echoing();
  const hello = join(clientHello({ names: ["a.example"] }), bytesOf("x"));
  const attempt = async (
    options: Omit<LabOptions, "rules">,
    egress: string,
  ): Promise<readonly string[]> => {
    await using lab = await Lab.start({
      ...options,
      rules: [tunnelRule("a.example", origin, egress)],
    });
    using client = await open(lab, `a.example:${origin.port}`);
    await client.send(hello);
    await Promise.race([client.until(/x$/), client.rest()]).catch(() => {});
    return (await lab.record());
  };
  const closed = "allow_private_ips: false";
  for (
    const address of [
      "127.0.0.1",
      "10.0.0.1",
      "169.254.169.254",
      "::1",
      "::ffff:127.0.0.1",
      "64:ff9b::7f00:1",
    ]
  ) {
    await t.step(`${address} is refused`, async () => {
      const record = await attempt({ names: { "a.example": [address] } }, closed);
      assert.deepEqual(record, ["block dial restricted_address"]);
    });
  }
  await t.step("an address of this host is refused whatever the rule says", async () => {
    const record = await attempt(
      { isLocalAddress: (ip) => ip.text === "127.0.0.1" },
      "allow_private_ips: true",
    );
    assert.deepEqual(record, ["block dial local_address"]);
  });
  await t.step("a refused address among others is left out", async () => {
    const options: Omit<LabOptions, "rules"> = {
      names: { "a.example": ["127.9.9.9", "127.0.0.1"] },
      isLocalAddress: (ip) => ip.text === "127.9.9.9",
    };
    assert.deepEqual(await attempt(options, "allow_private_ips: true"), ["allow sni rule"]);
  });
  assert.equal(origin.received.length, 1);
});

Deno.test("an address that refuses is followed by the next one, of either family", async () => {
  await using four = Origin.echoing();
  await using six = new Origin(four.serve, "::1");
  const names = {
    "four.example": ["::1", "127.0.0.9", "127.0.0.1"],
    "six.example": ["127.0.0.9", "::1"],
  };
  await using lab = await Lab.start({
    rules: [tunnelRule("four.example", four), tunnelRule("six.example", six)],
    names,
  });
  for (const [host, origin] of [["four.example", four], ["six.example", six]] as const) {
    using client = await open(lab, `${host}:${origin.port}`);
    await client.send(join(clientHello({ names: [host] }), bytesOf("x")));
    await client.until(/x$/);
  }
  const dialled = (await lab.recent()).map(({ attempt }) => attempt.address);
  assert.deepEqual(dialled, ["127.0.0.1", "::1"]);
});

Deno.test("a rule on network.ip decides once the address is known (D32)", async () => {
  await using origin = Origin.echoing();
  const names = { "a.example": ["127.0.0.1"], "b.example": ["127.0.0.2"] };
  const condition = `network.port == ${origin.port} && network.ip == "127.0.0.1"`;
  await using lab = await Lab.start({ rules: [{ condition }], names });
  using good = await open(lab, `a.example:${origin.port}`);
  await good.send(join(clientHello({ names: ["a.example"] }), bytesOf("x")));
  await good.until(/x$/);
  using bad = await open(lab, `b.example:${origin.port}`);
  await bad.send(clientHello({ names: ["b.example"] }));
  assert.equal(await bad.rest(), "");
  assert.deepEqual(await lab.record(), ["allow sni rule", "block dial default"]);
});

Deno.test("CONNECT to a literal address is judged as that address, with an answer to give (S006-AS-010, ADV-HTTP-25)", async () => {
  await using origin = Origin.echoing();
  const rule = (egress: string): { condition: string; egress: string } => ({
    condition: 'network.ip == "127.0.0.1" && network.hostname == "127.0.0.1"',
    egress: `ports: [${origin.port}], tls: any, ${egress}`,
  });
  const authority = `127.0.0.1:${origin.port}`;
  await using closed = await Lab.start({ rules: [rule("allow_private_ips: false")] });
  assert.match(
    await closed.exchange(connectRequest(authority)),
    /^HTTP\/1\.1 403 [^]*restricted_address/,
  );
  await using opened = await Lab.start({ rules: [rule("allow_private_ips: true")] });
  using client = await open(opened, authority);
  await client.send("x");
  await client.until(/x/);
  assert.deepEqual(opened.resolved, []);
});

Deno.test("when upstream cannot be reached after the 200, the tunnel closes (S006-FR-021)", async () => {
  await using lab = await Lab.start({
    rules: [{ condition: "true", egress: "allow_private_ips: true, ports: [1, 443]" }],
    names: { "a.example": ["127.0.0.1"], "empty.example": [] },
  });
  for (
    const [host, port] of [["nowhere.example", 443], ["empty.example", 443], [
      "a.example",
      1,
    ]] as const
  ) {
    using client = await open(lab, `${host}:${port}`);
    await client.send(clientHello({ names: [host] }));
    assert.equal(await client.rest(), "");
    assert.equal((await lab.record()).at(-1), "block dial upstream_failed");
  }
});

Deno.test("half-close: what one side still has to say arrives after the other has finished (S006-EC-004, EC-005)", async () => {
  await using origin = new Origin(async (client) => {
    await client.rest();
    await client.send("last words");
  });
  await using lab = await Lab.start({ rules: [tunnelRule("a.example", origin)] });
  using client = await open(lab, `a.example:${origin.port}`);
  await client.send(clientHello({ names: ["a.example"] }));
  await client.conn.closeWrite();
  assert.equal(await client.rest(), "last words");
  await eventually(() => lab.proxy.status().active_connections === 0);
});

Deno.test("an idle tunnel is closed on both sides (S006-FR-011, SC-009)", async () => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({
    rules: [tunnelRule("a.example", origin)],
    limits: { idleMs: 100 },
  });
  using client = await open(lab, `a.example:${origin.port}`);
  await client.send(clientHello({ names: ["a.example"] }));
  await client.rest();
  await eventually(() => lab.proxy.status().active_connections === 0);
});

Deno.test("a reload ends the tunnels that it would not admit, and only those (ADV-NET-10)", async () => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({
    rules: [tunnelRule("a.example", origin), tunnelRule("b.example", origin)],
  });
  const hello = (name: string): Uint8Array => join(clientHello({ names: [name] }), bytesOf("x"));
  using a = await open(lab, `a.example:${origin.port}`);
  await a.send(hello("a.example"));
  await a.until(/x$/);
  using b = await open(lab, `b.example:${origin.port}`);
  await b.send(hello("b.example"));
  await b.until(/x$/);
  using waiting = await open(lab, `a.example:${origin.port}`); // its hello has not come yet
  assert.equal(await lab.reload([tunnelRule("b.example", origin)]), 2);
  assert.equal(await a.rest(), "");
  assert.equal(await waiting.rest(), "");
  await b.send("still here");
  await b.until(/still here/);
  assert.deepEqual((await lab.record()).slice(2), [
    "block connect default",
    "block connect default",
  ]);
  // The private address is no longer admitted: the tunnel is no longer either.
  assert.equal(await lab.reload([tunnelRule("b.example", origin, "allow_private_ips: false")]), 1);
  assert.equal(await b.rest(), "");
  assert.equal((await lab.record()).at(-1), "block dial restricted_address");
});

Deno.test("a tunnel whose first bytes nobody looked at ends when its rule asks for a server name", async () => {
  await using origin = Origin.echoing();
  const any = tunnelRule("a.example", origin, "allow_private_ips: true, tls: any");
  await using lab = await Lab.start({ rules: [any] });
  using client = await open(lab, `a.example:${origin.port}`);
  await client.send("x");
  await client.until(/x/);
  assert.equal(await lab.reload([any]), 0);
  assert.equal(await lab.reload([tunnelRule("a.example", origin)]), 1);
  assert.equal(await client.rest(), "");
});

Deno.test("300 tunnels at once from one agent work (S006-SC-008)", async () => {
  await using origin = Origin.echoing();
  await using lab = await Lab.start({ rules: [tunnelRule("a.example", origin)] });
  const hello = join(clientHello({ names: ["a.example"] }), bytesOf("x"));
  const clients = await Promise.all(Array.from({ length: 300 }, async () => {
    const client = await open(lab, `a.example:${origin.port}`);
    await client.send(hello);
    await client.until(/x$/);
    return client;
  }));
  assert.equal(lab.proxy.status().active_connections, 300);
  for (const client of clients) client[Symbol.dispose]();
  await eventually(() => lab.proxy.status().active_connections === 0);
});
