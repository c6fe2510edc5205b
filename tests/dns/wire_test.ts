import assert from "node:assert/strict";
import fc from "fast-check";
import { buildQuery, buildRefusal, buildReply, type Reply } from "../../lib/dns/build.ts";
import { Rcode, RecordType } from "../../lib/dns/codes.ts";
import type { Query, Question, ResourceRecord, Response } from "../../lib/dns/message.ts";
import { wireNameOf } from "../../lib/dns/name.ts";
import { parseQuery, parseResponse } from "../../lib/dns/parse.ts";
import { Hostname } from "../../lib/net/host.ts";
import { MALFORMED, withWord } from "./malformed.ts";
import { decode, edeOf, encodeQuery, encodeReply } from "./oracle.ts";

function wire(text: string): string {
  const hostname = Hostname.parse(text);
  assert(hostname !== null, text);
  return wireNameOf(hostname);
}

function query(packet: Uint8Array): Query {
  const parsed = parseQuery(packet);
  assert.equal(parsed.kind, "query", JSON.stringify(parsed));
  assert(parsed.kind === "query");
  return parsed.query;
}

const A_QUERY = encodeQuery("Example.com", "A");

Deno.test("parseQuery() reads name, type, flags and EDNS", () => {
  const { question, edns, ...rest } = query(
    encodeQuery("WWW.Example.com", "MX", {
      id: 7,
      opt: { udpPayloadSize: 4096, dnssecOk: true },
    }),
  );
  assert.deepEqual(question, { name: wire("www.example.com"), type: RecordType.MX });
  assert.deepEqual(edns, { udpPayloadBytes: 4096, dnssecOk: true });
  assert.equal(rest.id, 7);
  assert(rest.recursionDesired);
  assert(!rest.checkingDisabled);
});

Deno.test("parseQuery() reads a payload size below 512 as 512 (RFC 6891 §6.2.3)", () => {
  assert.equal(
    query(encodeQuery("a.test", "A", { opt: { udpPayloadSize: 100 } })).edns?.udpPayloadBytes,
    512,
  );
});

Deno.test("parseQuery() reads past options it does not use", () => {
  const packet = encodeQuery("a.test", "A", {
    opt: { options: [{ code: 10, data: new Uint8Array(8) }] },
  });
  assert.deepEqual(query(packet).edns, { udpPayloadBytes: 1232, dnssecOk: false });
});

for (const { what, packet, rcode } of MALFORMED) {
  const tag = what.includes("255") ? ", S007-EC-009" : "";
  Deno.test(`parseQuery() refuses ${what} (ADV-DNS-12${tag})`, () => {
    const parsed = parseQuery(packet);
    if (rcode === null) return assert.equal(parsed.kind, "drop");
    assert(parsed.kind === "refusal", parsed.kind);
    assert.equal(parsed.rcode, rcode);
    const reply = decode(buildRefusal(parsed));
    assert(reply.qr);
    assert.equal(reply.questions.length, 0);
    assert.equal((reply.opt?.extendedRcode ?? 0) << 4 | (rcode & 0x0f), rcode);
  });
}

const hostnames = fc.array(fc.stringMatching(/^[a-z0-9]{1,12}$/), { minLength: 1, maxLength: 5 })
  .map((labels) => [...labels, "test"].join("."));

Deno.test("buildQuery() is read alike by the oracle and by parseQuery()", () => {
  fc.assert(fc.property(
    fc.nat(0xffff),
    hostnames,
    fc.constantFrom("A", "AAAA", "MX", "TXT"),
    fc.boolean(),
    (id, name, type, dnssecOk) => {
      const question: Question = {
        name: wire(name),
        type: RecordType[type],
      };
      const packet = buildQuery(id, question, { dnssecOk });
      const oracle = decode(packet);
      assert.equal(oracle.id, id);
      assert(!oracle.qr && oracle.rd && !oracle.cd);
      assert.deepEqual(oracle.questions.map((q) => [q.name, q.type]), [[name, type]]);
      assert.deepEqual(oracle.opt, {
        udpPayloadSize: 1232,
        extendedRcode: 0,
        dnssecOk,
        options: [],
      });
      assert.deepEqual(query(packet).question, question);
    },
  ));
});

function response(packet: Uint8Array, id: number, question: Question): Response {
  const parsed = parseResponse(packet, id, question);
  assert(parsed.kind === "response", JSON.stringify(parsed));
  return parsed.response;
}

function address(text: string): Uint8Array {
  return Uint8Array.from(text.split("."), Number);
}

Deno.test("parseResponse() expands the names in the data of every classic type", () => {
  const question = { name: wire("example.test"), type: RecordType.MX };
  const name = "example.test";
  const packet = encodeReply({
    id: 9,
    name,
    type: "MX",
    answers: [
      { name, type: "MX", ttl: 60, data: { preference: 10, exchange: "mail.example.test" } },
      { name, type: "CNAME", ttl: 1, data: "other.example.test" },
      { name, type: "SRV", ttl: 2, data: { priority: 1, weight: 2, port: 3, target: "s.test" } },
    ],
    authorities: [{
      name,
      type: "SOA",
      ttl: 3,
      data: { mname: "ns.test", rname: "root.test", serial: 1, minimum: 77 },
    }],
  });
  const { answers, authority } = response(packet, 9, question);
  const text = (bytes: Uint8Array | undefined): string => String.fromCharCode(...bytes ?? []);
  assert.equal(text(answers[0]?.data), "\0\x0a" + wire("mail.example.test"));
  assert.equal(text(answers[1]?.data), wire("other.example.test"));
  assert.equal(text(answers[2]?.data), "\0\x01\0\x02\0\x03" + wire("s.test"));
  assert(text(authority[0]?.data).startsWith(wire("ns.test") + wire("root.test")));
});

Deno.test("parseResponse() calls what does not answer the question a stray (ADV-DNS-16)", () => {
  const question = { name: wire("example.test"), type: RecordType.A };
  const reply = { id: 9, name: "example.test", type: "A" };
  const kinds = [
    encodeReply({ ...reply, id: 10 }),
    encodeReply({ ...reply, name: "other.test" }),
    encodeReply({ ...reply, type: "AAAA" }),
    encodeQuery("example.test", "A", { id: 9 }),
    withWord(encodeReply(reply), 4, 0),
    withWord(encodeReply(reply), 2, 0x9180), // opcode STATUS
    withWord(encodeReply(reply), encodeReply(reply).length - 2, 3), // class CHAOS
    encodeReply(reply).subarray(0, 11),
  ].map((packet) => parseResponse(packet, 9, question).kind);
  assert.deepEqual(kinds, new Array(8).fill("stray"));
  assert.equal(parseResponse(encodeReply(reply), 9, question).kind, "response");
});

Deno.test("parseResponse() compares the question without regard to case", () => {
  const packet = encodeReply({ id: 9, name: "eXAMPLe.TEST", type: "A" });
  response(packet, 9, { name: wire("example.test"), type: RecordType.A });
});

Deno.test("parseResponse() does not read the sections of a truncated reply", () => {
  const packet = encodeReply({ id: 9, name: "a.test", type: "A", truncated: true });
  const truncated = withWord(packet, 6, 500); // claims records that did not fit
  assert.deepEqual(response(truncated, 9, { name: wire("a.test"), type: RecordType.A }), {
    rcode: 0,
    truncated: true,
    answers: [],
    authority: [],
  });
});

Deno.test("parseResponse() reads a failure without a question", () => {
  const packet = encodeReply({ id: 9, name: "a.test", type: "A", rcode: Rcode.FORMERR });
  const bare = withWord(packet.subarray(0, 12), 4, 0);
  assert.equal(response(bare, 9, { name: wire("a.test"), type: RecordType.A }).rcode, 1);
});

Deno.test("parseResponse() refuses addresses of the wrong length", () => {
  const packet = encodeReply({
    id: 9,
    name: "a.test",
    type: "A",
    answers: [{ name: "a.test", type: "A", ttl: 1, data: "1.2.3.4" }],
  });
  // The data length is the word before the last four bytes.
  const wrong = withWord(packet, packet.length - 6, 3).subarray(0, packet.length - 1);
  assert.equal(
    parseResponse(wrong, 9, { name: wire("a.test"), type: RecordType.A }).kind,
    "malformed",
  );
});

Deno.test("parseResponse() refuses bytes after the message", () => {
  const packet = encodeReply({ id: 9, name: "a.test", type: "A" });
  const longer = Uint8Array.from([...packet, 0]);
  const question = { name: wire("a.test"), type: RecordType.A };
  assert.equal(parseResponse(packet, 9, question).kind, "response");
  assert.equal(parseResponse(longer, 9, question).kind, "malformed");
});

Deno.test("parseResponse() reads a TTL with its top bit set as zero (RFC 2181 §8)", () => {
  const packet = encodeReply({
    id: 9,
    name: "a.test",
    type: "A",
    answers: [{ name: "a.test", type: "A", ttl: 0, data: "1.2.3.4" }],
  });
  packet[packet.length - 10] = 0x80;
  const { answers } = response(packet, 9, { name: wire("a.test"), type: RecordType.A });
  assert.equal(answers[0]?.ttlSecs, 0);
});

function reply(answers: readonly ResourceRecord[], ede: Reply["ede"] = null): Reply {
  return { rcode: Rcode.NOERROR, authoritative: false, answers, authority: [], ede };
}

Deno.test("buildReply() is read by the oracle as it was meant", () => {
  fc.assert(fc.property(
    hostnames,
    fc.array(hostnames, { maxLength: 4 }),
    fc.array(fc.ipV4(), { maxLength: 8 }),
    fc.nat(300),
    (name, aliases, addresses, ttlSecs) => {
      const chain = [name, ...aliases];
      const end = chain.at(-1) ?? name;
      const bytesOf = (text: string): Uint8Array =>
        Uint8Array.from(wire(text), (char) => char.charCodeAt(0));
      const records: ResourceRecord[] = [
        ...aliases.map((alias, i) => ({
          name: wire(chain[i] ?? name),
          type: RecordType.CNAME,
          ttlSecs,
          data: bytesOf(alias),
        })),
        ...addresses.map((text) => ({
          name: wire(end),
          type: RecordType.A,
          ttlSecs,
          data: address(text),
        })),
      ];
      const packet = buildReply(query(encodeQuery(name, "A", { opt: {} })), reply(records), 65_535);
      const oracle = decode(packet);
      assert.deepEqual(
        oracle.answers.map((record) => [record.name, record.type, record.ttl, record.data]),
        [
          ...aliases.map((alias, i) => [chain[i], "CNAME", ttlSecs, alias]),
          ...addresses.map((text) => [end, "A", ttlSecs, text]),
        ],
      );
      // And back: what we build, we parse to the same records.
      assert.deepEqual(
        response(packet, 0x1234, { name: wire(name), type: RecordType.A }).answers,
        records,
      );
    },
  ));
});

Deno.test("buildReply() echoes id, RD, CD and the question as it was spelled", () => {
  const packet = encodeQuery("eXaMpLe.CoM", "A", { id: 0xbeef, flags: 0x0110 });
  const built = buildReply(query(packet), reply([]), 512);
  const oracle = decode(built);
  assert.equal(oracle.id, 0xbeef);
  assert(oracle.qr && oracle.rd && oracle.ra && oracle.cd && !oracle.aa && !oracle.tc);
  assert.equal(oracle.questions[0]?.name, "eXaMpLe.CoM");
  assert.equal(oracle.opt, null);
});

Deno.test("buildReply() sends OPT and EDE only to clients that speak EDNS", () => {
  const ede = { code: 15, text: "why" };
  assert.equal(decode(buildReply(query(A_QUERY), reply([], ede), 512)).opt, null);
  const edns = query(encodeQuery("a.test", "A", { opt: { dnssecOk: true } }));
  const oracle = decode(buildReply(edns, reply([], ede), 512));
  assert.deepEqual(edeOf(oracle), ede);
  assert(oracle.opt?.dnssecOk);
});

Deno.test("buildReply() truncates to the question when the records do not fit", () => {
  const records = Array.from({ length: 100 }, (_, i): ResourceRecord => ({
    name: wire("example.com"),
    type: RecordType.A,
    ttlSecs: 1,
    data: Uint8Array.of(1, 1, 1, i),
  }));
  const asked = query(encodeQuery("example.com", "A", { opt: {} }));
  const small = buildReply(asked, reply(records), 512);
  assert(small.length <= 512);
  const oracle = decode(small);
  assert(oracle.tc);
  assert.equal(oracle.answers.length, 0);
  assert.equal(oracle.questions[0]?.name, "example.com");
  assert.equal(decode(buildReply(asked, reply(records), 65_535)).answers.length, 100);
});
