/** `egress.mode: direct_ip` from the query to the answer: the real filter, rules and bookkeeping. */
import { deepEqual, equal, ok } from "node:assert/strict";
import type { Agent } from "../../lib/agents.ts";
import type { DirectAsk } from "../../lib/bridge/opener.ts";
import { type DirectGrant, DirectGrants, type Opened } from "../../lib/bridge/direct.ts";
import { DecisionLog } from "../../lib/decision.ts";
import { DirectAccess } from "../../lib/direct.ts";
import { DnsCache } from "../../lib/dns/cache.ts";
import { DnsFilter } from "../../lib/dns/filter.ts";
import { LookupLimits } from "../../lib/dns/limits.ts";
import { Resolver } from "../../lib/dns/resolver.ts";
import { UpstreamClient } from "../../lib/dns/upstream.ts";
import { OutcallError } from "../../lib/errors.ts";
import { Hostname } from "../../lib/net/host.ts";
import { Ip } from "../../lib/net/ip.ts";
import { decode, edeOf, encodeQuery, type OracleMessage } from "./oracle.ts";
import {
  type Behaviour,
  replying,
  TestDirectory,
  TestPolicy,
  type TestRule,
  TestUpstream,
} from "./support.ts";

/** By TCP, so that long answers fit. */
const SOURCE = { address: "10.200.0.2", transport: "tcp" } as const;
const HOST = "db.example.com";

/** The kernel's place: keeps books as the daemon does, and obeys or not. */
class Kernel {
  readonly grants = new DirectGrants();
  failure: OutcallError | null = null;
  /** Runs before a transaction. */
  before: () => void = () => {};

  openDirect(ask: DirectAsk): Promise<readonly Opened[]> {
    this.before();
    if (this.failure !== null) return Promise.reject(this.failure);
    const opened = ask.targets().flatMap((target) =>
      this.grants.open({ agent: ask.agent, ...target }, ask, Date.now()) ?? []
    );
    return Promise.resolve(opened);
  }

  reviewDirect(isKept: (grant: DirectGrant) => boolean): Promise<number> {
    const gone = this.grants.all().filter((grant) => !isKept(grant));
    this.grants.forget(gone);
    return Promise.resolve(gone.length);
  }

  allDirect(): readonly DirectGrant[] {
    return this.grants.all();
  }

  /** What is open, as people write it. */
  get open(): string[] {
    return this.grants.list(Date.now())
      .map(({ destination, port, protocol }) => `${destination}:${port}/${protocol}`).sort();
  }
}

class World implements AsyncDisposable {
  readonly kernel = new Kernel();
  readonly decisions = new DecisionLog();
  readonly agents = new TestDirectory();
  readonly policy: TestPolicy;
  readonly upstream: TestUpstream;
  readonly access: DirectAccess;
  readonly #filter: DnsFilter;

  constructor(rules: readonly TestRule[], behaviour: Behaviour) {
    this.policy = new TestPolicy(rules);
    this.upstream = new TestUpstream(behaviour);
    this.agents.add(SOURCE.address, "coder");
    const { agents, decisions, kernel: openings, policy: { judge, generation } } = this;
    this.access = new DirectAccess({ agents, decisions, openings, judge });
    this.#filter = new DnsFilter({
      agents,
      judge,
      generation,
      decisions,
      resolver: new Resolver(new DnsCache(), new UpstreamClient([this.upstream.upstream], 300)),
      limits: new LookupLimits(),
      opener: this.access,
    });
  }

  /** The reply; null: silence. */
  async handle(type: string, name: string): Promise<Uint8Array | null> {
    return await this.#filter.handle(encodeQuery(name, type, { opt: {} }), SOURCE);
  }

  async ask(type = "A", name = HOST): Promise<OracleMessage> {
    const reply = await this.handle(type, name);
    ok(reply !== null);
    return decode(reply);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.upstream[Symbol.asyncDispose]();
  }
}

/** Answers with these addresses. */
function addresses(ttl: number, ...data: readonly string[]): Behaviour {
  return replying(({ message: { questions: [question] } }) => ({
    answers: question?.type === "A"
      ? data.map((address) => ({ name: HOST, type: "A", ttl, data: address }))
      : [],
  }));
}

const PUBLIC = "93.184.216.34";
const OTHER = "93.184.217.34";
const DIRECT: TestRule = {
  id: "db",
  condition: `network.hostname == "${HOST}" && network.port == 5432`,
  mode: "direct_ip",
};

function dataOf(message: OracleMessage): unknown[] {
  return message.answers.map(({ data }) => data);
}

Deno.test("D12: what an answer tells is open by then, for no longer than the grant", async () => {
  await using world = new World([DIRECT], addresses(100, PUBLIC, OTHER));
  const reply = await world.ask();
  deepEqual(dataOf(reply), [PUBLIC, OTHER]);
  deepEqual(world.kernel.open, [`${PUBLIC}:5432/tcp`, `${OTHER}:5432/tcp`]);
  const [grant] = world.kernel.grants.list(Date.now());
  ok(grant !== undefined && grant.expiresAtMs - grant.grantedAtMs === 100_000);
  ok(reply.answers.every(({ ttl }) => ttl !== undefined && ttl <= 100 && ttl >= 98));
  deepEqual(
    world.decisions.recent().map((
      { layer, verdict, rule, attempt: { address, port } },
    ) => [layer, verdict, rule?.id, address, port]),
    [
      ["grant", "allow", "db", PUBLIC, 5432],
      ["grant", "allow", "db", OTHER, 5432],
      ["dns", "allow", "db", undefined, undefined],
    ],
  );
  await world.ask();
  equal(world.decisions.recent().length, 4, "a renewal is no further decision");
});

for (
  const { ttl, life } of [{ ttl: 3, life: 10 }, { ttl: 60, life: 60 }, { ttl: 86_400, life: 300 }]
) {
  Deno.test(`D12 S007-FR-040: an answer for ${ttl} s opens for ${life} s`, async () => {
    await using world = new World([DIRECT], addresses(ttl, PUBLIC));
    const [record] = (await world.ask()).answers;
    const [grant] = world.kernel.grants.all();
    equal((grant?.expiresAtMs ?? 0) - (grant?.grantedAtMs ?? 0), life * 1000);
    ok((record?.ttl ?? Infinity) <= life);
  });
}

Deno.test("D12: an answer that must not be kept opens nothing, and is not given", async () => {
  await using world = new World([DIRECT], addresses(0, PUBLIC));
  const reply = await world.ask();
  deepEqual([reply.rcode, reply.answers], ["SERVFAIL", []]);
  deepEqual(world.kernel.open, []);
  equal(world.decisions.recent().at(-1)?.reason, "zero_ttl");
});

Deno.test("D12: an address that the rule does not admit is neither opened nor told", async () => {
  const condition = `${DIRECT.condition} && network.ip.inCidr("93.184.216.0/24")`;
  await using world = new World([{ ...DIRECT, condition }], addresses(60, PUBLIC, OTHER));
  deepEqual(dataOf(await world.ask()), [PUBLIC]);
  deepEqual(world.kernel.open, [`${PUBLIC}:5432/tcp`]);
});

Deno.test("D12: a name all of whose addresses are refused is blocked by the rules", async () => {
  const condition = `${DIRECT.condition} && network.ip == "9.9.9.9"`;
  await using world = new World([{ ...DIRECT, condition }], addresses(60, PUBLIC));
  const reply = await world.ask();
  equal(reply.rcode, "NXDOMAIN");
  const decision = world.decisions.recent().at(-1);
  deepEqual([decision?.verdict, decision?.reason], ["block", "default"]);
  ok(edeOf(reply)?.text.includes(decision?.id ?? "?"));
});

Deno.test("D12 S007-FR-038: without a port it is 443; UDP only where the rule says so", async () => {
  const opens = async (condition: string): Promise<string[]> => {
    await using world = new World([{ ...DIRECT, condition }], addresses(60, PUBLIC));
    await world.ask();
    return world.kernel.open;
  };
  const host = `network.hostname == "${HOST}"`;
  deepEqual(await opens(host), [`${PUBLIC}:443/tcp`]);
  deepEqual(await opens(`${host} && network.protocol == "udp" && network.port == 123`), [
    `${PUBLIC}:123/udp`,
  ]);
  deepEqual(await opens(`${host} && network.port in [22, 80]`), [
    `${PUBLIC}:22/tcp`,
    `${PUBLIC}:80/tcp`,
  ]);
  deepEqual(await opens(`${host} && network.port > 1000`), [], "a range names no port");
});

Deno.test("D23: a restricted address is opened only by a rule that says so", async () => {
  const rules = [DIRECT, {
    id: "inside",
    condition: `network.hostname == "${HOST}" && network.port == 22`,
    mode: "direct_ip",
    allowPrivateIps: true,
  }] as const;
  await using world = new World(rules, addresses(60, "10.1.2.3"));
  deepEqual(dataOf(await world.ask()), ["10.1.2.3"]);
  deepEqual(world.kernel.open, ["10.1.2.3:22/tcp"]);
  await using strict = new World([DIRECT], addresses(60, "10.1.2.3"));
  equal((await strict.ask()).rcode, "SERVFAIL");
  deepEqual(strict.kernel.open, []);
});

Deno.test("D12: the first rule that decides is of the proxy: nothing is opened by a later one", async () => {
  const proxied: TestRule = { id: "web", condition: `http.host == "${HOST}"` };
  const direct: TestRule = { id: "all", condition: `http.host == "${HOST}"`, mode: "direct_ip" };
  await using world = new World([proxied, direct], addresses(60, PUBLIC));
  deepEqual(dataOf(await world.ask()), [PUBLIC], "it resolves for the proxy");
  deepEqual(world.kernel.open, []);
});

Deno.test("D12: AAAA, hints and names of other rules open nothing", async () => {
  await using world = new World(
    [DIRECT, { id: "web", condition: 'http.host == "example.com"' }],
    addresses(60, PUBLIC),
  );
  deepEqual((await world.ask("AAAA")).answers, []);
  await world.ask("HTTPS");
  await world.ask("A", "example.com");
  deepEqual(world.kernel.open, []);
});

Deno.test("D12: at most 256 targets for an agent; what has no room is not told", async () => {
  const many = Array.from({ length: 250 }, (_, i) => `93.184.216.${i + 1}`);
  await using world = new World([DIRECT], addresses(60, ...many));
  equal((await world.ask()).answers.length, 250);
  const next = { id: "next", condition: 'network.hostname == "next.example.com"' };
  world.policy.replace([DIRECT, { ...next, mode: "direct_ip" }]);
  world.upstream.behaviour = replying(() => ({
    answers: many.map((text) => ({
      name: "next.example.com",
      type: "A",
      ttl: 60,
      data: text.replace("216", "217"),
    })),
  }));
  equal((await world.ask("A", "next.example.com")).answers.length, 6);
  equal(world.kernel.open.length, 256);
  world.policy.replace([{
    ...next,
    mode: "direct_ip",
    condition: 'network.hostname == "c.example.com"',
  }]);
  world.upstream.behaviour = replying(() => ({
    answers: [{ name: "c.example.com", type: "A", ttl: 60, data: "1.1.1.1" }],
  }));
  equal((await world.ask("A", "c.example.com")).rcode, "SERVFAIL");
  equal(world.decisions.recent().at(-1)?.reason, "grant_limit");
});

Deno.test("D12: when the kernel refuses, the answer does not leave with addresses", async () => {
  await using world = new World([DIRECT], addresses(60, PUBLIC));
  world.kernel.failure = new OutcallError(500, "grant.kernel", "no");
  const reply = await world.ask();
  deepEqual([reply.rcode, reply.answers], ["SERVFAIL", []]);
  equal(world.decisions.recent().at(-1)?.reason, "grant_failed");
});

Deno.test("D12: the rules of the moment of the transaction count, not those of the question", async () => {
  await using world = new World([DIRECT], addresses(60, PUBLIC));
  world.kernel.before = () => world.policy.replace([]);
  equal((await world.ask()).rcode, "NXDOMAIN");
  deepEqual(world.kernel.open, []);
});

Deno.test("D12: a reload revokes what the new rules would not open, and nothing else", async () => {
  const name = `network.hostname == "${HOST}"`;
  await using world = new World([DIRECT], addresses(60, PUBLIC, OTHER));
  await world.ask();
  world.policy.replace([{ ...DIRECT, id: "renamed" }]);
  await world.access.rejudge();
  equal(world.kernel.open.length, 2);
  world.policy.replace([{
    ...DIRECT,
    condition: `${DIRECT.condition} && network.ip == "${OTHER}"`,
  }]);
  await world.access.rejudge();
  deepEqual(world.kernel.open, [`${OTHER}:5432/tcp`]);
  world.policy.replace([{ id: "web", condition: name }]);
  await world.access.rejudge();
  deepEqual(world.kernel.open, [], "by the proxy alone");
});

Deno.test("D12 S013: what was opened to one agent is closed to the next one at its address", async () => {
  await using world = new World([DIRECT], addresses(60, PUBLIC));
  await world.ask();
  world.access.identitiesChanged();
  await Promise.resolve();
  equal(world.kernel.open.length, 1, "it is still the same one");
  const next: Agent = world.agents.add(SOURCE.address, "another");
  equal(next.name, "another");
  world.access.identitiesChanged();
  for (let i = 0; i < 10 && world.kernel.open.length > 0; i++) await Promise.resolve();
  deepEqual(world.kernel.open, []);
  world.kernel.before = () => world.access.identitiesChanged();
  equal(
    (await world.ask()).rcode,
    "SERVFAIL",
    "the agent changed between question and transaction",
  );
});

Deno.test("D12: an answer that was waited for opens nothing to who is at the address by then", async () => {
  const answering = addresses(60, PUBLIC);
  await using world: World = new World(
    [{ ...DIRECT, condition: `${DIRECT.condition} && agent.name == "coder"` }],
    (request) => {
      world.agents.add(SOURCE.address, "another");
      world.access.identitiesChanged();
      return answering(request);
    },
  );
  equal(await world.handle("A", HOST), null, "nor is that one told what was asked");
  equal(world.decisions.recent().at(-1)?.reason, "grant_failed");
  deepEqual(world.kernel.open, []);
});

Deno.test("D12: of a long answer not everything is judged", async () => {
  const many = Array.from({ length: 200 }, (_, i) => `93.184.216.${i + 1}`);
  const ports = Array.from({ length: 64 }, (_, i) => 5000 + i).join(", ");
  await using world = new World([{
    ...DIRECT,
    condition: `network.hostname == "${HOST}" && network.port in [${ports}]`,
  }], addresses(60, ...many));
  let judged = 0;
  const { judge } = world.policy;
  const counting = new DirectAccess({
    agents: world.agents,
    decisions: world.decisions,
    openings: world.kernel,
    judge: (layer, facts) => {
      judged++;
      return judge(layer, facts);
    },
  });
  const agent = world.agents.identify(SOURCE.address);
  const hostname = Hostname.parse(HOST);
  ok(agent !== null && hostname !== null);
  const opened = await counting.open({
    agent,
    hostname,
    addresses: many.flatMap((text) => Ip.parse(text) ?? []),
    openings: Array.from({ length: 64 }, (_, i) => ({ port: 5000 + i, protocol: "tcp" as const })),
    lifeSecs: 60,
  });
  equal(judged, 512);
  deepEqual([...opened.addresses], many.slice(0, 4));
});
