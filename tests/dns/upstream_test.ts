/** Upstreams that fail, lie, or are attacked from the side, over real sockets on loopback. */
import assert from "node:assert/strict";
import { RecordType } from "../../lib/dns/codes.ts";
import { DnsCache } from "../../lib/dns/cache.ts";
import type { Question } from "../../lib/dns/message.ts";
import { wireNameOf } from "../../lib/dns/name.ts";
import { Resolver } from "../../lib/dns/resolver.ts";
import { UpstreamClient, UpstreamError } from "../../lib/dns/upstream.ts";
import { Hostname } from "../../lib/net/host.ts";
import { encodeReply, type OracleRecord } from "./oracle.ts";
import { type Asked, ownAddress, replying, TestUpstream } from "./support.ts";

/** Long enough for a loaded machine; only silent upstreams wait for it. */
const PATIENT_MS = 5000;
/** For tests in which an upstream never answers. */
const IMPATIENT_MS = 200;

function question(name: string): Question {
  const hostname = Hostname.parse(name);
  assert(hostname !== null);
  return { name: wireNameOf(hostname), type: RecordType.A };
}

const Q = question("example.test");

function address(data: string): OracleRecord {
  return { name: "example.test", type: "A", ttl: 60, data };
}

const good = replying(() => ({ answers: [address("1.1.1.1")] }));

/** The addresses in the reply to {@linkcode Q}. */
async function ask(client: UpstreamClient): Promise<readonly string[]> {
  const response = await client.ask(Q, false);
  return response.answers.map((record) => record.data.join("."));
}

function packetOf(
  asked: Asked,
  data: string,
  changes: { id?: number; name?: string } = {},
): Uint8Array {
  const name = changes.name ?? "example.test";
  return encodeReply({
    id: changes.id ?? asked.message.id,
    name,
    type: "A",
    answers: [{ name, type: "A", ttl: 60, data }],
  });
}

Deno.test("only name, type and DO of a question go upstream, with our own EDNS", async () => {
  await using upstream = new TestUpstream(good);
  await new UpstreamClient([upstream.upstream], PATIENT_MS).ask(Q, true);
  const [asked] = upstream.asked;
  assert.deepEqual(asked?.message.opt, {
    udpPayloadSize: 1232,
    extendedRcode: 0,
    dnssecOk: true,
    options: [],
  });
  assert(asked.message.rd && !asked.message.cd);
});

for (const rcode of [1, 4]) {
  Deno.test(`an upstream that answers EDNS with code ${rcode} is asked again without (RFC 6891 §7)`, async () => {
    await using upstream = new TestUpstream(
      replying(({ message }) =>
        message.opt === null ? { answers: [address("1.1.1.1")] } : { rcode }
      ),
    );
    assert.deepEqual(await ask(new UpstreamClient([upstream.upstream], PATIENT_MS)), ["1.1.1.1"]);
    assert.equal(upstream.asked.length, 2);
  });
}

Deno.test("ids and source ports differ from query to query (RFC 5452)", async () => {
  await using upstream = new TestUpstream(good);
  const client = new UpstreamClient([upstream.upstream], PATIENT_MS);
  for (let i = 0; i < 16; i++) await ask(client);
  assert(new Set(upstream.asked.map(({ message }) => message.id)).size > 12);
  assert(new Set(upstream.asked.map(({ port }) => port)).size > 12);
});

Deno.test("replies with another id or question, and queries, are waited past (ADV-DNS-16)", async () => {
  await using upstream = new TestUpstream((asked) => [
    packetOf(asked, "6.6.6.6", { id: asked.message.id ^ 1 }),
    packetOf(asked, "6.6.6.6", { name: "other.test" }),
    new Uint8Array(3),
    packetOf(asked, "1.1.1.1"),
  ]);
  assert.deepEqual(await ask(new UpstreamClient([upstream.upstream], PATIENT_MS)), ["1.1.1.1"]);
});

for (const what of ["address", "port"]) {
  Deno.test(`a reply from another ${what} is not read (ADV-DNS-16)`, async () => {
    await using upstream = new TestUpstream(good);
    const { address, port } = upstream;
    const forger = Deno.listenDatagram({
      transport: "udp",
      ...(what === "address" ? { hostname: ownAddress(), port } : { hostname: address, port: 0 }),
    });
    // The forger knows id, question and port: only where it sends from is wrong.
    upstream.behaviour = async (asked) => {
      await forger.send(packetOf(asked, "6.6.6.6"), {
        transport: "udp",
        hostname: "127.0.0.1",
        port: asked.port,
      });
      return [packetOf(asked, "1.1.1.1")];
    };
    assert.deepEqual(await ask(new UpstreamClient([upstream.upstream], PATIENT_MS)), ["1.1.1.1"]);
    forger.close();
  });
}

Deno.test("many wrong guesses at the id move the question to TCP", async () => {
  await using upstream = new TestUpstream((asked) =>
    asked.transport === "tcp" ? [packetOf(asked, "1.1.1.1")] : Array.from(
      { length: 40 },
      (_, i) => packetOf(asked, "6.6.6.6", { id: asked.message.id ^ (i + 1) }),
    )
  );
  assert.deepEqual(await ask(new UpstreamClient([upstream.upstream], PATIENT_MS)), ["1.1.1.1"]);
  assert.deepEqual(upstream.asked.map(({ transport }) => transport), ["udp", "tcp"]);
});

Deno.test("a truncated reply is fetched again by TCP from the same upstream (S007-FR-020)", async () => {
  const addresses = Array.from({ length: 200 }, (_, i) => `1.1.1.${i}`);
  await using upstream = new TestUpstream(
    replying(({ transport }) =>
      transport === "udp" ? { truncated: true } : { answers: addresses.map(address) }
    ),
  );
  assert.deepEqual(await ask(new UpstreamClient([upstream.upstream], PATIENT_MS)), addresses);
});

Deno.test("a datagram larger than announced is fetched by TCP instead", async () => {
  const addresses = Array.from({ length: 200 }, (_, i) => `1.1.1.${i}`);
  await using upstream = new TestUpstream(replying(() => ({ answers: addresses.map(address) })));
  assert.deepEqual(await ask(new UpstreamClient([upstream.upstream], PATIENT_MS)), addresses);
  assert.deepEqual(upstream.asked.map(({ transport }) => transport), ["udp", "tcp"]);
});

Deno.test("a lost query is sent once more", async () => {
  let queries = 0;
  await using upstream = new TestUpstream((asked) =>
    ++queries === 1 ? [] : [packetOf(asked, "1.1.1.1")]
  );
  assert.deepEqual(await ask(new UpstreamClient([upstream.upstream], PATIENT_MS)), ["1.1.1.1"]);
});

const failing: readonly (readonly [string, ConstructorParameters<typeof TestUpstream>[0]])[] = [
  ["is silent (S007-EC-003)", () => []],
  ["answers SERVFAIL (S007-EC-013)", replying(() => ({ rcode: 2 }))],
  ["answers REFUSED", replying(() => ({ rcode: 5 }))],
  ["answers garbage under the right id", (asked) => [packetOf(asked, "6.6.6.6").subarray(0, 40)]],
  ["lies about its sections", (asked) => {
    const packet = packetOf(asked, "6.6.6.6");
    new DataView(packet.buffer).setUint16(6, 9);
    return [packet];
  }],
  ["closes the TCP connection", (asked) => {
    if (asked.transport === "tcp") throw new Error("no");
    return [
      encodeReply({ id: asked.message.id, name: "example.test", type: "A", truncated: true }),
    ];
  }],
  ["truncates by TCP, too", replying(() => ({ truncated: true }))],
  ["is slow by TCP", async (asked) => {
    if (asked.transport === "tcp") await new Promise((resolve) => setTimeout(resolve, 1000));
    return [
      encodeReply({ id: asked.message.id, name: "example.test", type: "A", truncated: true }),
    ];
  }],
];
for (const [what, behaviour] of failing) {
  Deno.test(`the next upstream answers when the first one ${what} (S007-AS-007)`, async () => {
    await using first = new TestUpstream(behaviour);
    await using second = new TestUpstream(good);
    const client = new UpstreamClient([first.upstream, second.upstream], IMPATIENT_MS);
    assert.deepEqual(await ask(client), ["1.1.1.1"]);
    assert(first.asked.length > 0);
  });

  Deno.test(`the question fails when the only upstream ${what}`, async () => {
    await using only = new TestUpstream(behaviour);
    const client = new UpstreamClient([only.upstream], IMPATIENT_MS);
    await assert.rejects(client.ask(Q, false), UpstreamError);
  });
}

Deno.test("an upstream that failed is asked last from then on", async () => {
  await using first = new TestUpstream(() => []);
  await using second = new TestUpstream(good);
  const client = new UpstreamClient([first.upstream, second.upstream], IMPATIENT_MS);
  await ask(client);
  const asked = first.asked.length;
  await ask(client);
  assert.equal(first.asked.length, asked);
});

Deno.test("an upstream whose reply to one question cannot be read is asked the next one first", async () => {
  await using first = new TestUpstream((asked) => [packetOf(asked, "6.6.6.6").subarray(0, 40)]);
  await using second = new TestUpstream(good);
  const client = new UpstreamClient([first.upstream, second.upstream], PATIENT_MS);
  assert.deepEqual(await ask(client), ["1.1.1.1"]);
  first.behaviour = good;
  assert.deepEqual(await ask(client), ["1.1.1.1"]);
  assert.deepEqual([first.asked.length, second.asked.length], [2, 1]);
});

Deno.test("NXDOMAIN is an answer, and no other upstream is asked (ADV-DNS-00)", async () => {
  await using first = new TestUpstream(replying(() => ({ rcode: 3 })));
  await using second = new TestUpstream(good);
  const client = new UpstreamClient([first.upstream, second.upstream], PATIENT_MS);
  assert.equal((await client.ask(Q, false)).rcode, 3);
  assert.equal(second.asked.length, 0);
});

Deno.test("close() ends what is in flight and everything after it", async () => {
  await using upstream = new TestUpstream(() => []);
  const client = new UpstreamClient([upstream.upstream], PATIENT_MS);
  const asking = assert.rejects(client.ask(Q, false), UpstreamError);
  client.close();
  await asking;
  await assert.rejects(client.ask(Q, false), UpstreamError);
});

Deno.test("identical questions in flight share one upstream query (S007-EC-010)", async () => {
  await using upstream = new TestUpstream(good);
  const client = new UpstreamClient([upstream.upstream], PATIENT_MS);
  const resolver = new Resolver(new DnsCache(), client);
  const results = await Promise.all([
    resolver.ask(Q, false),
    resolver.ask(Q, false),
    resolver.ask(question("EXAMPLE.test"), false),
  ]);
  assert.equal(upstream.asked.length, 1);
  assert(results.every(({ answer }) => answer.answers.length === 1));
  await resolver.ask(Q, true);
  assert.equal(upstream.asked.length, 2);
});

Deno.test("a failure is not kept: the next question asks again (S007-EC-013)", async () => {
  await using upstream = new TestUpstream(replying(() => ({ rcode: 2 })));
  const client = new UpstreamClient([upstream.upstream], PATIENT_MS);
  const resolver = new Resolver(new DnsCache(), client);
  await assert.rejects(async () => await resolver.ask(Q, false), UpstreamError);
  upstream.behaviour = good;
  assert.equal((await resolver.ask(Q, false)).answer.answers.length, 1);
});
