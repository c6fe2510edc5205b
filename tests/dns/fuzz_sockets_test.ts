/** The whole DNS filter on real sockets, between a hostile client and a hostile upstream. */
import assert from "node:assert/strict";
import { DecisionLog } from "../../lib/decision.ts";
import { DnsServer } from "../../lib/dns/server.ts";
import { eventually } from "../eventually.ts";
import {
  checkReply,
  FUZZED_CONDITION,
  hostileQuery,
  hostileReplies,
  properReply,
  sendHostileStream,
} from "./fuzz_sides.ts";
import { encodeQuery } from "./oracle.ts";
import { Random, SEED } from "../random.ts";
import {
  NO_OPENER,
  ownAddress,
  ownPort,
  TestDirectory,
  TestPolicy,
  TestUpstream,
} from "./support.ts";

/** In CI; a longer run asks for more. */
const PACKETS = Number(Deno.env.get("OUTCALL_FUZZ_PACKETS") ?? "50000");

/** Packets sent before others get their turn: few enough to fit into the sockets' memory. */
const BURST = 200;

Deno.test(`the filter outlives ${PACKETS} fuzzed packets, answered by fuzzed replies (ADV-DNS-12, ADV-DNS-16)`, async () => {
  const random = new Random(SEED + 3);
  await using upstream = new TestUpstream(({ query }) => hostileReplies(random, query));
  const policy = new TestPolicy([
    { id: "below", condition: FUZZED_CONDITION },
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
    agentAddresses: agents.addresses,
    judge: policy.judge,
    evaluate: policy.judge,
    generation: policy.generation,
    decisions,
    opener: NO_OPENER,
  });
  const client = Deno.listenDatagram({ transport: "udp", hostname: ownAddress(), port: 0 });
  assert(client.addr.transport === "udp");
  agents.add(client.addr.hostname, "coder");
  agents.add("127.0.0.1", "by TCP");
  const to = { transport: "udp", hostname: gateway, port } as const;
  await server.serve([gateway]);
  await server.usePolicy(policy.data);

  let replies = 0;
  const reading = (async (): Promise<void> => {
    for await (const [reply] of client) {
      checkReply(reply);
      replies++;
    }
  })();
  for (let sent = 0; sent < PACKETS; sent++) {
    await client.send(hostileQuery(random), to);
    if (sent % BURST === 0) await sendHostileStream(random, to);
  }
  upstream.behaviour = ({ query }) => [properReply(query)];
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
