/** Mutated packets: the parsers and everything behind them must neither throw nor run on. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { admitRecords, rebuildAnswer } from "../../lib/dns/answer.ts";
import { buildRefusal, buildReply, udpReplyLimitBytes } from "../../lib/dns/build.ts";
import { Rcode, RecordType } from "../../lib/dns/codes.ts";
import { cacheKey, DnsCache } from "../../lib/dns/cache.ts";
import { DnsFilter } from "../../lib/dns/filter.ts";
import { LookupLimits } from "../../lib/dns/limits.ts";
import { Resolver } from "../../lib/dns/resolver.ts";
import { UpstreamClient } from "../../lib/dns/upstream.ts";
import { Shared } from "../../lib/dns/worker/protocol.ts";
import { HAND_OVER, Responder, type Response } from "../../lib/dns/worker/responder.ts";
import { DecisionLog } from "../../lib/decision.ts";
import { hostnameOf, nameText, wireNameOf } from "../../lib/dns/name.ts";
import { parseQuery, parseResponse } from "../../lib/dns/parse.ts";
import { Hostname } from "../../lib/net/host.ts";
import { restrictedRange } from "../../lib/net/restricted.ts";
import { decode, encodeQuery, encodeReply } from "./oracle.ts";
import { hex, Random, SEED } from "../random.ts";
import { allowHost, DNS_SPICE, NO_OPENER, TestDirectory, TestPolicy } from "./support.ts";

/** In CI; a longer run asks for more. */
const PACKETS = Number(Deno.env.get("OUTCALL_FUZZ_PACKETS") ?? "50000");

/** Runs `check` on `packet`; a failure names what brings it back. */
function replayable(packet: Uint8Array, check: () => void): void {
  try {
    check();
  } catch (thrown) {
    throw new Error(`OUTCALL_FUZZ_SEED=${SEED}, packet ${hex(packet)}`, { cause: thrown });
  }
}

Deno.test(`parseQuery() survives ${PACKETS} mutated packets, and what it accepts is well formed`, () => {
  const random = new Random();
  const corpus = [
    encodeQuery("example.com", "A"),
    encodeQuery("a.very.long.name.with.many.labels.example.com", "AAAA", { opt: {} }),
    encodeQuery("_dmarc.example.com", "TXT", {
      opt: { dnssecOk: true, options: [{ code: 8, data: Uint8Array.of(0, 1, 24, 0, 1, 2, 3) }] },
    }),
    random.bytes(64),
  ];
  for (let i = 0; i < PACKETS; i++) {
    const packet = random.mutate(random.pick(corpus), DNS_SPICE);
    replayable(packet, () => {
      const parsed = parseQuery(packet);
      if (parsed.kind === "refusal") assert.equal(decode(buildRefusal(parsed)).qr, true);
      if (parsed.kind !== "query") return;
      const { query } = parsed;
      assert(query.question.name.length <= 255);
      hostnameOf(query.question.name);
      nameText(query.question.name);
      const reply = buildReply(query, {
        rcode: Rcode.NXDOMAIN,
        authoritative: true,
        answers: [],
        authority: [],
        ede: null,
      }, udpReplyLimitBytes(query));
      // Reply and query have the same question: no refusal is larger than what it answers.
      assert.deepEqual(reply.subarray(12, 12 + query.questionBytes.length), query.questionBytes);
      assert(reply.length <= packet.length);
    });
  }
});

/** As the packet comes out of a batch: with those of others before and behind it. */
function respond(responder: Responder, packet: Uint8Array): Response {
  const bytes = new Uint8Array(packet.length + 20).fill(0xaa);
  bytes.set(packet, 10);
  return responder.respond(0x0ac80002, bytes, 10, packet.length);
}

Deno.test(`the UDP worker's responder decides ${PACKETS} mutated packets as the filter does`, async () => {
  const random = new Random(SEED + 2);
  const policy = new TestPolicy([allowHost("example.com")]);
  const agents = new TestDirectory();
  const agent = agents.add("10.200.0.2", "coder");
  let nowMs = 0;
  const cache = new DnsCache(() => nowMs);
  const resolver = new Resolver(cache, new UpstreamClient([]));
  const limits = new LookupLimits();
  const decisions = new DecisionLog();
  const { judge, generation } = policy;
  const opener = NO_OPENER;
  const parts = { agents, judge, generation, decisions, resolver, limits, opener };
  const filter = new DnsFilter(parts);
  const shared = new Shared();
  const responder = new Responder(shared, { count: 1e9, windowSecs: 1 });
  responder.update({ kind: "policy", ticket: 1, epoch: 0, policy: policy.data });
  responder.update({ kind: "agent", agent });
  const hostname = Hostname.parse("example.com");
  assert(hostname !== null);
  const question = { name: wireNameOf(hostname), type: RecordType.A };
  const reply = encodeReply({
    id: 1,
    name: "example.com",
    type: "A",
    answers: [{ name: "example.com", type: "A", ttl: 300, data: "93.184.216.34" }],
  });
  const parsed = parseResponse(reply, 1, question);
  assert(parsed.kind === "response");
  for (const dnssecOk of [false, true]) {
    const answer = rebuildAnswer(question, parsed.response, dnssecOk);
    assert(answer !== null);
    cache.set(cacheKey(question, dnssecOk), question, answer);
    responder.update({ kind: "answer", question, dnssecOk, answer, ageSecs: 0 });
  }
  const corpus = [
    encodeQuery("example.com", "A", { opt: {} }),
    encodeQuery("Example.COM", "AAAA", { opt: { dnssecOk: true } }),
    encodeQuery("blocked.example.net", "A", { opt: {} }),
    encodeQuery("blocked.example.net", "HTTPS"),
  ];
  const source = { address: agent.address, transport: "udp" } as const;
  for (let i = 0; i < PACKETS; i++) {
    const packet = random.mutate(random.pick(corpus), DNS_SPICE);
    // The answers grow older, but live on.
    nowMs = i * 290_000 / PACKETS;
    responder.tick(nowMs);
    if (i % 500 === 0) responder.update({ kind: "agent", agent });
    const answered = respond(responder, packet);
    if (answered === HAND_OVER) {
      shared.addTakenPackets(1);
      continue;
    }
    const expected = await filter.handle(packet, source);
    replayable(packet, () => {
      assert.equal(answered === null, expected === null);
      if (answered === null || expected === null) return;
      // Beside the id, which a shared reply does not have, they differ in the decision's id alone.
      const [ours, theirs] = [decode(answered), decode(expected)];
      assert.deepEqual(
        [ours.rcode, ours.questions, ours.answers, ours.authorities, answered.length],
        [theirs.rcode, theirs.questions, theirs.answers, theirs.authorities, expected.length],
      );
    });
    if (i % 1000 === 0) responder.report();
  }
});

Deno.test(`parseResponse() survives ${PACKETS} mutated packets, and no restricted address gets past`, () => {
  const random = new Random(SEED + 1);
  const hostname = Hostname.parse("example.com");
  assert(hostname !== null);
  const name = "example.com";
  const questions = [RecordType.A, RecordType.HTTPS].map((type) => ({
    name: wireNameOf(hostname),
    type,
  }));
  const corpus = [
    encodeReply({
      id: 1,
      name,
      type: "A",
      answers: [
        { name, type: "CNAME", ttl: 60, data: "cdn.example.net" },
        { name: "cdn.example.net", type: "A", ttl: 60, data: "93.184.216.34" },
        { name: "cdn.example.net", type: "A", ttl: 60, data: "10.0.0.1" },
      ],
      opt: { dnssecOk: true },
    }),
    encodeReply({
      id: 1,
      name,
      type: "A",
      rcode: Rcode.NXDOMAIN,
      authorities: [{
        name: "com",
        type: "SOA",
        ttl: 60,
        data: { mname: "a.example.com", rname: "b.example.com", minimum: 60 },
      }],
    }),
    encodeReply({
      id: 1,
      name,
      type: "UNKNOWN_65",
      answers: [{
        name,
        type: "UNKNOWN_65",
        ttl: 60,
        data: Buffer.from([
          0,
          1,
          0,
          0,
          1,
          0,
          3,
          2,
          104,
          50,
          0,
          4,
          0,
          4,
          10,
          0,
          0,
          1,
          0,
          5,
          0,
          1,
          9,
        ]),
      }],
    }),
  ];
  for (let i = 0; i < PACKETS; i++) {
    const packet = random.mutate(random.pick(corpus), DNS_SPICE);
    replayable(packet, () => {
      const question = random.pick(questions);
      const parsed = parseResponse(packet, 1, question);
      if (parsed.kind !== "response") return;
      const answer = rebuildAnswer(question, parsed.response, random.below(2) === 1);
      if (answer === null) return;
      const { records } = admitRecords(answer.answers, (ip) => restrictedRange(ip) === null);
      for (const record of records) {
        if (record.type !== RecordType.A) continue;
        assert.notEqual(record.data[0], 10);
      }
      const asked = parseQuery(encodeQuery(name, "A", { opt: {} }));
      assert(asked.kind === "query");
      const reply = buildReply(asked.query, {
        rcode: answer.rcode,
        authoritative: false,
        answers: records,
        authority: answer.authority,
        ede: null,
      }, 1232);
      assert(reply.length <= 1232);
      // What we send is itself a reply that our own strict parser takes.
      assert.equal(
        parseResponse(reply, asked.query.id, asked.query.question).kind,
        "response",
      );
    });
  }
});
