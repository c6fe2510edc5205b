/** The filter from packet to packet: real rules, a real upstream on loopback as the witness. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { AgentDirectory } from "../../lib/agents.ts";
import { type Decision, DecisionLog } from "../../lib/decision.ts";
import { DnsCache } from "../../lib/dns/cache.ts";
import type { AddressOpener, OpenedAddresses } from "../../lib/dns/opener.ts";
import { DnsFilter, type QuerySource } from "../../lib/dns/filter.ts";
import { LookupLimits } from "../../lib/dns/limits.ts";
import { Resolver } from "../../lib/dns/resolver.ts";
import { UpstreamClient } from "../../lib/dns/upstream.ts";
import type { Judge } from "../../lib/policy.ts";
import { eventually } from "../eventually.ts";
import {
  decode,
  edeOf,
  encodeQuery,
  type OracleMessage,
  type OracleOpt,
  type OracleRecord,
} from "./oracle.ts";
import {
  allowHost,
  type Behaviour,
  NO_OPENER,
  replying,
  TestDirectory,
  TestPolicy,
  type TestRule,
  TestUpstream,
} from "./support.ts";

const AGENT: QuerySource = { address: "10.200.0.2", transport: "udp" };
const STRANGER: QuerySource = { address: "192.168.7.7", transport: "udp" };

interface Overrides {
  readonly agents?: AgentDirectory;
  readonly judge?: Judge;
  readonly maxWaiting?: number;
  readonly maxNames?: number;
  readonly maxQuestions?: number;
  readonly opener?: AddressOpener;
}

/** A filter with everything it needs, and one upstream that sees what leaves. */
class World implements AsyncDisposable {
  readonly policy: TestPolicy;
  readonly decisions = new DecisionLog();
  readonly clock = { ms: 0 };
  readonly cache = new DnsCache(() => this.clock.ms);
  readonly upstream: TestUpstream;
  readonly filter: DnsFilter;

  constructor(rules: readonly TestRule[], behaviour: Behaviour, overrides: Overrides = {}) {
    this.policy = new TestPolicy(rules);
    this.upstream = new TestUpstream(behaviour);
    const agents = new TestDirectory();
    agents.add(AGENT.address, "coder");
    this.filter = new DnsFilter({
      generation: this.policy.generation,
      agents: overrides.agents ?? agents,
      judge: overrides.judge ?? this.policy.judge,
      decisions: this.decisions,
      resolver: new Resolver(this.cache, new UpstreamClient([this.upstream.upstream], 300)),
      limits: new LookupLimits({ ...overrides, now: () => this.clock.ms }),
      opener: overrides.opener ?? NO_OPENER,
    });
  }

  async packet(packet: Uint8Array, source: QuerySource = AGENT): Promise<OracleMessage | null> {
    const reply = await this.filter.handle(packet, source);
    return reply === null ? null : decode(reply);
  }

  async ask(
    name: string,
    type = "A",
    options: { readonly opt?: OracleOpt; readonly source?: QuerySource } = {},
  ): Promise<OracleMessage> {
    const reply = await this.packet(
      encodeQuery(name, type, { opt: options.opt ?? {} }),
      options.source,
    );
    assert(reply !== null);
    return reply;
  }

  /** The one decision made since the last call. */
  decision(): Decision {
    const made = this.decisions.recent().slice(this.#seen);
    assert.equal(made.length, 1, JSON.stringify(made));
    this.#seen++;
    const [decision] = made;
    assert(decision !== undefined);
    return decision;
  }
  #seen = 0;

  [Symbol.asyncDispose](): Promise<void> {
    return this.upstream[Symbol.asyncDispose]();
  }
}

const a = (name: string, data: string, ttl = 60): OracleRecord => ({ name, type: "A", ttl, data });
const cname = (name: string, data: string): OracleRecord => ({
  name,
  type: "CNAME",
  ttl: 60,
  data,
});
const soa = (name: string): OracleRecord => {
  return { name, type: "SOA", ttl: 60, data: { mname: "ns.test", rname: "r.test", minimum: 60 } };
};

/** Answers whatever is asked with these records. */
const answers = (...records: readonly OracleRecord[]): Behaviour => {
  return replying(() => ({ answers: records }));
};

const addresses = (reply: OracleMessage): readonly unknown[] => {
  return reply.answers.filter(({ type }) => type === "A").map(({ data }) => data);
};

function assertBlocked(reply: OracleMessage, decision: Decision): void {
  assert.equal(reply.rcode, "NXDOMAIN");
  assert(reply.aa && reply.ra && reply.qr);
  assert.deepEqual(reply.answers, []);
  assert.equal(reply.authorities[0]?.type, "SOA");
  assert.equal(reply.authorities[0]?.ttl, 60);
  assert.equal(edeOf(reply)?.code, 15);
  assert(edeOf(reply)?.text.includes(decision.id));
  assert.equal(decision.verdict, "block");
}

Deno.test("an allowed name is resolved and decided by its rule (S007-AS-001, D7)", async () => {
  await using world = new World(
    [allowHost("api.github.com")],
    answers(a("api.github.com", "140.82.121.6")),
  );
  const reply = await world.ask("API.GitHub.com");
  assert.equal(reply.rcode, "NOERROR");
  assert(!reply.aa && reply.ra);
  assert.equal(reply.questions[0]?.name, "API.GitHub.com");
  assert.deepEqual(addresses(reply), ["140.82.121.6"]);
  const { id: _id, time: _time, upstreamMs, ...decision } = world.decision();
  assert.equal(typeof upstreamMs, "number");
  assert.deepEqual(decision, {
    schema: 1,
    generation: 1,
    layer: "dns",
    agent: { name: "coder", address: AGENT.address, network: "outcall-test" },
    source: AGENT.address,
    attempt: { host: "api.github.com", recordType: "A" },
    verdict: "allow",
    reason: "rule",
    rule: { id: "allow-api.github.com", file: "/rules.d/test.yaml", line: 1 },
  });
});

for (
  const type of ["A", "AAAA", "TXT", "MX", "SRV", "NS", "PTR", "NULL", "UNKNOWN_65", "UNKNOWN_64"]
) {
  Deno.test(`a name that no rule allows is NXDOMAIN for ${type}, and never asked (ADV-DNS-01, S007-AS-003)`, async () => {
    await using world = new World([allowHost("other.test")], answers());
    const reply = await world.ask("example.com", type);
    const decision = world.decision();
    assertBlocked(reply, decision);
    assert.equal(decision.reason, "default");
    assert.deepEqual(world.upstream.names, []);
  });
}

Deno.test("ANY for a name that no rule allows is NXDOMAIN, too (ADV-DNS-01)", async () => {
  await using world = new World([], answers());
  const packet = encodeQuery("example.com", "A", { opt: {} });
  packet[packet.length - 11 - 3] = 255; // the question's type, before class and OPT
  assert.equal((await world.packet(packet))?.rcode, "NXDOMAIN");
});

Deno.test("a name that a rule blocks is NXDOMAIN, and the decision names the rule (S007-AS-002)", async () => {
  await using world = new World([
    { id: "no-evil", condition: 'dns.query.endsWith(".evil.com")', action: "block" },
    { id: "all", condition: 'dns.query != ""' },
  ], answers(a("malware.evil.com", "6.6.6.6")));
  const reply = await world.ask("malware.evil.com");
  const decision = world.decision();
  assertBlocked(reply, decision);
  assert.equal(decision.rule?.id, "no-evil");
  assert.deepEqual(world.upstream.names, []);
});

Deno.test("a client without EDNS gets the same refusal without OPT", async () => {
  await using world = new World([], answers());
  const reply = await world.packet(encodeQuery("example.com", "A"));
  assert.equal(reply?.rcode, "NXDOMAIN");
  assert.equal(reply.opt, null);
});

Deno.test("a source outside every managed network is REFUSED before anything else (ADV-DNS-02, D5)", async () => {
  await using world = new World([allowHost("a.test")], answers(a("a.test", "1.1.1.1")));
  const reply = await world.ask("a.test", "A", { source: STRANGER });
  const decision = world.decision();
  assert.equal(reply.rcode, "REFUSED");
  assert.deepEqual(reply.answers, []);
  assert.equal(edeOf(reply)?.code, 18);
  assert(edeOf(reply)?.text.includes(decision.id));
  assert.equal(decision.reason, "unknown_source");
  assert.equal(decision.generation, world.policy.generation());
  assert.equal(decision.agent, null);
  assert.equal(world.policy.judged, 0);
  assert.deepEqual(world.upstream.names, []);
  assert.deepEqual(world.filter.counters(), { total: 1, allowed: 0, blocked: 1 });
});

Deno.test("an agent that Docker does not know yet is judged without a name (D5)", async () => {
  const nameless: AgentDirectory = {
    identify: (address) => Promise.resolve({ name: "", address, network: "outcall-test" }),
  };
  await using world = new World(
    [
      { id: "named", condition: 'dns.query == "a.test" && agent.name == "coder"' },
      allowHost("b.test"),
    ],
    answers(a("b.test", "1.1.1.1")),
    { agents: nameless },
  );
  assert.equal((await world.ask("a.test")).rcode, "NXDOMAIN");
  assert.deepEqual(addresses(await world.ask("b.test")), ["1.1.1.1"]);
});

Deno.test(".local names are NXDOMAIN even if allowed, and never asked (ADV-DNS-03, S007-FR-033)", async () => {
  await using world = new World([{ id: "all", condition: 'dns.query != ""' }], answers());
  for (const name of ["printer.local", "local", "PRINTER.LOCAL"]) {
    assertBlocked(await world.ask(name), world.decision());
  }
  assert.deepEqual(world.upstream.names, []);
});

Deno.test("malformed queries are refused, decided, and never asked (ADV-DNS-12, S007-EC-004)", async () => {
  await using world = new World([{ id: "all", condition: "true" }], answers());
  const packet = encodeQuery("example.com", "A");
  assert.equal((await world.packet(Uint8Array.from([...packet, 1])))?.rcode, "FORMERR");
  assert.equal(world.decision().reason, "malformed");
  assert.equal(await world.packet(packet.subarray(0, 5)), null);
  assert.equal(world.decision().reason, "malformed");
  assert.equal(world.policy.judged, 0);
  assert.deepEqual(world.upstream.names, []);
});

Deno.test("a name that rules cannot name is NXDOMAIN without asking the rules", async () => {
  await using world = new World([{ id: "all", condition: "true" }], answers());
  const packet = encodeQuery("aXb.com", "A");
  packet[14] = 0x2e; // the label "a.b"
  assert.equal((await world.packet(packet))?.rcode, "NXDOMAIN");
  assert.equal(world.decision().reason, "malformed");
  assert.equal(world.policy.judged, 0);
});

Deno.test("upstream NXDOMAIN and NODATA pass through with their SOA (ADV-DNS-00)", async () => {
  let rcode = 3;
  await using world = new World(
    [{ id: "all", condition: 'dns.query != ""' }],
    replying(() => ({ rcode, authorities: [soa("test")] })),
  );
  const missing = await world.ask("missing.test");
  assert.deepEqual([missing.rcode, missing.aa], ["NXDOMAIN", false]);
  assert.equal(missing.authorities[0]?.name, "test");
  assert.equal(world.decision().verdict, "allow");
  rcode = 0;
  const empty = await world.ask("empty.test");
  assert.equal(empty.rcode, "NOERROR");
  assert.deepEqual(empty.answers, []);
  assert.equal(empty.authorities[0]?.name, "test");
});

Deno.test("a repeated question is judged again and answered from the cache, older (S007-AS-008)", async () => {
  await using world = new World([allowHost("a.test")], answers(a("a.test", "1.1.1.1", 60)));
  assert.equal((await world.ask("a.test")).answers[0]?.ttl, 60);
  const { judged } = world.policy;
  world.clock.ms += 25_000;
  assert.equal((await world.ask("a.test")).answers[0]?.ttl, 35);
  assert.equal(world.policy.judged, judged + 1);
  assert.equal(world.upstream.names.length, 1);
});

Deno.test("a cached name that a reload blocks is not answered any more (ADV-DNS-15)", async () => {
  await using world = new World([allowHost("a.test")], answers(a("a.test", "1.1.1.1")));
  await world.ask("a.test");
  world.decision();
  world.policy.replace([allowHost("b.test")]);
  assertBlocked(await world.ask("a.test"), world.decision());
});

Deno.test("a name that a reload blocks while the upstream is asked is not answered", async () => {
  const gate = Promise.withResolvers<void>();
  await using world = new World([allowHost("a.test")], async (asked) => {
    await gate.promise;
    return await answers(a("a.test", "1.1.1.1"))(asked);
  });
  const asking = world.ask("a.test");
  await eventually(() => world.upstream.names.length > 0);
  world.policy.replace([]);
  gate.resolve();
  assertBlocked(await asking, world.decision());
});

Deno.test("blocked names leave nothing in the cache (ADV-DNS-14)", async () => {
  await using world = new World([], answers());
  for (let i = 0; i < 100; i++) await world.ask(`n${i}.test`);
  assert.equal(world.cache.stats().entries, 0);
});

Deno.test("restricted addresses are taken out, on a cache hit by the rule of the moment (ADV-DNS-04, S007-EC-016)", async () => {
  await using world = new World(
    [allowHost("a.test", true)],
    answers(a("a.test", "10.0.0.1"), a("a.test", "93.184.216.34")),
  );
  assert.deepEqual(addresses(await world.ask("a.test")), ["10.0.0.1", "93.184.216.34"]);
  world.policy.replace([allowHost("a.test")]);
  assert.deepEqual(addresses(await world.ask("a.test")), ["93.184.216.34"]);
  assert.equal(world.upstream.names.length, 1);
});

for (
  const address of [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
  ]
) {
  Deno.test(`a name with no address but ${address} is SERVFAIL and blocked (ADV-DNS-05, D23)`, async () => {
    await using world = new World([allowHost("a.test")], answers(a("a.test", address)));
    const reply = await world.ask("a.test");
    const decision = world.decision();
    assert.equal(reply.rcode, "SERVFAIL");
    assert.deepEqual(reply.answers, []);
    assert.deepEqual([decision.verdict, decision.reason], ["block", "restricted_address"]);
    assert(edeOf(reply)?.text.includes(decision.id));
  });
}

Deno.test("an alias for a private address is no way around (ADV-DNS-07)", async () => {
  await using world = new World(
    [allowHost("a.test")],
    answers(cname("a.test", "b.test"), a("b.test", "10.0.0.1")),
  );
  assert.equal((await world.ask("a.test")).rcode, "SERVFAIL");
});

Deno.test("an alias for a name that a rule blocks is blocked by that rule (ADV-DNS-07)", async () => {
  await using world = new World(
    [
      { id: "no-evil", condition: 'dns.query == "evil.test"', action: "block" },
      allowHost("a.test"),
    ],
    answers(cname("a.test", "cdn.test"), cname("cdn.test", "evil.test"), a("evil.test", "6.6.6.6")),
  );
  const reply = await world.ask("a.test");
  const decision = world.decision();
  assertBlocked(reply, decision);
  assert.equal(decision.rule?.id, "no-evil");
});

Deno.test("an alias for a name that no rule mentions is followed", async () => {
  await using world = new World(
    [allowHost("a.test")],
    answers(cname("a.test", "cdn.test"), a("cdn.test", "93.184.216.34"), a("x.test", "6.6.6.6")),
  );
  const reply = await world.ask("a.test");
  assert.deepEqual(reply.answers.map(({ name, data }) => [name, data]), [
    ["a.test", "cdn.test"],
    ["cdn.test", "93.184.216.34"],
  ]);
});

for (const type of ["AAAA", "TXT", "MX", "SRV", "NULL"]) {
  Deno.test(`${type} of an allowed name is NODATA without asking for it (D27)`, async () => {
    await using world = new World(
      [allowHost("a.test")],
      replying(({ message }) =>
        message.questions[0]?.type === "A" ? { answers: [a("a.test", "93.184.216.34")] } : {}
      ),
    );
    const reply = await world.ask("a.test", type);
    assert.equal(reply.rcode, "NOERROR");
    assert.deepEqual(reply.answers, []);
    assert.equal(reply.authorities[0]?.type, "SOA");
    assert.equal(world.decision().verdict, "allow");
    assert.deepEqual(world.upstream.asked.map(({ message }) => message.questions[0]?.type), ["A"]);
  });
}

const mx: OracleRecord = {
  name: "a.test",
  type: "MX",
  ttl: 60,
  data: { preference: 10, exchange: "mail.a.test" },
};
const typed = (condition: string): TestRule => ({ id: "typed", condition });

Deno.test("MX is asked for and answered when a rule names record types (S007-AS-015)", async () => {
  await using world = new World(
    [typed('dns.query == "a.test" && dns.record_type == "MX"')],
    answers(mx),
  );
  const reply = await world.ask("a.test", "MX");
  assert.deepEqual(reply.answers.map(({ type }) => type), ["MX"]);
  assert.equal(world.decision().verdict, "allow");
  const asked = world.upstream.asked.map(({ message }) => message.questions[0]?.type);
  assert.deepEqual(asked, ["MX"]);
  assert.equal((await world.ask("a.test", "TXT")).rcode, "NXDOMAIN");
  assert.equal(world.decision().verdict, "block");
});

Deno.test("PTR is judged as any name and type, the gateway's own address too (S007-EC-006, S007-EC-014)", async () => {
  const name = "1.0.200.10.in-addr.arpa";
  const behaviour = answers({ name, type: "PTR", ttl: 60, data: "host.test" });
  await using allowed = new World(
    [typed(`dns.query == "${name}" && dns.record_type == "PTR"`)],
    behaviour,
  );
  const reply = await allowed.ask(name, "PTR");
  assert.deepEqual(reply.answers.map(({ data }) => data), ["host.test"]);
  await using blocked = new World([allowHost("host.test")], behaviour);
  assert.equal((await blocked.ask(name, "PTR")).rcode, "NXDOMAIN");
  assert.deepEqual(blocked.upstream.names, []);
});

Deno.test("AAAA stays empty even when a rule names it: managed networks are IPv4 (D27, S007-EC-017)", async () => {
  await using world = new World(
    [typed('dns.query == "a.test" && dns.record_type in ["A", "AAAA"]')],
    answers({ name: "a.test", type: "AAAA", ttl: 60, data: "2606:4700::1111" }),
  );
  const reply = await world.ask("a.test", "AAAA");
  assert.equal(reply.rcode, "NOERROR");
  assert.deepEqual(reply.answers, []);
});

Deno.test("a rule about types that a reload takes away takes the records along", async () => {
  const gate = Promise.withResolvers<void>();
  await using world = new World(
    [typed('dns.query == "a.test" && dns.record_type == "MX"')],
    async (asked) => {
      await gate.promise;
      return await answers(mx)(asked);
    },
  );
  const reply = world.ask("a.test", "MX");
  await eventually(() => world.upstream.asked.length === 1);
  world.policy.replace([allowHost("a.test")]);
  gate.resolve();
  assert.deepEqual((await reply).answers, []);
});

const BELOW: TestRule = { id: "below", condition: 'dns.query.endsWith(".a.test")' };

Deno.test("new names below a suffix are limited for each agent and minute (ADV-DNS-17)", async () => {
  const agents = new TestDirectory();
  agents.add("10.200.0.2", "tunnel");
  agents.add("10.200.0.3", "other");
  await using world = new World([BELOW, allowHost("named.a.test")], replying(() => ({})), {
    agents,
    maxNames: 2,
  });
  for (const name of ["one", "two", "one"]) {
    assert.equal((await world.ask(`${name}.a.test`)).rcode, "NOERROR");
    assert.equal(world.decision().verdict, "allow");
  }
  assert.equal((await world.ask("three.a.test")).rcode, "SERVFAIL");
  const refused = world.decision();
  assert.deepEqual([refused.verdict, refused.reason], ["block", "name_rate"]);
  assert.equal((await world.ask("named.a.test")).rcode, "NOERROR", "a name that a rule spells out");
  const source = { address: "10.200.0.3", transport: "udp" } as const;
  assert.equal((await world.ask("three.a.test", "A", { source })).rcode, "NOERROR");
  world.clock.ms += 60_000;
  assert.equal((await world.ask("three.a.test")).rcode, "NOERROR", "a minute later");
  assert(!world.upstream.names.slice(0, 2).includes("three.a.test"));
});

Deno.test("questions below a suffix that go upstream are limited as well: the order of names that no cache keeps is data, too (ADV-DNS-17)", async () => {
  const agents = new TestDirectory();
  agents.add("10.200.0.2", "tunnel");
  agents.add("10.200.0.3", "other");
  const answers = replying(({ message }) => {
    const name = message.questions[0]?.name ?? "";
    return { answers: [a(name, "93.184.216.34", name === "kept.a.test" ? 600 : 0)] };
  });
  await using world = new World([BELOW, allowHost("named.a.test")], answers, {
    agents,
    maxQuestions: 4,
  });
  const rcodes = async (...names: string[]): Promise<string[]> => {
    const all: string[] = [];
    for (const name of names) all.push((await world.ask(`${name}.a.test`)).rcode);
    return all;
  };
  const answered = await rcodes("kept", "zero", "one", "zero", "kept", "kept");
  assert.deepEqual(new Set(answered), new Set(["NOERROR"]), "the cache answers as often as asked");
  const asked = world.upstream.names.length;
  assert.equal(asked, 4);
  assert.deepEqual(await rcodes("one", "zero", "kept"), ["SERVFAIL", "SERVFAIL", "NOERROR"]);
  assert.equal(world.upstream.names.length, asked);
  assert.equal(world.decisions.recent().at(-2)?.reason, "name_rate");
  assert.deepEqual(
    await rcodes(...new Array<string>(9).fill("named")),
    new Array(9).fill("NOERROR"),
    "a name that a rule spells out",
  );
  const source = { address: "10.200.0.3", transport: "udp" } as const;
  assert.equal((await world.ask("one.a.test", "A", { source })).rcode, "NOERROR");
  world.clock.ms += 60_000;
  assert.deepEqual(await rcodes("one"), ["NOERROR"], "a minute later");
});

for (
  const [what, name] of [
    ["a label of 53 characters", `${"x".repeat(53)}.a.test`],
    ["35 labels", `${"x.".repeat(33)}a.test`],
  ] as const
) {
  Deno.test(`${what} below a suffix is no name but data, and never asked (ADV-DNS-17)`, async () => {
    await using world = new World([BELOW, allowHost("named.a.test")], replying(() => ({})));
    const reply = await world.ask(name);
    const decision = world.decision();
    assertBlocked(reply, decision);
    assert.equal(decision.reason, "name_shape");
    assert.deepEqual(world.upstream.names, []);
  });
}

Deno.test("a long label passes where a rule spells the name out", async () => {
  const name = `${"x".repeat(63)}.a.test`;
  await using world = new World([allowHost(name)], replying(() => ({})));
  assert.equal((await world.ask(name)).rcode, "NOERROR");
});

Deno.test("AAAA and A of a name that does not exist agree (dual-stack clients)", async () => {
  await using world = new World(
    [allowHost("a.test")],
    replying(() => ({ rcode: 3, authorities: [soa("test")] })),
  );
  const [v4, v6] = await Promise.all([world.ask("a.test"), world.ask("a.test", "AAAA")]);
  assert.deepEqual([v4.rcode, v6.rcode], ["NXDOMAIN", "NXDOMAIN"]);
  assert.equal(world.upstream.asked.length, 1);
});

Deno.test("HTTPS records lose private hints and ech (ADV-DNS-08, D24)", async () => {
  const data = [0, 1, 0, 0, 1, 0, 3, 2, 104, 50]; // priority 1, target ".", alpn h2
  const hints = [0, 4, 0, 4, 10, 0, 0, 1, 0, 5, 0, 2, 9, 9];
  await using world = new World(
    [allowHost("a.test")],
    answers({
      name: "a.test",
      type: "UNKNOWN_65",
      ttl: 60,
      data: Buffer.from([...data, ...hints]),
    }),
  );
  const reply = await world.ask("a.test", "UNKNOWN_65");
  assert.deepEqual(reply.answers.map((record) => record.data), [Buffer.from(data)]);
});

Deno.test("an unreachable upstream is SERVFAIL with its reason (S007-EC-002)", async () => {
  await using world = new World([allowHost("a.test")], () => []);
  const reply = await world.ask("a.test");
  const decision = world.decision();
  assert.equal(reply.rcode, "SERVFAIL");
  assert.equal(edeOf(reply)?.code, 22);
  assert.deepEqual([decision.verdict, decision.reason], ["block", "upstream_failed"]);
});

Deno.test("client options do not reach the upstream, and none come back (S007-EC-011)", async () => {
  await using world = new World([allowHost("a.test")], answers(a("a.test", "1.1.1.1")));
  const reply = await world.ask("a.test", "A", {
    opt: { options: [{ code: 8, data: Uint8Array.of(0, 1, 24, 0, 1, 2, 3) }] },
  });
  assert.deepEqual(world.upstream.asked[0]?.message.opt?.options, []);
  assert.deepEqual(reply.opt?.options, []);
});

Deno.test("a reply that does not fit UDP is truncated and complete by TCP (S007-AS-010)", async () => {
  const many = Array.from({ length: 60 }, (_, i) => a("a.test", `93.184.216.${i}`));
  await using world = new World([allowHost("a.test")], answers(...many));
  const packet = encodeQuery("a.test", "A");
  const short = await world.filter.handle(packet, AGENT);
  assert(short !== null && short.length <= 512);
  assert(decode(short).tc);
  const full = await world.filter.handle(packet, { ...AGENT, transport: "tcp" });
  assert(full !== null);
  assert.equal(addresses(decode(full)).length, 60);
});

Deno.test("no UDP reply is larger than 1232 bytes, whatever the client announces (ADV-DNS-18)", async () => {
  const many = Array.from({ length: 200 }, (_, i) => a("a.test", `93.184.216.${i}`));
  await using world = new World([allowHost("a.test")], answers(...many));
  const packet = encodeQuery("a.test", "A", { opt: { udpPayloadSize: 65_535 } });
  const reply = await world.filter.handle(packet, AGENT);
  assert(reply !== null && reply.length <= 1232);
});

Deno.test("an agent that waits for too much is refused, and others are not", async () => {
  const agents = new TestDirectory();
  agents.add("10.200.0.2", "greedy");
  agents.add("10.200.0.3", "modest");
  const gate = Promise.withResolvers<void>();
  await using world = new World(
    [{ id: "all", condition: 'dns.query != ""' }],
    async (asked) => {
      await gate.promise;
      return await replying(() => ({}))(asked);
    },
    { agents, maxWaiting: 2 },
  );
  const waiting = [world.ask("a.test"), world.ask("b.test")];
  assert.equal((await world.ask("c.test")).rcode, "SERVFAIL");
  assert.equal(world.decision().reason, "limit");
  const other = world.ask("d.test", "A", { source: { address: "10.200.0.3", transport: "udp" } });
  gate.resolve();
  assert.equal((await other).rcode, "NOERROR");
  await Promise.all(waiting);
  assert.equal((await world.ask("c.test")).rcode, "NOERROR");
});

Deno.test("D12: one agent cannot have the kernel open more and more at once", async () => {
  const agents = new TestDirectory();
  agents.add(AGENT.address, "coder");
  agents.add("10.200.0.3", "other");
  const gate = Promise.withResolvers<OpenedAddresses>();
  await using world = new World(
    [{ id: "direct", condition: 'http.host == "a.test"', mode: "direct_ip" }],
    replying(({ message }) => ({
      answers: [{
        name: message.questions[0]?.name ?? "",
        type: "A",
        ttl: 60,
        data: "93.184.216.34",
      }],
    })),
    { agents, maxWaiting: 2, opener: { open: () => gate.promise } },
  );
  const waiting = [world.ask("a.test"), world.ask("a.test")];
  await eventually(() => world.cache.stats().entries === 1);
  assert.equal((await world.ask("a.test")).rcode, "SERVFAIL");
  assert.equal(world.decision().reason, "limit");
  const other = world.ask("a.test", "A", { source: { address: "10.200.0.3", transport: "udp" } });
  gate.resolve({ addresses: new Set(["93.184.216.34"]), lifeSecs: 60, refusal: null });
  assert.equal((await other).rcode, "NOERROR");
  await Promise.all(waiting);
  assert.equal((await world.ask("a.test")).rcode, "NOERROR");
});

Deno.test("packets of one source that wait to be identified are bounded, too", async () => {
  const gate = Promise.withResolvers<null>();
  await using world = new World([], answers(a("a.test", "1.1.1.1")), {
    agents: { identify: () => gate.promise },
    maxWaiting: 2,
  });
  const waiting = [world.ask("a.test"), world.ask("a.test")];
  assert.equal((await world.ask("a.test")).rcode, "SERVFAIL");
  assert.equal(world.decision().reason, "limit");
  gate.resolve(null);
  for (const reply of await Promise.all(waiting)) assert.equal(reply.rcode, "REFUSED");
});

const broken: readonly (readonly [string, Overrides])[] = [
  ["the rules throw", {
    judge: () => {
      throw new Error("defect");
    },
  }],
  ["identification throws", {
    agents: {
      identify: () => {
        throw new Error("defect");
      },
    },
  }],
  ["identification rejects", { agents: { identify: () => Promise.reject(new Error("defect")) } }],
];
for (const [what, overrides] of broken) {
  Deno.test(`when ${what}, the answer is SERVFAIL and nothing is asked (S007-FR-032, S007-EC-005)`, async () => {
    await using world = new World([], answers(a("a.test", "1.1.1.1")), overrides);
    assert.equal((await world.ask("a.test")).rcode, "SERVFAIL");
    assert.deepEqual(world.upstream.names, []);
    assert.deepEqual(world.filter.counters(), { total: 1, allowed: 0, blocked: 1 });
    assert.equal(world.decision().reason, "internal_error");
  });
}

Deno.test("the packet's buffer may be reused as soon as handle() returned", async () => {
  await using world = new World([allowHost("a.test")], answers(a("a.test", "1.1.1.1")));
  const packet = encodeQuery("a.test", "A");
  const handled = world.filter.handle(packet, AGENT);
  packet.fill(0xff);
  const reply = await handled;
  assert(reply !== null);
  assert.deepEqual(addresses(decode(reply)), ["1.1.1.1"]);
});
