/** The UDP worker behind real sockets: what it answers by itself, and that it never answers late. */
import assert from "node:assert/strict";
import { type Decision, DecisionLog } from "../../lib/decision.ts";
import { DnsServer } from "../../lib/dns/server.ts";
import type { Rate } from "../../lib/rate.ts";
import type { AddressOpener, LearnedAddresses, OpenedAddresses } from "../../lib/dns/opener.ts";
import { UdpBatch, UdpSocket } from "../../lib/linux/udp.ts";
import type { PolicyData } from "../../lib/rules/policy.ts";
import { eventually } from "../eventually.ts";
import { labTest } from "../lab/requirements.ts";
import { HungThread, workerThreads } from "../threads.ts";
import { decode, edeOf, encodeQuery, type OracleMessage } from "./oracle.ts";
import {
  allowHost,
  ownAddress,
  ownPort,
  replying,
  TestDirectory,
  TestPolicy,
  type TestRule,
  TestUpstream,
} from "./support.ts";

/** One client socket on an address of its own. */
class Client implements Disposable {
  readonly #socket: Deno.DatagramConn;
  readonly #to: Deno.NetAddr;

  constructor(readonly address: string, gateway: string, port: number) {
    this.#socket = Deno.listenDatagram({ transport: "udp", hostname: address, port: 0 });
    this.#to = { transport: "udp", hostname: gateway, port };
  }

  async send(packet: Uint8Array): Promise<void> {
    await this.#socket.send(packet, this.#to);
  }

  async receive(): Promise<OracleMessage> {
    const [reply] = await this.#socket.receive();
    return decode(reply);
  }

  async ask(name: string, type = "A"): Promise<OracleMessage> {
    await this.send(encodeQuery(name, type, { opt: {} }));
    return await this.receive();
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

/** A client for when this thread must not wait: it is the main isolate, and busy. */
class BusyClient implements Disposable {
  readonly #socket: UdpSocket;
  readonly #to = new Uint8Array(16);
  readonly #batch = new UdpBatch(1, 4096, 0);

  constructor(address: string, gateway: string, port: number) {
    this.#socket = UdpSocket.bind(address, ownPort());
    // struct sockaddr_in: family, port, address.
    this.#to.set([2, 0, port >> 8, port & 0xff, ...gateway.split(".").map(Number)]);
  }

  send(name: string): void {
    this.#socket.send(this.#to, new Uint8Array(encodeQuery(name, "A", { opt: {} })));
  }

  /** A reply that has come already. */
  received(): OracleMessage | null {
    if (this.#batch.receive(this.#socket.fd) === 0) return null;
    return decode(this.#batch.received.slice(0, this.#batch.take(0)));
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

/** Packets that the kernel dropped before the UDP socket there could read them, see proc(5). */
function droppedByKernel(address: string, port: number): number {
  const hex = (number: number, digits: number): string =>
    number.toString(16).toUpperCase().padStart(digits, "0");
  // In the byte order of this machine.
  const local = address.split(".").toReversed().map((part) => hex(Number(part), 2)).join("");
  const socket = `${local}:${hex(port, 4)}`;
  const lines = Deno.readTextFileSync("/proc/net/udp").split("\n").map((line) => line.trim());
  const line = lines.map((line) => line.split(/ +/)).find((fields) => fields[1] === socket);
  assert(line !== undefined);
  return Number(line.at(-1));
}

const rate = (count: number): Rate => ({ count, windowSecs: 3600 });

class World implements AddressOpener, AsyncDisposable {
  readonly gateway = ownAddress();
  readonly port = ownPort();
  readonly agents = new TestDirectory();
  readonly decisions = new DecisionLog();
  readonly upstream = new TestUpstream(replying(({ message }) => ({
    answers: [{
      name: message.questions[0]?.name ?? "",
      type: "A",
      ttl: 60,
      data: "93.184.216.34",
    }],
  })));
  /** Each is to be answered in the order of asking. */
  readonly asked: { learned: LearnedAddresses; open: (opened: OpenedAddresses) => void }[] = [];
  readonly policy: TestPolicy;
  readonly server: DnsServer;
  readonly client: Client;

  private constructor(rules: readonly TestRule[], queryRate: Rate) {
    this.policy = new TestPolicy(rules);
    this.server = new DnsServer({
      generation: this.policy.generation,
      address: null,
      port: this.port,
      upstreams: [this.upstream.upstream],
      queryRate,
      agents: this.agents,
      agentAddresses: this.agents.addresses,
      judge: this.policy.judge,
      evaluate: this.policy.judge,
      decisions: this.decisions,
      opener: this,
    });
    this.client = this.newClient("coder");
  }

  open(learned: LearnedAddresses): Promise<OpenedAddresses> {
    const { promise, resolve: open } = Promise.withResolvers<OpenedAddresses>();
    this.asked.push({ learned, open });
    return promise;
  }

  static async create(rules: readonly TestRule[], queryRate = rate(100_000)): Promise<World> {
    const world = new World(rules, queryRate);
    await world.server.serve([world.gateway]);
    await world.server.usePolicy(world.policy.data);
    return world;
  }

  newClient(name: string): Client {
    const client = new Client(ownAddress(), this.gateway, this.port);
    this.agents.add(client.address, name);
    return client;
  }

  /** Asks until the worker answers without the main isolate's help; returns that answer. */
  async settled(name: string, client = this.client): Promise<OracleMessage> {
    for (;;) {
      const before = this.policy.judged;
      const reply = await client.ask(name);
      if (this.policy.judged === before) return reply;
    }
  }

  async reload(rules: readonly TestRule[]): Promise<void> {
    this.policy.replace(rules);
    await this.server.usePolicy(this.policy.data);
  }

  /** Decisions as reported so far, of which there are at least `count` attempts. */
  async attempts(count: number): Promise<readonly Decision[]> {
    const attempts = (): number =>
      this.decisions.recent().reduce((sum, decision) => sum + (decision.count ?? 1), 0);
    await eventually(() => attempts() >= count);
    assert.equal(attempts(), count);
    return this.decisions.recent();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client[Symbol.dispose]();
    await this.server.stop();
    await this.upstream[Symbol.asyncDispose]();
  }
}

const addresses = (reply: OracleMessage): readonly unknown[] =>
  reply.answers.map(({ data }) => data);

Deno.test("a cached name is answered without the main isolate, and decided all the same", async () => {
  await using world = await World.create([allowHost("a.test")]);
  let asked = 1;
  assert.deepEqual(addresses(await world.client.ask("a.test")), ["93.184.216.34"]);
  for (let own = 0; own < 3; asked++) {
    const before = world.policy.judged;
    assert.deepEqual(addresses(await world.client.ask("a.test")), ["93.184.216.34"]);
    if (world.policy.judged === before) own++;
  }
  const decisions = await world.attempts(asked);
  assert(decisions.every(({ verdict, reason }) => verdict === "allow" && reason === "rule"));
  assert(decisions.every(({ agent }) => agent?.name === "coder"));
  assert.equal(decisions.at(-1)?.upstreamMs, null);
  assert.deepEqual(world.upstream.names, ["a.test"]);
  const { queries_total, queries_allowed, cache_entries } = world.server.status();
  assert.deepEqual([queries_total, queries_allowed, cache_entries], [asked, asked, 1]);
  const { hits, misses } = world.server.cacheStats();
  assert.deepEqual([hits, misses], [asked - 1, 1]);
});

Deno.test("a blocked name's decision is on record under the id that the agent saw, at once (D28)", async () => {
  await using world = await World.create([]);
  const reply = await world.settled("b.test");
  assert.equal(reply.rcode, "NXDOMAIN");
  const id = /decision (\w+)$/.exec(edeOf(reply)?.text ?? "")?.[1];
  assert(id !== undefined);
  await world.server.settle();
  assert.equal(world.decisions.find(id)?.verdict, "block");
  assert.deepEqual(world.upstream.names, []);
});

Deno.test("identical packets get identical replies but for the id, and every one is counted", async () => {
  await using world = await World.create([]);
  await world.settled("b.test");
  const { length: before } = world.decisions.recent();
  const { queries_total } = world.server.status();
  const packet = encodeQuery("b.test", "A", { opt: {} });
  const ids = Array.from({ length: 100 }, (_, i) => 1000 + i);
  for (const id of ids) {
    packet[0] = id >> 8;
    packet[1] = id & 0xff;
    await world.client.send(packet);
  }
  const seen = new Set<number>();
  for (const _ of ids) seen.add((await world.client.receive()).id);
  assert.deepEqual([...seen].toSorted((a, b) => a - b), ids);
  await eventually(() => world.server.status().queries_total >= queries_total + 100);
  assert(world.decisions.recent().length - before < 100, "they share records");
});

Deno.test("replies are shared by nobody: each agent is judged by its own name", async () => {
  await using world = await World.create([
    { id: "coder", condition: 'agent.name == "coder" && dns.query == "a.test"' },
  ]);
  using other = world.newClient("other");
  for (let i = 0; i < 5; i++) {
    assert.equal((await world.client.ask("a.test")).rcode, "NOERROR");
    assert.equal((await other.ask("a.test")).rcode, "NXDOMAIN");
  }
});

Deno.test("from the moment of a reload on no packet is judged by the old rules (ADV-DNS-15)", async () => {
  await using world = await World.create([allowHost("a.test")]);
  await world.client.ask("a.test");
  await world.settled("a.test");
  for (let i = 0; i < 20; i++) {
    world.policy.replace(i % 2 === 0 ? [] : [allowHost("a.test")]);
    const adopted = world.server.usePolicy(world.policy.data);
    // Not awaited: the worker has not even read the new rules.
    const expected = i % 2 === 0 ? "NXDOMAIN" : "NOERROR";
    assert.equal((await world.client.ask("a.test")).rcode, expected);
    await adopted;
    assert.equal((await world.settled("a.test")).rcode, expected);
  }
});

Deno.test("in the midst of many packets a reload is heeded, and each of them answered (ADV-DNS-15)", async () => {
  await using world = await World.create([allowHost("a.test")]);
  await world.client.ask("a.test");
  await world.settled("a.test");
  const packet = encodeQuery("a.test", "A", { opt: {} });
  // Enough that the worker no longer waits to be woken for them.
  const send = async (): Promise<void> => {
    for (let i = 0; i < 64; i++) await world.client.send(packet);
  };
  const receive = async (): Promise<readonly string[]> => {
    const codes = new Set<string>();
    for (let i = 0; i < 64; i++) codes.add((await world.client.receive()).rcode);
    return [...codes];
  };
  for (let i = 0; i < 20; i++) {
    world.policy.replace(i % 2 === 0 ? [] : [allowHost("a.test")]);
    await send();
    const adopted = world.server.usePolicy(world.policy.data);
    await send();
    await receive();
    await receive();
    await adopted;
    await send();
    assert.deepEqual(await receive(), [i % 2 === 0 ? "NXDOMAIN" : "NOERROR"]);
  }
});

Deno.test("a flushed cache answers nothing any more", async () => {
  await using world = await World.create([allowHost("a.test")]);
  await world.client.ask("a.test");
  await world.settled("a.test");
  assert.equal(world.server.flush(), 1);
  await world.client.ask("a.test");
  assert.deepEqual(world.upstream.names, ["a.test", "a.test"]);
});

Deno.test("an address that changes hands is judged by the new name at once (D5)", async () => {
  await using world = await World.create([
    { id: "coder", condition: 'agent.name == "coder" && dns.query == "a.test"' },
  ]);
  await world.client.ask("a.test");
  assert.equal((await world.settled("a.test")).rcode, "NOERROR");
  world.agents.add(world.client.address, "other");
  world.server.forgetAgents();
  assert.equal((await world.client.ask("a.test")).rcode, "NXDOMAIN");
  assert.equal((await world.settled("a.test")).rcode, "NXDOMAIN", "also by the worker itself");
});

Deno.test("a flood is refused once with its own reason, counted in full, and harms nobody else", async () => {
  await using world = await World.create([allowHost("a.test")], rate(50));
  using other = world.newClient("other");
  await other.ask("a.test");
  await world.client.ask("a.test");
  for (let i = 0; i < 1000; i++) await world.client.send(encodeQuery(`n${i}.test`, "A"));
  assert.deepEqual(addresses(await other.ask("a.test")), ["93.184.216.34"]);
  const { decisions } = world;
  const excess = (): number =>
    decisions.recent().filter(({ reason }) => reason === "query_rate")
      .reduce((sum, { count = 1 }) => sum + count, 0);
  await eventually(() => excess() === 951);
  assert(decisions.recent().filter(({ reason }) => reason === "query_rate").length < 20);
  assert.deepEqual(new Set(world.upstream.names), new Set(["a.test"]));
});

Deno.test("of a greater flood, what the kernel drops for us is counted as well", async () => {
  await using world = await World.create([allowHost("a.test")], rate(50));
  await world.settled("b.test");
  const { queries_total: before } = world.server.status();
  let sent = 0;
  const excess = (): number =>
    world.decisions.recent().filter(({ reason }) => reason === "query_rate")
      .reduce((sum, { count = 1 }) => sum + count, 0);
  while (sent < 20_000) {
    for (let i = 0; i < 500; i++) await world.client.send(encodeQuery(`n${sent++}.test`, "A"));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await eventually(() => world.server.status().queries_total >= before + sent);
  assert(excess() > sent / 2, "under its reason, as far as it can be told who sent them");
  assert(droppedByKernel(world.gateway, world.port) > 0);
  using other = world.newClient("other");
  assert.deepEqual(addresses(await other.ask("a.test")), ["93.184.216.34"]);
});

Deno.test("while the main isolate is busy, an agent that asks much costs another one no packet", async () => {
  await using world = await World.create([{ id: "all", condition: 'dns.query.endsWith(".test")' }]);
  const { client, gateway, port } = world;
  await world.settled("a.test");
  using greedy = new BusyClient(client.address, gateway, port);
  using other = world.newClient("other");
  using modest = new BusyClient(other.address, gateway, port);
  let reply: OracleMessage | null = null;
  // Nothing is awaited, so nothing is taken from the worker meanwhile.
  for (let sent = 0; reply === null; sent++) {
    assert(sent < 100_000, "it is refused some time");
    greedy.send(`n${sent}.test`);
    reply = greedy.received();
  }
  assert.equal(reply.rcode, "SERVFAIL");
  modest.send("b.test");
  let answer: OracleMessage | null = null;
  await eventually(() => (answer = modest.received()) !== null);
  assert.deepEqual(answer === null ? null : addresses(answer), ["93.184.216.34"]);
  await world.server.settle();
  const id = /decision (\w+)$/.exec(edeOf(reply)?.text ?? "")?.[1] ?? "";
  assert.deepEqual(
    [world.decisions.find(id)?.reason, world.decisions.find(id)?.agent?.name],
    ["limit", "coder"],
  );
});

Deno.test("a packet longer than any query is dropped, and the next one is answered", async () => {
  await using world = await World.create([]);
  await world.settled("b.test");
  await world.client.send(new Uint8Array(9000));
  assert.equal((await world.client.ask("c.test")).rcode, "NXDOMAIN");
});

Deno.test("while the worker is down nothing is answered, and it comes back by itself", async () => {
  await using world = await World.create([allowHost("a.test")]);
  await world.settled("b.test");
  // Rules that no compiler makes: the worker fails over them.
  const broken: PolicyData = JSON.parse('{"generation":7,"rules":[{}]}');
  await world.server.usePolicy(broken);
  assert.equal(world.server.status().running, false);
  await world.client.send(encodeQuery("a.test", "A"));
  await world.reload([allowHost("a.test")]);
  await eventually(() => world.server.status().running);
  assert.deepEqual(addresses(await world.client.receive()), ["93.184.216.34"]);
});

labTest("a worker that hangs is noticed and replaced, and health tells of it", {
  tools: ["python3"],
}, async () => {
  const before = workerThreads();
  await using world = await World.create([allowHost("a.test")]);
  await world.settled("b.test");
  assert.equal(world.server.workerHealth().state, "ok");
  await using _hung = await HungThread.stop(before);
  await world.client.send(encodeQuery("a.test", "A"));
  await eventually(() => world.server.workerHealth().detail.includes("failed 1 time"));
  await eventually(() => world.server.workerHealth().state === "ok");
  assert.deepEqual(addresses(await world.client.receive()), ["93.184.216.34"]);
});

Deno.test("stop() reports what was decided until then", async () => {
  const world = await World.create([]);
  await world.settled("b.test");
  const before = world.server.status().queries_total;
  for (let i = 0; i < 50; i++) await world.client.ask(`n${i}.test`);
  await world[Symbol.asyncDispose]();
  assert(world.server.status().queries_total >= before + 50);
});

Deno.test("a worker that fails while the filter drains is replaced by one that serves nobody new", async () => {
  await using world = await World.create([]);
  await world.settled("b.test");
  await world.server.drain();
  await world.server.settle();
  const before = world.server.status().queries_total;
  await world.server.usePolicy(JSON.parse('{"generation":7,"rules":[{}]}'));
  await eventually(() => world.server.workerHealth().detail.includes("failed 1 time"));
  await world.reload([]);
  await eventually(() => world.server.workerHealth().state === "ok");
  await world.client.send(encodeQuery("b.test", "A"));
  // Packets and messages take turns: by the third answer the packet would have had its own.
  for (let i = 0; i < 3; i++) await world.server.settle();
  assert.equal(world.server.status().queries_total, before);
});

Deno.test("D12: what is opened waits for the kernel, cached or not, and nobody waits with it", async () => {
  await using world = await World.create([
    { id: "direct", condition: 'http.host == "db.example.com"', mode: "direct_ip" },
    allowHost("example.com"),
  ]);
  using other = world.newClient("coder");
  const opened = { addresses: new Set(["93.184.216.34"]), lifeSecs: 42, refusal: null };
  for (let round = 1; round <= 3; round++) {
    await world.client.send(encodeQuery("db.example.com", "A", { opt: {} }));
    assert.equal((await other.ask("example.com")).rcode, "NOERROR");
    await eventually(() => world.asked.length === round);
    assert.equal((await other.ask("example.com")).rcode, "NOERROR");
    const asked = world.asked.at(-1);
    assert.deepEqual(asked?.learned.openings, [{ protocol: "tcp", port: 443 }]);
    asked?.open(opened);
    const reply = await world.client.receive();
    assert.deepEqual(reply.answers.map(({ data, ttl }) => [data, ttl]), [["93.184.216.34", 42]]);
  }
  assert.equal(
    world.upstream.asked.filter(({ message }) => message.questions[0]?.name === "db.example.com")
      .length,
    1,
  );
});
