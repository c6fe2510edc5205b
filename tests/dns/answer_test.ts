import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { admitRecords, rebuildAnswer } from "../../lib/dns/answer.ts";
import { Rcode, RecordType } from "../../lib/dns/codes.ts";
import type { Response } from "../../lib/dns/message.ts";
import { nameText, wireNameOf } from "../../lib/dns/name.ts";
import { parseResponse } from "../../lib/dns/parse.ts";
import { Hostname } from "../../lib/net/host.ts";
import { restrictedRange } from "../../lib/net/restricted.ts";
import { encodeReply, type OracleRecord } from "./oracle.ts";

const hostname = Hostname.parse("www.example.com");
assert(hostname !== null);
const question = { name: wireNameOf(hostname), type: RecordType.A };

function response(
  answers: readonly OracleRecord[],
  authorities: readonly OracleRecord[] = [],
  rcode: number = Rcode.NOERROR,
): Response {
  const packet = encodeReply({
    id: 1,
    name: "www.example.com",
    type: "A",
    rcode,
    answers,
    authorities,
  });
  const parsed = parseResponse(packet, 1, question);
  assert(parsed.kind === "response");
  return parsed.response;
}

const a = (name: string, data: string, ttl = 60): OracleRecord => ({ name, type: "A", ttl, data });
const cname = (name: string, data: string, ttl = 60): OracleRecord => {
  return { name, type: "CNAME", ttl, data };
};
const soa = (name: string, ttl: number, minimum: number): OracleRecord => {
  return { name, type: "SOA", ttl, data: { mname: "ns.test", rname: "root.test", minimum } };
};

function names(response: Response): readonly string[] | undefined {
  return rebuildAnswer(question, response, false)?.answers.map((record) => nameText(record.name));
}

Deno.test("only the queried name's own chain is kept, in its order", () => {
  assert.deepEqual(
    names(response([
      a("evil.test", "6.6.6.6"),
      a("b.test", "1.1.1.1"),
      cname("a.test", "b.test"),
      cname("evil.test", "www.example.com"),
      cname("www.example.com", "a.test"),
      { name: "b.test", type: "TXT", ttl: 60, data: "no" },
    ])),
    ["www.example.com", "a.test", "b.test"],
  );
});

Deno.test("records of other classes are not read as addresses", () => {
  const answer = response([{ ...a("www.example.com", "6.6.6.6"), class: "CH" }]);
  assert.deepEqual(names(answer), []);
});

Deno.test("a CNAME loop answers nothing", () => {
  assert.equal(names(response([cname("www.example.com", "www.example.com")])), undefined);
  assert.equal(
    names(response([
      cname("www.example.com", "a.test"),
      cname("a.test", "b.test"),
      cname("b.test", "a.test"),
    ])),
    undefined,
  );
});

Deno.test("a chain of more than 16 links answers nothing", () => {
  const links = Array.from({ length: 20 }, (_, i) => cname(`n${i}.test`, `n${i + 1}.test`));
  assert.equal(names(response([cname("www.example.com", "n0.test"), ...links])), undefined);
});

Deno.test("of two CNAMEs at one name the first counts", () => {
  assert.deepEqual(
    names(response([
      cname("www.example.com", "a.test"),
      cname("www.example.com", "b.test"),
      a("b.test", "1.1.1.1"),
    ])),
    ["www.example.com"],
  );
});

Deno.test("an answer lives as long as its shortest TTL, at most 300 s (S007-FR-017)", () => {
  const lifetime = (...answers: readonly OracleRecord[]): number | undefined =>
    rebuildAnswer(question, response(answers), false)?.lifetimeSecs;
  assert.equal(lifetime(cname("www.example.com", "a.test", 7), a("a.test", "1.1.1.1", 60)), 7);
  assert.equal(lifetime(a("www.example.com", "1.1.1.1", 86_400)), 300);
  assert.equal(lifetime(a("www.example.com", "1.1.1.1", 0)), 0);
});

Deno.test("no TTL above 300 s is passed on (ADV-DNS-09)", () => {
  const answer = rebuildAnswer(
    question,
    response([a("www.example.com", "1.1.1.1", 86_400)]),
    false,
  );
  assert.equal(answer?.answers[0]?.ttlSecs, 300);
});

Deno.test("a negative answer lives by its SOA's minimum (RFC 2308 §5)", () => {
  const answer = rebuildAnswer(
    question,
    response([], [soa("example.com", 3600, 42)], Rcode.NXDOMAIN),
    false,
  );
  assert.equal(answer?.rcode, Rcode.NXDOMAIN);
  assert.equal(answer.lifetimeSecs, 42);
  assert.equal(answer.authority[0]?.ttlSecs, 42);
});

Deno.test("a negative answer without an SOA of its own zone is not kept", () => {
  const answer = rebuildAnswer(question, response([], [soa("evil.test", 60, 60)]), false);
  assert.deepEqual([answer?.lifetimeSecs, answer?.authority], [0, []]);
});

Deno.test("NXDOMAIN with addresses is NXDOMAIN", () => {
  const answer = rebuildAnswer(
    question,
    response([a("www.example.com", "6.6.6.6")], [], Rcode.NXDOMAIN),
    false,
  );
  assert.deepEqual([answer?.rcode, answer?.answers], [Rcode.NXDOMAIN, []]);
});

Deno.test("mixed public and private addresses: only the public ones (ADV-DNS-04)", () => {
  const answer = rebuildAnswer(
    question,
    response([
      a("www.example.com", "10.0.0.1"),
      a("www.example.com", "93.184.216.34"),
      a("www.example.com", "169.254.169.254"),
    ]),
    false,
  );
  const admitted = admitRecords(answer?.answers ?? [], (ip) => restrictedRange(ip) === null);
  assert.equal(admitted.addressesRemoved, 2);
  assert.deepEqual(admitted.records.map((record) => record.data.join(".")), ["93.184.216.34"]);
});

const rrsig = (name: string, typeCovered: string): OracleRecord => ({
  name,
  type: "RRSIG",
  ttl: 60,
  data: {
    typeCovered,
    algorithm: 13,
    labels: 3,
    originalTTL: 60,
    expiration: 2,
    inception: 1,
    keyTag: 1,
    signersName: "example.com",
    signature: Buffer.from("signature"),
  },
});

Deno.test("signatures pass when DNSSEC is asked for, and only then (S007-AS-014)", () => {
  const signed = response([
    a("www.example.com", "1.1.1.1"),
    rrsig("www.example.com", "A"),
    rrsig("www.example.com", "MX"),
  ]);
  const types = (dnssecOk: boolean): readonly number[] | undefined =>
    rebuildAnswer(question, signed, dnssecOk)?.answers.map((record) => record.type);
  assert.deepEqual(types(false), [RecordType.A]);
  assert.deepEqual(types(true), [RecordType.A, RecordType.RRSIG]);
});

Deno.test("signatures over addresses that were taken out go with them", () => {
  const signed = rebuildAnswer(
    question,
    response([
      a("www.example.com", "1.1.1.1"),
      a("www.example.com", "10.0.0.1"),
      rrsig("www.example.com", "A"),
    ]),
    true,
  );
  const { records } = admitRecords(signed?.answers ?? [], (ip) => restrictedRange(ip) === null);
  assert.deepEqual(records.map((record) => record.type), [RecordType.A]);
});

Deno.test("a set of more records than anybody means is no answer", () => {
  const many = (count: number): Response =>
    response(
      Array.from({ length: count }, (_, i) => a("www.example.com", `1.1.${i >> 8}.${i & 255}`)),
    );
  assert.equal(rebuildAnswer(question, many(256), false)?.answers.length, 256);
  assert.equal(rebuildAnswer(question, many(257), false), null);
});
