/** Replies that the worker sends again: to whom, until when, and what they say by then. */
import assert from "node:assert/strict";
import type { Agent } from "../../lib/agents.ts";
import { rebuildAnswer } from "../../lib/dns/answer.ts";
import { RecordType } from "../../lib/dns/codes.ts";
import type { Question } from "../../lib/dns/message.ts";
import { wireNameOf } from "../../lib/dns/name.ts";
import { parseResponse } from "../../lib/dns/parse.ts";
import { JournalReader } from "../../lib/dns/worker/journal.ts";
import { Shared } from "../../lib/dns/worker/protocol.ts";
import { KnownReplies, type KnownReply } from "../../lib/dns/worker/replies.ts";
import { HAND_OVER, Responder } from "../../lib/dns/worker/responder.ts";
import { Hostname } from "../../lib/net/host.ts";
import type { Rate } from "../../lib/rate.ts";
import { decode, edeOf, encodeQuery, encodeReply, type OracleMessage } from "./oracle.ts";
import { allowHost, TestPolicy, type TestRule } from "./support.ts";

const AGENT: Agent = { name: "coder", address: "10.200.0.2", network: "outcall-test" };
const ADDRESS = 0x0ac80002;

const QUESTION: Question = { name: wireName("a.test"), type: RecordType.A };

function wireName(name: string): string {
  const hostname = Hostname.parse(name);
  assert(hostname !== null);
  return wireNameOf(hostname);
}

/** A responder that knows its agent, and that a.test has an alias and an address. */
class World {
  readonly responder: Responder;
  readonly reader = new JournalReader();
  #nowMs = 0;

  constructor(
    rules: readonly TestRule[],
    ttls: readonly [number, number] = [60, 100],
    rate: Rate = { count: 1e9, windowSecs: 1 },
    shared = new Shared(),
  ) {
    this.responder = new Responder(shared, rate);
    this.responder.tick(0);
    this.usePolicy(rules);
    this.lease(AGENT);
    const [aliasTtl, addressTtl] = ttls;
    const reply = encodeReply({
      id: 1,
      name: "a.test",
      type: "A",
      answers: [
        { name: "a.test", type: "CNAME", ttl: aliasTtl, data: "b.test" },
        { name: "b.test", type: "A", ttl: addressTtl, data: "93.184.216.34" },
      ],
    });
    const parsed = parseResponse(reply, 1, QUESTION);
    assert(parsed.kind === "response");
    const answer = rebuildAnswer(QUESTION, parsed.response, false);
    assert(answer !== null);
    this.responder.update({
      kind: "answer",
      question: QUESTION,
      dnssecOk: false,
      answer,
      ageSecs: 0,
    });
  }

  usePolicy(rules: readonly TestRule[]): void {
    const { data } = new TestPolicy(rules);
    this.responder.update({ kind: "policy", ticket: 1, epoch: 0, policy: data });
  }

  lease(agent: Agent): void {
    this.responder.update({ kind: "agent", agent });
  }

  /** Lets time pass; the agent is still there. */
  pass(ms: number): void {
    this.#nowMs += ms;
    this.responder.tick(this.#nowMs);
    this.lease(AGENT);
  }

  /** The reply, or null when the packet is handed over. */
  ask(packet: Uint8Array): OracleMessage | null {
    const response = this.responder.respond(ADDRESS, packet, 0, packet.length);
    if (response === HAND_OVER) return null;
    assert(response !== null);
    return decode(response);
  }
}

const query = (name: string): Uint8Array => encodeQuery(name, "A", { opt: {} });

const ttls = (reply: OracleMessage | null): readonly unknown[] | undefined =>
  reply?.answers.map(({ ttl }) => ttl);

Deno.test("TTLs of a reply that is sent again count down, and it ends with the first of them", () => {
  const world = new World([allowHost("a.test")]);
  assert.deepEqual(ttls(world.ask(query("a.test"))), [60, 100]);
  world.pass(999);
  assert.deepEqual(ttls(world.ask(query("a.test"))), [60, 100]);
  world.pass(1);
  assert.deepEqual(ttls(world.ask(query("a.test"))), [59, 99]);
  world.pass(58_999);
  assert.deepEqual(ttls(world.ask(query("a.test"))), [1, 41]);
  world.pass(1);
  assert.equal(world.ask(query("a.test")), null);
});

Deno.test("each report has a decision of its own for a reply that is sent again, and the reply shows it (D28)", () => {
  const world = new World([]);
  const idIn = (reply: OracleMessage | null): string | undefined => {
    assert(reply !== null);
    return /decision (\w{17})$/.exec(edeOf(reply)?.text ?? "")?.[1];
  };
  const decided = (): (readonly [string, number | undefined])[] =>
    world.reader.read(world.responder.report()).decisions.map(({ id, count }) => [id, count]);
  const first = idIn(world.ask(query("x.test")));
  assert(first !== undefined);
  assert.equal(idIn(world.ask(query("x.test"))), first);
  assert.deepEqual(decided(), [[first, 2]]);
  const second = idIn(world.ask(query("x.test")));
  assert(second !== undefined && second !== first);
  assert.deepEqual(decided(), [[second, undefined]]);
});

Deno.test("a reply is for one agent: not for the next one at its address (S013)", () => {
  const world = new World([
    { id: "coder", condition: 'agent.name == "coder" && dns.query == "a.test"' },
  ]);
  assert.equal(world.ask(query("a.test"))?.rcode, "NOERROR");
  world.lease({ ...AGENT, name: "other" });
  assert.equal(world.ask(query("a.test"))?.rcode, "NXDOMAIN");
  world.lease(AGENT);
  assert.equal(world.ask(query("a.test"))?.rcode, "NOERROR");
});

Deno.test("without a lease nothing is sent again, nor after a reload or a flush", () => {
  const world = new World([allowHost("a.test")]);
  assert.equal(world.ask(query("a.test"))?.rcode, "NOERROR");
  world.responder.tick(1000);
  assert.equal(world.ask(query("a.test")), null);
  world.lease(AGENT);
  assert.equal(world.ask(query("a.test"))?.rcode, "NOERROR");
  world.usePolicy([]);
  assert.equal(world.ask(query("a.test"))?.rcode, "NXDOMAIN");
  world.usePolicy([allowHost("a.test")]);
  world.responder.update({ kind: "forget", epoch: 0, what: "answers" });
  assert.equal(world.ask(query("a.test")), null);
});

Deno.test("from the moment of a change on all is handed over, until the message about it is read (ADV-DNS-15, D5)", () => {
  const shared = new Shared();
  const world = new World(
    [allowHost("a.test")],
    [60, 100],
    { count: 1e9, windowSecs: 1 },
    shared,
  );
  const answers = (): readonly (string | undefined)[] =>
    ["a.test", "x.test"].map((name) => world.ask(query(name))?.rcode);
  assert.deepEqual(answers(), ["NOERROR", "NXDOMAIN"]);
  const epoch = shared.nextEpoch();
  assert.deepEqual(answers(), [undefined, undefined]);
  world.lease(AGENT);
  assert.deepEqual(answers(), [undefined, undefined], "a lease is no such message");
  world.responder.update({ kind: "policy", ticket: 1, epoch, policy: new TestPolicy([]).data });
  assert.deepEqual(answers(), ["NXDOMAIN", "NXDOMAIN"]);
});

Deno.test("a reply is kept for each source address, and found from no other", () => {
  const replies = new KnownReplies();
  const packet = query("a.test");
  const find = (address: number): KnownReply | undefined =>
    replies.find(address, packet, 0, packet.length, 0);
  const addresses = [ADDRESS, ADDRESS + 1];
  // By a bit that the hash leaves out.
  const alike = ADDRESS + 0x8000_0000;
  for (const address of addresses) {
    replies.add(packet, {
      ...{ address, agent: AGENT, reply: null, idAt: null, ttlsAt: [], cacheKey: null },
      ...{ expiresAtMs: Infinity, agesAtMs: Infinity, outline: 0, decision: 0, report: 0 },
    });
  }
  assert.deepEqual(addresses.map((address) => find(address)?.address), addresses);
  assert.equal(find(alike), undefined);
});

Deno.test("the case of the question is the client's own, in a reply of its own", () => {
  const world = new World([allowHost("a.test")]);
  for (const name of ["a.test", "A.test", "a.TEST", "A.test"]) {
    assert.deepEqual(world.ask(query(name))?.questions.map((question) => question.name), [name]);
  }
});

Deno.test("who floods has nothing saved up when it is heard again", () => {
  const world = new World([], [60, 100], { count: 100, windowSecs: 1 });
  const { responder } = world;
  const packet = query("x.test");
  const answered = (packets: number): number =>
    Array.from({ length: packets }, () => responder.respond(ADDRESS, packet, 0, packet.length))
      .filter((response) => response instanceof Uint8Array).length;
  world.pass(1);
  assert.equal(answered(300), 101, "the burst, and one refusal");
  assert.deepEqual(responder.floods.muted, [ADDRESS]);
  responder.lookAtFloods();
  world.pass(75);
  responder.lookAtFloods();
  assert.deepEqual(responder.floods.muted, []);
  assert.equal(answered(10), 0, "refused in this report already");
  world.pass(20);
  assert.equal(answered(10), 2);
});

Deno.test("whoever comes to the address of somebody who floods is heard at once", () => {
  const world = new World([], [60, 100], { count: 100, windowSecs: 1 });
  const { responder } = world;
  const packet = query("x.test");
  world.pass(1);
  for (let i = 0; i < 300; i++) responder.respond(ADDRESS, packet, 0, packet.length);
  assert.deepEqual(responder.floods.muted, [ADDRESS]);
  responder.update({ kind: "forget", epoch: 0, what: "agents" });
  assert.deepEqual(responder.floods.muted, []);
});

Deno.test("packets that are handed over take no room in the report, however long there is none", () => {
  const shared = new Shared();
  const world = new World(
    [allowHost("new.test")],
    [60, 100],
    { count: 1e9, windowSecs: 1 },
    shared,
  );
  for (let i = 0; i < 10_000; i++) {
    assert.equal(world.ask(query("new.test")), null);
    shared.addTakenPackets(1);
  }
});

Deno.test("what is too much to be handed over is refused once in a report, and counted", () => {
  const world = new World([{ id: "all", condition: 'dns.query.endsWith(".test")' }]);
  const { responder } = world;
  const packet = query("new.test");
  const responses = Array.from(
    { length: 300 },
    () => responder.respond(ADDRESS, packet, 0, packet.length),
  );
  assert.equal(responses.filter((response) => response === HAND_OVER).length, 256);
  const [refusal, ...others] = responses.filter((response) => response instanceof Uint8Array);
  assert(refusal !== undefined && others.length === 0);
  assert.equal(decode(refusal).rcode, "SERVFAIL");
  const { decisions, dropped } = world.reader.read(responder.report());
  assert.deepEqual(
    decisions.map(({ agent, reason, count }) => [agent?.name, reason, count]),
    [["coder", "limit", 44]],
  );
  assert.equal(dropped, 0);
});

Deno.test("nobody is blamed for the flood of whoever has their address by now", () => {
  const world = new World([], [60, 100], { count: 100, windowSecs: 1 });
  const { responder, reader } = world;
  const packet = query("x.test");
  const flood = (): void => {
    for (let i = 0; i < 300; i++) responder.respond(ADDRESS, packet, 0, packet.length);
  };
  const blamed = (): (readonly [string | undefined, number | undefined])[] =>
    reader.read(responder.report()).decisions.filter(({ reason }) => reason === "query_rate")
      .map(({ agent, count }) => [agent?.name, count]);
  world.pass(1);
  flood();
  responder.update({ kind: "forget", epoch: 0, what: "agents" });
  flood();
  assert.deepEqual(responder.floods.muted, [ADDRESS], "muted all the same");
  responder.dropped(1000, new Set([ADDRESS]));
  assert.deepEqual(blamed(), [["coder", 200]]);
  world.lease({ ...AGENT, name: "other" });
  flood();
  responder.dropped(1000, new Set([ADDRESS]));
  assert.deepEqual(blamed().map(([name]) => name), ["other"]);
});

Deno.test("an agent that does nothing but flood is asked for again before its lease ends", () => {
  const world = new World([], [60, 100], { count: 1, windowSecs: 3600 });
  const { responder } = world;
  const packet = query("x.test");
  for (const tickMs of [0, 400, 600, 700]) {
    responder.tick(tickMs);
    responder.respond(ADDRESS, packet, 0, packet.length);
  }
  assert.deepEqual(responder.takeRenewals(), [AGENT.address]);
  responder.tick(5000);
  world.lease(AGENT);
  responder.tick(8000);
  responder.respond(ADDRESS, packet, 0, packet.length);
  assert.deepEqual(responder.takeRenewals(), [AGENT.address], "and when it has ended");
});

Deno.test("no reply is kept to a packet longer than honest ones: 8192 of them would be 40 MB", () => {
  const world = new World([]);
  const padded = encodeQuery("x.test", "A", {
    opt: { options: [{ code: 12, data: new Uint8Array(500) }] },
  });
  for (const packet of [query("x.test"), query("x.test"), padded, padded]) world.ask(packet);
  const { decisions } = world.reader.read(world.responder.report());
  assert.deepEqual(decisions.map(({ count }) => count), [2, undefined, undefined]);
});

Deno.test("agents that ask ever new questions leave room in the report for the others", () => {
  const world = new World([]);
  const ask = (address: number, name: string): boolean => {
    const packet = query(name);
    return world.responder.respond(address, packet, 0, packet.length) instanceof Uint8Array;
  };
  // As many as may ask at once under the usual limit of their rate.
  for (let agent = 1; agent <= 8; agent++) {
    world.lease({ ...AGENT, name: `noisy-${agent}`, address: `10.200.0.${2 + agent}` });
    for (let i = 0; i < 1000; i++) ask(ADDRESS + agent, `n${agent}-${i}.test`);
  }
  assert(ask(ADDRESS, "x.test"));
  const { decisions, dropped } = world.reader.read(world.responder.report());
  assert.equal(decisions.length + dropped, 8001);
  assert.equal(decisions.at(-1)?.agent?.name, "coder");
  assert(ask(ADDRESS + 1, "n1-999.test"), "each report begins anew");
});

Deno.test("a flood of ever new questions is bounded in replies and outlines", () => {
  const world = new World([]);
  for (let i = 0; i < 9000; i++) {
    // Each one in two reports: whatever is forgotten meanwhile, they can be read.
    for (let report = 0; report < 2; report++) {
      assert.equal(world.ask(query(`n${i}.test`))?.rcode, "NXDOMAIN");
      assert.equal(world.reader.read(world.responder.report()).decisions.length, 1);
    }
    assert(world.responder.journal.outlines <= 8192);
    assert(world.reader.outlines <= 8193);
  }
});
