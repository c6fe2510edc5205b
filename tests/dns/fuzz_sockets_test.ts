/** The whole DNS filter on real sockets, between a hostile client and a hostile upstream. */
import assert from "node:assert/strict";
import { DecisionLog } from "../../lib/decision.ts";
import { DnsServer } from "../../lib/dns/server.ts";
import { eventually } from "../eventually.ts";
import { decode, encodeQuery, encodeReply } from "./oracle.ts";
import { Random, SEED } from "../random.ts";
import {
  type Behaviour,
  DNS_SPICE,
  NO_OPENER,
  ownAddress,
  ownPort,
  TestDirectory,
  TestPolicy,
  TestUpstream,
} from "./support.ts";

/** In CI; a longer run asks for more. */
const PACKETS = Number(Deno.env.get("OUTCALL_FUZZ_PACKETS") ?? "10000");

/** Packets sent before others get their turn: few enough to fit into the sockets' memory. */
const BURST = 200;

const answer: Behaviour = ({ message }) => {
  const [question] = message.questions;
  assert(question !== undefined);
  const record = { name: question.name, type: "A", ttl: 60, data: "93.184.216.34" } as const;
  return [encodeReply({ id: message.id, ...question, answers: [record] })];
};

Deno.test(`the filter outlives ${PACKETS} fuzzed packets, answered by fuzzed replies (ADV-DNS-16)`, async () => {
  const random = new Random(SEED + 3);
  const hostile: Behaviour = async (asked) => {
    const [reply] = await answer(asked);
    assert(reply !== undefined);
    return Array.from({ length: random.below(3) }, () => random.mutate(reply, DNS_SPICE));
  };
  await using upstream = new TestUpstream(hostile);
  const policy = new TestPolicy([
    { id: "below", condition: 'http.host.endsWith(".example.com") || http.host == "example.com"' },
  ]);
  const agents = new TestDirectory();
  const [gateway, port] = [ownAddress(), ownPort()];
  const decisions = new DecisionLog();
  const server = new DnsServer({
    address: null,
    port,
    upstreams: [upstream.upstream],
    upstreamTimeoutMs: 20,
    queryRate: { count: 1e9, windowSecs: 1 },
    agents,
    judge: policy.judge,
    generation: policy.generation,
    decisions,
    opener: NO_OPENER,
  });
  const client = Deno.listenDatagram({ transport: "udp", hostname: ownAddress(), port: 0 });
  assert(client.addr.transport === "udp");
  agents.add(client.addr.hostname, "coder");
  const to = { transport: "udp", hostname: gateway, port } as const;
  const corpus = [
    encodeQuery("example.com", "A", { opt: {} }),
    encodeQuery("a.example.com", "HTTPS", { opt: { dnssecOk: true } }),
    encodeQuery("b.example.com", "AAAA"),
    encodeQuery("blocked.example.net", "A", { opt: {} }),
  ];
  await server.serve([gateway]);
  await server.usePolicy(policy.data);

  // Every reply can be read, and whatever it says of a name the rules do not allow is a refusal.
  let replies = 0;
  const reading = (async (): Promise<void> => {
    for await (const [reply] of client) {
      const message = decode(reply);
      replies++;
      const [question] = message.questions;
      if (question !== undefined && !/(^|\.)example\.com$/i.test(question.name)) {
        assert.deepEqual(message.answers, []);
      }
    }
  })();
  for (let sent = 0; sent < PACKETS; sent++) {
    await client.send(random.mutate(random.pick(corpus), DNS_SPICE), to);
    if (sent % BURST === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  upstream.behaviour = answer;
  server.flush();
  const before = replies;
  // Every packet is either answered or counted, and in the end a proper one is answered properly.
  const settled = eventually(async () => {
    await client.send(encodeQuery("example.com", "A"), to);
    return replies > before && server.status().queries_total >= PACKETS;
  });
  await Promise.race([settled, reading]);
  await settled;
  assert.deepEqual(server.workerHealth().detail, "answering by UDP", "it never failed");
  assert(server.cacheStats().entries <= 10_000);
  client.close();
  await Promise.allSettled([reading]);
  await reading;
  await server.stop();
});
