/**
 * The attacks on the DNS filter (ADV-DNS-00 to -19) and the edge cases of S007, over real sockets: an
 * agent that sends any bytes, an upstream that says anything, the real daemon between them. The
 * upstream is the witness of what was asked; that the attack would work without the filter is shown
 * by a machine that asks the same upstream past it.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { z } from "zod";
import { MALFORMED } from "../dns/malformed.ts";
import {
  edeOf,
  encodeQuery,
  encodeReply,
  type OracleMessage,
  type OracleOpt,
  type OracleRecord,
} from "../dns/oracle.ts";
import { eventually } from "../eventually.ts";
import { DEFAULT_PLACE } from "../lab/agent.ts";
import type { Daemon } from "../lab/daemon.ts";
import { type RecordedDecision, recordedDecisions } from "../lab/decisions.ts";
import {
  type Heard,
  RawClient,
  type Reply,
  type Says,
  ScriptedUpstream,
} from "../lab/dns/programs.ts";
import { HOSTILE_RESOLVERS, UPSTREAM_RESOLVER } from "../lab/internet/world.ts";
import type { Machine } from "../lab/machine.ts";
import { Lab, UNFILTERED_ADDRESS, UNFILTERED_GATEWAY } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = ["nft", "ip", "ss", "unshare", "nsenter", "curl", "dig", "nc", "python3"];

const [OTHER_UPSTREAM = "", FORGER = ""] = HOSTILE_RESOLVERS;
const UPSTREAM_PORT = 5300;
const AGENT_ADDRESS = "10.200.255.10";
const OTHER_ADDRESS = "10.200.255.11";

const RULES = `version: "1"
rules:
  - id: no-evil
    condition: http.host.under("evil.test")
    action: block
    priority: 10
  - id: zone
    condition: http.host.under("zone.test")
    action: allow
  - id: printers
    condition: http.host.under("local")
    action: allow
  - id: inside
    condition: http.host == "inside.test"
    action: allow
    egress: { allow_private_ips: true }
  - id: mail
    condition: dns.query == "mail.test" && dns.record_type in ["MX", "DNSKEY"]
    action: allow
  - id: reverse
    condition: dns.query == "1.255.200.10.in-addr.arpa" && dns.record_type == "PTR"
    action: allow
  - id: direct
    condition: network.hostname.under("direct.test") && network.port == 5432
    action: allow
    egress: { mode: direct_ip }
  - id: silent
    condition: http.host in ["all.silent.test", "one.silent.test"]
    action: allow
  - id: maze
    condition: http.host.under("maze.test")
    action: allow
  - id: tunnel
    condition: http.host.under("tunnel.test")
    action: allow
`;

const PUBLIC = "93.184.216.34";

const a = (name: string, data: string, ttl = 60): OracleRecord => ({ name, type: "A", ttl, data });

const cname = (name: string, data: string): OracleRecord => ({
  ...{ name, type: "CNAME", ttl: 60, data },
});

const soa = (name: string): OracleRecord => ({
  ...{ name, type: "SOA", ttl: 60 },
  data: { mname: "ns.zone.test", rname: "root.zone.test", minimum: 60 },
});

/** An HTTPS or SVCB record: priority 1, target ".", ALPN h2, and these parameters. */
function binding(name: string, type: string, ...parameters: readonly number[]): OracleRecord {
  return {
    name,
    type,
    ttl: 60,
    data: Buffer.from([0, 1, 0, 0, 1, 0, 3, 2, 104, 50, ...parameters]),
  };
}

const BARE_BINDING = "00010000010003026832";

/** Hints for IPv6: every way to hide 10.0.0.1 in an address. */
const HIDDEN_10_0_0_1: Readonly<Record<string, readonly number[]>> = {
  "IPv4-mapped": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1],
  "IPv4-compatible": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1],
  "NAT64": [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1],
  "6to4": [0x20, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
  // Teredo holds the client's address inverted (RFC 4380 §4).
  "Teredo": [0x20, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0xf5, 0xff, 0xff, 0xfe],
};

/** That many addresses of one name. */
function many(name: string, count: number): OracleRecord[] {
  return Array.from({ length: count }, (_, i) => a(name, `8.8.${i >> 8}.${i & 0xff}`));
}

/**
 * A reply of 65,535 bytes, nearly all of them names: each leads from pointer to pointer through 16 KB.
 */
function maze(name: string): Uint8Array {
  const head = encodeReply({ id: 0, name, type: "A" });
  const bytes = new Uint8Array(65_535);
  bytes.set(head);
  const view = new DataView(bytes.buffer);
  let at = head.length;
  let count = 0;
  // Each record names `name` and has `data`, by pointers.
  const record = (pointer: number, type: number, dataBytes: number): void => {
    view.setUint16(at, 0xc000 | pointer);
    view.setUint16(at + 2, type);
    view.setUint16(at + 4, 1);
    view.setUint16(at + 10, dataBytes);
    at += 12;
    count++;
  };
  const firstAt = at + 12;
  const pointers = (0x3fff - firstAt) >> 1;
  record(12, 65_280, 2 * pointers);
  for (let i = 0; i < pointers; i++, at += 2) {
    view.setUint16(at, 0xc000 | (i === 0 ? 12 : at - 2));
  }
  const lastAt = at - 2;
  while (at + 16 <= bytes.length) {
    record(lastAt, 17, 4); // RP, which has two names
    view.setUint32(at, 0xc000_c000 | lastAt << 16 | lastAt);
    at += 4;
  }
  view.setUint16(6, count);
  return bytes.slice(0, at);
}

/** Sends `count` packets in the name of `source`: argv is that, the gateway, and a packet in hex. */
const FLOOD_AS = `
import socket, sys
source, gateway, packet, count = sys.argv[1:]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((source, 0))
for _ in range(int(count)):
    udp.sendto(bytes.fromhex(packet), (gateway, 53))
`;

/** Records as one line each; what the oracle does not know in hexadecimal. */
function lines(records: readonly OracleRecord[]): string[] {
  return records.map(({ name, type, data }) => {
    if (data instanceof Uint8Array) return `${name} ${type} ${data.toHex()}`;
    const text = typeof data === "string" ? data : JSON.stringify(data);
    return `${name} ${type} ${text}`;
  });
}

let lastId = 0;

/** A query with an id of its own. */
function query(name: string, type = "A", opt: OracleOpt | null = {}): Uint8Array {
  return encodeQuery(name, type, { id: ++lastId, ...(opt === null ? {} : { opt }) });
}

/** The lab: upstream, daemon, two agents, and a machine past the filter. */
class Stage implements AsyncDisposable {
  readonly gateway = { to: DEFAULT_PLACE.gateway, port: 53 };
  #heard = 0;

  private constructor(
    readonly lab: Lab,
    readonly daemon: Daemon,
    readonly upstream: ScriptedUpstream,
    readonly machine: Machine,
    readonly agent: RawClient,
    readonly other: RawClient,
    readonly unfiltered: RawClient,
  ) {}

  static async create(): Promise<Stage> {
    await using parts = new AsyncDisposableStack();
    const lab = parts.use(await Lab.create({ docker: false }));
    const addresses = [UPSTREAM_RESOLVER, OTHER_UPSTREAM, FORGER];
    const upstream = await ScriptedUpstream.start(lab.internet.machine, addresses, UPSTREAM_PORT);
    const upstreams = addresses.slice(0, 2).map((address) => `${address}:${UPSTREAM_PORT}`);
    const daemon = await lab.startDaemon({
      rules: { "dns.yaml": RULES },
      flags: ["--dns-upstream", upstreams.join(",")],
    });
    const machine = await lab.agent();
    const next = await lab.agent({ ...DEFAULT_PLACE, address: `${OTHER_ADDRESS}/24` });
    const [agent, other, unfiltered] = await Promise.all(
      [machine, next, lab.unfiltered].map((from) => RawClient.start(from)),
    );
    assert(agent !== undefined && other !== undefined && unfiltered !== undefined);
    parts.move();
    return new Stage(lab, daemon, upstream, machine, agent, other, unfiltered);
  }

  /** What the upstream was asked since the last call, but for what waits in the background. */
  async heard(): Promise<readonly Heard[]> {
    const all = (await this.upstream.heard()).filter(({ name }) => !name.endsWith(".silent.test"));
    return all.slice(this.#heard, this.#heard = all.length);
  }

  /** The same packet past the filter; returns the upstream's own words. */
  async control(packet: Uint8Array, at = UPSTREAM_RESOLVER): Promise<OracleMessage | null> {
    await this.heard();
    const [reply = null] = await this.unfiltered.udp({ to: at, port: UPSTREAM_PORT }, [packet], 1);
    const heard = await this.heard();
    assert.equal(heard.length, 1, "the unfiltered machine reaches the upstream");
    return reply;
  }

  /** The reply to the agent. */
  async ask(packet: Uint8Array, by: "udp" | "tcp" = "udp"): Promise<Reply> {
    const replies = by === "udp"
      ? await this.agent.udp(this.gateway, [packet])
      : (await this.agent.tcp(this.gateway, [packet])).replies;
    const [reply] = replies;
    assert(reply !== undefined, "no reply");
    return reply;
  }

  async decisions(): Promise<readonly RecordedDecision[]> {
    return (await recordedDecisions(this.lab)).filter(({ source }) => source === AGENT_ADDRESS);
  }

  /** The newest decision about `host`. */
  async decision(host: string): Promise<RecordedDecision> {
    const decision = (await this.decisions()).findLast(({ attempt }) => attempt.host === host);
    assert(decision !== undefined, `no decision about ${host}`);
    return decision;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
  }
}

/** One question, what the upstream says to it, and what becomes of it. */
interface Case {
  readonly title: string;
  readonly name: string;
  readonly type?: string;
  readonly opt?: OracleOpt;
  readonly says?: readonly Says[];
  /** By TCP, where that differs. */
  readonly saysByTcp?: readonly Says[];
  /** What the other upstream says, where that differs. */
  readonly otherSays?: readonly Says[];
  readonly rcode: string;
  readonly answers?: readonly string[];
  /** Verdict and reason of the decision. */
  readonly decided: string;
  /** What the upstreams are asked, as `name type`; the question itself when absent. */
  readonly asked?: readonly string[];
}

const NOTHING: readonly string[] = [];
const only = (data: string, index: number): Case => {
  const name = `private${index}.zone.test`;
  return {
    ...{ title: `ADV-DNS-05: a name with no address but ${data}`, name },
    ...{ says: [{ answers: [a(name, data)] }], rcode: "SERVFAIL" },
    decided: "block restricted_address",
  };
};

const CASES: readonly Case[] = [
  {
    title: "S007-AS-001: an allowed name",
    ...{ name: "www.zone.test", rcode: "NOERROR", answers: [`www.zone.test A ${PUBLIC}`] },
    decided: "allow rule",
  },
  {
    title: "ADV-DNS-00: an upstream's NXDOMAIN",
    ...{ name: "missing.zone.test", says: [{ rcode: 3, authorities: [soa("zone.test")] }] },
    ...{ rcode: "NXDOMAIN", decided: "allow rule" },
  },
  {
    title: "ADV-DNS-00: NXDOMAIN is for AAAA as for A",
    ...{ name: "missing.zone.test", type: "AAAA", rcode: "NXDOMAIN", decided: "allow rule" },
    asked: NOTHING,
  },
  {
    title: "ADV-DNS-00: an upstream's NODATA",
    ...{ name: "void.zone.test", says: [{ authorities: [soa("zone.test")] }] },
    ...{ rcode: "NOERROR", decided: "allow rule" },
  },
  {
    title: "S007-AS-002: a name that a rule blocks",
    ...{ name: "www.evil.test", says: [{ answers: [a("www.evil.test", PUBLIC)] }] },
    ...{ rcode: "NXDOMAIN", decided: "block rule", asked: NOTHING },
  },
  {
    title: "ADV-DNS-03: .local, though a rule allows it",
    ...{ name: "printer.local", rcode: "NXDOMAIN", decided: "block default", asked: NOTHING },
  },
  {
    title: "ADV-DNS-04: public and private addresses",
    name: "mixed.zone.test",
    says: [{
      answers: ["10.0.0.1", PUBLIC, "169.254.169.254"].map((data) => a("mixed.zone.test", data)),
    }],
    ...{ rcode: "NOERROR", answers: [`mixed.zone.test A ${PUBLIC}`], decided: "allow rule" },
  },
  {
    title: "D23: a private address where the rule says so",
    ...{ name: "inside.test", says: [{ answers: [a("inside.test", "10.0.0.1")] }] },
    ...{ rcode: "NOERROR", answers: ["inside.test A 10.0.0.1"], decided: "allow rule" },
  },
  ...[
    ...["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"],
    ...["224.0.0.1", "0.0.0.0", "192.0.2.1", "240.0.0.1", "255.255.255.255"],
  ].map(only),
  {
    title: "ADV-DNS-06, ADV-DNS-10, S007-EC-017: AAAA, whatever it would be, is not even asked for",
    ...{ name: "six.zone.test", type: "AAAA" },
    says: [{ answers: [{ name: "six.zone.test", type: "AAAA", data: "::ffff:10.0.0.1" }] }],
    ...{ rcode: "NOERROR", decided: "allow rule", asked: ["six.zone.test A"] },
  },
  ...Object.entries(HIDDEN_10_0_0_1).map(([form, bytes], index): Case => ({
    title: `ADV-DNS-06: a private address as ${form} in a hint`,
    ...{ name: `hint${index}.zone.test`, type: "UNKNOWN_65" },
    says: [{
      answers: [binding(`hint${index}.zone.test`, "UNKNOWN_65", 0, 6, 0, 16, ...bytes)],
    }],
    rcode: "NOERROR",
    answers: [`hint${index}.zone.test UNKNOWN_65 ${BARE_BINDING}`],
    decided: "allow rule",
  })),
  ...["UNKNOWN_64", "UNKNOWN_65"].map((type): Case => ({
    title: `ADV-DNS-08: private hints and ech in type ${type}`,
    ...{ name: "service.zone.test", type },
    says: [{
      answers: [
        binding("service.zone.test", type, 0, 4, 0, 4, 10, 0, 0, 1, 0, 5, 0, 2, 9, 9),
        binding("service.zone.test", type, 0, 4, 0, 8, 192, 168, 0, 1, 93, 184, 216, 34),
      ],
    }],
    rcode: "NOERROR",
    answers: [
      `service.zone.test ${type} ${BARE_BINDING}`,
      `service.zone.test ${type} ${BARE_BINDING}000400045db8d822`,
    ],
    decided: "allow rule",
  })),
  {
    title: "ADV-DNS-07: an alias of a name that a rule blocks",
    name: "alias.zone.test",
    says: [{
      answers: [
        cname("alias.zone.test", "cdn.test"),
        cname("cdn.test", "www.evil.test"),
        a("www.evil.test", PUBLIC),
      ],
    }],
    ...{ rcode: "NXDOMAIN", decided: "block rule" },
  },
  {
    title: "ADV-DNS-07: an alias of a private address",
    name: "alias-inside.zone.test",
    says: [{ answers: [cname("alias-inside.zone.test", "cdn.test"), a("cdn.test", "10.0.0.1")] }],
    ...{ rcode: "SERVFAIL", decided: "block restricted_address" },
  },
  {
    title: "ADV-DNS-07: an alias of an alias of itself",
    name: "loop.zone.test",
    says: [{ answers: [cname("loop.zone.test", "b.test"), cname("b.test", "loop.zone.test")] }],
    ...{ rcode: "SERVFAIL", decided: "block upstream_failed" },
  },
  {
    title: "records that nobody asked for",
    name: "stuffed.zone.test",
    says: [{
      answers: [
        cname("stuffed.zone.test", "cdn.test"),
        a("later.zone.test", "6.6.6.6"),
        a("cdn.test", PUBLIC),
        { name: "cdn.test", type: "TXT", ttl: 60, data: "extra" },
      ],
      authorities: [{ name: "zone.test", type: "NS", ttl: 60, data: "ns.evil.test" }],
      additionals: [a("ns.evil.test", "6.6.6.6"), a("later.zone.test", "6.6.6.6")],
    }],
    rcode: "NOERROR",
    answers: ["stuffed.zone.test CNAME cdn.test", `cdn.test A ${PUBLIC}`],
    decided: "allow rule",
  },
  {
    title: "records that nobody asked for are not remembered either",
    ...{ name: "later.zone.test", rcode: "NOERROR", answers: [`later.zone.test A ${PUBLIC}`] },
    decided: "allow rule",
  },
  {
    title: "an alias that no rule could name",
    name: "odd.zone.test",
    says: [{
      answers: [cname("odd.zone.test", "evil\u001b[2J\n.test"), a("cdn.test", PUBLIC)],
    }],
    ...{ rcode: "SERVFAIL", decided: "block upstream_failed" },
  },
  {
    title: "ADV-DNS-11: mixed case is one name, and comes back as it was asked",
    ...{ name: "WwW.ZoNe.TeSt", rcode: "NOERROR", answers: [`WwW.ZoNe.TeSt A ${PUBLIC}`] },
    ...{ decided: "allow rule", asked: NOTHING },
  },
  {
    title: "ADV-DNS-11: mixed case of a blocked name",
    ...{ name: "wWw.EVIL.test", rcode: "NXDOMAIN", decided: "block rule", asked: NOTHING },
  },
  {
    title: "ADV-DNS-13, S007-AS-010, S007-FR-020: a truncated reply is fetched by TCP",
    name: "large.zone.test",
    says: [{ truncated: true }],
    saysByTcp: [{ answers: [a("large.zone.test", PUBLIC)] }],
    ...{ rcode: "NOERROR", answers: [`large.zone.test A ${PUBLIC}`], decided: "allow rule" },
    asked: ["large.zone.test A", "large.zone.test A by TCP"],
  },
  {
    title: "ADV-DNS-16: replies under another id, question or address come to nothing",
    name: "forged.zone.test",
    says: [
      { idXor: 1, answers: [a("forged.zone.test", "6.6.6.6")] },
      { from: FORGER, answers: [a("forged.zone.test", "6.6.6.6")] },
      { name: "other.zone.test", answers: [a("other.zone.test", "6.6.6.6")] },
      { raw: Uint8Array.of(0, 0, 1) },
      { answers: [a("forged.zone.test", PUBLIC)] },
    ],
    ...{ rcode: "NOERROR", answers: [`forged.zone.test A ${PUBLIC}`], decided: "allow rule" },
  },
  {
    title: "ADV-DNS-17: a label with 53 characters of data",
    ...{ name: `${"x".repeat(53)}.tunnel.test`, rcode: "NXDOMAIN" },
    ...{ decided: "block name_shape", asked: NOTHING },
  },
  {
    title: "ADV-DNS-17: 35 labels",
    ...{ name: `${"x.".repeat(33)}tunnel.test`, rcode: "NXDOMAIN" },
    ...{ decided: "block name_shape", asked: NOTHING },
  },
  {
    title: "ADV-DNS-19: more addresses than anybody has",
    name: "crowd.zone.test",
    says: [{ truncated: true }],
    saysByTcp: [{
      answers: many("crowd.zone.test", 300),
    }],
    ...{ rcode: "SERVFAIL", decided: "block upstream_failed" },
    asked: ["crowd.zone.test A", "crowd.zone.test A by TCP"],
  },
  {
    title: "S007-EC-006, S007-EC-014: the gateway's own name by PTR, which a rule allows",
    ...{ name: "1.255.200.10.in-addr.arpa", type: "PTR" },
    says: [{
      answers: [{ name: "1.255.200.10.in-addr.arpa", type: "PTR", ttl: 60, data: "gw.test" }],
    }],
    ...{ rcode: "NOERROR", answers: ["1.255.200.10.in-addr.arpa PTR gw.test"] },
    decided: "allow rule",
  },
  {
    title: "S007-EC-006: the gateway's own name by another type",
    ...{ name: "1.255.200.10.in-addr.arpa", type: "TXT", rcode: "NXDOMAIN" },
    ...{ decided: "block default", asked: NOTHING },
  },
  {
    title: "S007-EC-013: SERVFAIL of one upstream sends the question to the next",
    ...{ name: "moody.zone.test", says: [{ rcode: 2 }] },
    otherSays: [{ answers: [a("moody.zone.test", PUBLIC)] }],
    ...{ rcode: "NOERROR", answers: [`moody.zone.test A ${PUBLIC}`], decided: "allow rule" },
    asked: ["moody.zone.test A", "moody.zone.test A"],
  },
  {
    title: "S007-AS-015: MX where a rule names the type",
    ...{ name: "mail.test", type: "MX" },
    says: [{
      answers: [{
        name: "mail.test",
        type: "MX",
        ttl: 60,
        data: { preference: 5, exchange: "mx.test" },
      }],
    }],
    rcode: "NOERROR",
    answers: ['mail.test MX {"preference":5,"exchange":"mx.test"}'],
    decided: "allow rule",
  },
  {
    title: "S007-FR-021: DNSKEY where a rule names the type",
    ...{ name: "mail.test", type: "DNSKEY" },
    says: [{
      answers: [{
        ...{ name: "mail.test", type: "DNSKEY", ttl: 60 },
        data: { flags: 257, algorithm: 13, key: Buffer.from([1, 2, 3]) },
      }],
    }],
    rcode: "NOERROR",
    answers: [
      'mail.test DNSKEY {"flags":257,"algorithm":13,"key":{"type":"Buffer","data":[1,2,3]}}',
    ],
    decided: "allow rule",
  },
  {
    title: "a type that no rule names is empty, and A is asked for in its place",
    ...{ name: "text.zone.test", type: "TXT", rcode: "NOERROR", decided: "allow rule" },
    asked: ["text.zone.test A"],
  },
];

/** Runs one case by one transport. */
async function prove(stage: Stage, what: Case): Promise<void> {
  const { name, type = "A", opt, says, saysByTcp, otherSays } = what;
  if (says !== undefined) {
    const script = {
      name,
      type,
      udp: says,
      ...(saysByTcp === undefined ? {} : { tcp: saysByTcp }),
    };
    await stage.upstream.says(script);
    if (otherSays !== undefined) {
      await stage.upstream.says({ name, type, udp: otherSays, at: OTHER_UPSTREAM });
    }
  }
  await stage.control(query(name, type, opt ?? {}));
  for (const by of ["udp", "tcp"] as const) {
    const reply = await stage.ask(query(name, type, opt ?? {}), by);
    assert.equal(reply.rcode, what.rcode, by);
    assert.deepEqual(lines(reply.answers), what.answers ?? [], by);
    const decision = await stage.decision(name.toLowerCase());
    assert.equal(`${decision.verdict} ${decision.reason}`, what.decided);
    const blocked = decision.verdict === "block";
    assert.equal(edeOf(reply)?.text.includes(decision.id) ?? false, blocked, "the decision's id");
    assert.equal(reply.aa, blocked && reply.rcode === "NXDOMAIN");
    const asked = (await stage.heard()).map((heard) =>
      `${heard.name} ${heard.type}${heard.by === "tcp" ? " by TCP" : ""}`
    );
    const expected = what.asked ?? [`${name} ${type}`];
    // What is cached by now is not asked again; what failed is.
    if (by === "udp") assert.deepEqual(asked, expected);
    else assert(asked.length === 0 || blocked, asked.join());
  }
}

const activeGrants = z.object({
  rules: z.array(z.object({
    destination: z.string(),
    expires_in_secs: z.number(),
    source: z.enum(["operator", "dns"]),
  })),
});

const cacheReply = z.object({ stats: z.object({ entries: z.number() }) });

const BLOCKED_TYPES = [
  ...["A", "AAAA", "TXT", "MX", "SRV", "NS", "SOA", "PTR", "NULL", "CAA"],
  // SVCB, HTTPS, ANY, and one that nobody knows.
  ...["UNKNOWN_64", "UNKNOWN_65", "UNKNOWN_255", "UNKNOWN_65280"],
];

const CODES: Readonly<Record<number, string>> = { 1: "FORMERR", 4: "NOTIMP" };

/** Addresses and transports at which somebody listens on port 53 of the host. */
async function listeners(lab: Lab): Promise<string[]> {
  const sockets = await lab.host.must(["ss", "-Hlntu", "sport = :53"]);
  return sockets.split("\n").filter((line) => line !== "").map((line) => {
    const [transport = "", , , , local = ""] = line.split(/ +/);
    return `${transport} ${local}`;
  }).sort();
}

labTest("what clients and upstreams try with DNS comes to nothing, over real sockets", {
  tools: TOOLS,
}, async (t) => {
  await using stage = await Stage.create();
  const { lab, upstream, machine, agent, other, unfiltered, gateway } = stage;
  const grants = async (): Promise<z.infer<typeof activeGrants>["rules"]> =>
    activeGrants.parse((await lab.api("GET", "/api/v1/rules/active")).body).rules;
  const cached = async (): Promise<number> =>
    cacheReply.parse((await lab.api("GET", "/api/v1/dns/cache")).body).stats.entries;
  const reload = async (rules: string): Promise<void> => {
    await lab.writeRules({ "dns.yaml": rules });
    assert.equal((await lab.cli("rules", "reload")).code, 0);
  };

  for (const what of CASES) await t.step(what.title, () => prove(stage, what));

  // They take ten seconds, during which the others go on.
  await upstream.says({ name: "all.silent.test", udp: [] });
  await upstream.says({ name: "one.silent.test", udp: [], at: UPSTREAM_RESOLVER });
  const silent = stage.ask(query("all.silent.test"));
  const oneSilent = stage.ask(query("one.silent.test"));

  await t.step("ADV-DNS-01: a name that no rule allows, by every type", async () => {
    for (const type of BLOCKED_TYPES) {
      assert.equal((await stage.control(query("nobody.test", type)))?.rcode, "NOERROR");
      for (const by of ["udp", "tcp"] as const) {
        const reply = await stage.ask(query("nobody.test", type), by);
        assert.deepEqual([reply.rcode, reply.aa, reply.answers], ["NXDOMAIN", true, []], type);
        assert.deepEqual(reply.authorities.map(({ type, ttl }) => [type, ttl]), [["SOA", 60]]);
        assert.equal(edeOf(reply)?.code, 15);
      }
    }
    assert.deepEqual(await stage.heard(), []);
  });

  await t.step("ADV-DNS-12, S007-EC-004, S007-EC-009: malformed packets", async () => {
    const refusals = async (): Promise<number> =>
      (await stage.decisions()).filter(({ reason }) => reason === "malformed")
        .reduce((sum, { count = 1 }) => sum + count, 0);
    const before = await refusals();
    for (const { what, packet, rcode } of MALFORMED) {
      const witness = { to: UPSTREAM_RESOLVER, port: UPSTREAM_PORT };
      await unfiltered.udp(witness, [packet, query("done.test")], 1);
      assert((await stage.heard()).length === 2, `${what} arrives when nobody filters it`);
      // By UDP silence is told by the answer to what was sent after it.
      const blocked = query("www.evil.test");
      const [reply] = await agent.udp(gateway, [packet, blocked], 1);
      const byTcp = await agent.tcp(gateway, [packet]);
      if (rcode === null) {
        assert.equal(reply?.rcode, "NXDOMAIN", what);
        assert.deepEqual(byTcp, { replies: [], ended: true }, what);
      } else {
        for (const refusal of [reply, ...byTcp.replies]) {
          const code = (refusal?.opt?.extendedRcode ?? 0) << 4;
          assert.equal(code === 0 ? refusal?.rcode : code, CODES[rcode] ?? rcode, what);
          assert(refusal !== undefined && refusal.sizeBytes <= Math.max(packet.length, 23), what);
        }
        assert.equal(byTcp.replies.length, 1, what);
      }
    }
    assert.deepEqual(await stage.heard(), []);
    await eventually(async () => await refusals() === before + 2 * MALFORMED.length);
  });

  await t.step("ADV-DNS-13: lengths by TCP that lie", async () => {
    const packet = query("www.zone.test");
    for (const length of [packet.length + 1, 0xffff]) {
      const lie = await agent.tcp(gateway, [packet], { length, halfClose: true });
      assert.deepEqual(lie, { replies: [], ended: true });
    }
    assert.equal((await stage.ask(packet, "tcp")).rcode, "NOERROR");
  });

  await t.step("ADV-DNS-13: queries as long as they can be", async () => {
    const padded = (bytes: number): Uint8Array => {
      const opt = (data: Uint8Array): OracleOpt => ({ options: [{ code: 12, data }] });
      const { length } = query("www.zone.test", "A", opt(new Uint8Array()));
      return query("www.zone.test", "A", opt(new Uint8Array(bytes - length)));
    };
    assert.equal((await stage.ask(padded(65_535), "tcp")).rcode, "NOERROR");
    // In fragments by UDP; longer than anybody's queries they are dropped.
    assert.equal((await stage.ask(padded(4096))).rcode, "NOERROR");
    const [reply] = await agent.udp(gateway, [padded(5000), query("www.evil.test")], 1);
    assert.equal(reply?.rcode, "NXDOMAIN");
    assert.deepEqual(await stage.heard(), []);
  });

  await t.step("ADV-DNS-12: what a hostile upstream writes keeps nobody waiting", async () => {
    const names = Array.from({ length: 100 }, (_, i) => `n${i}.maze.test`);
    for (const name of names) {
      await upstream.says({ name, udp: [{ truncated: true }], tcp: [{ raw: maze(name) }] });
    }
    const packet = query(names[0] ?? "");
    const direct = await unfiltered.tcp({ to: UPSTREAM_RESOLVER, port: UPSTREAM_PORT }, [packet]);
    assert(direct.replies.every(({ sizeBytes }) => sizeBytes > 65_000));
    const mazes = agent.udp(gateway, names.map((name) => query(name)));
    // By TCP and not cached: the main isolate has to have time for it.
    const next = await other.tcp(gateway, [query("quick.zone.test")]);
    assert.deepEqual(next.replies.map(({ rcode }) => rcode), ["NOERROR"]);
    const rcodes = (await mazes).map(({ rcode }) => rcode);
    assert.deepEqual(rcodes, names.map(() => "SERVFAIL"));
    assert.equal((await stage.heard()).length, 2 * (1 + 2 * names.length));
  });

  await t.step("T-4, ADV-NET-04: a flood in another agent's name is not that one's", async () => {
    const packet = query("stolen.zone.test");
    await machine.must(["ip", "address", "add", `${OTHER_ADDRESS}/32`, "dev", "eth0"]);
    const flood = [OTHER_ADDRESS, DEFAULT_PLACE.gateway, packet.toHex(), "20000"];
    await machine.must(["python3", "-c", FLOOD_AS, ...flood]);
    await machine.must(["ip", "address", "delete", `${OTHER_ADDRESS}/32`, "dev", "eth0"]);
    assert.deepEqual(await stage.heard(), []);
    const [reply] = await other.udp(gateway, [packet]);
    assert.equal(reply?.rcode, "NOERROR", "neither limited nor unheard");
    assert.deepEqual((await stage.heard()).map(({ name }) => name), ["stolen.zone.test"]);
    const decisions = await recordedDecisions(lab);
    const own = decisions.filter(({ source, attempt: { host } }) =>
      source === OTHER_ADDRESS && host === "stolen.zone.test"
    );
    assert.deepEqual(own.map(({ verdict, count = 1 }) => [verdict, count]), [["allow", 1]]);
    const spoofed = decisions.findLast(({ reason }) => reason === "spoofed");
    assert.equal(spoofed?.attempt.claimedSource, OTHER_ADDRESS);
    assert.equal(spoofed.source, AGENT_ADDRESS);
  });

  await t.step("ADV-HOST-12, D28: no name can write into the log or a terminal", async () => {
    const label = '\n{"level":"info"}\r\u001b[2J\u0000';
    for (const name of [`${label}.zone.test`, `${label}.evil.test`]) {
      assert.equal((await stage.ask(query(name))).rcode, "NXDOMAIN");
      assert.equal((await stage.ask(query(name), "tcp")).rcode, "NXDOMAIN");
    }
    const odd = (await stage.decisions()).filter(({ attempt: { host = "" } }) =>
      host.includes("level")
    );
    assert.equal(odd.length, 4);
    for (const { attempt: { host = "" }, reason } of odd) {
      assert.match(host, /^[!-~]+$/);
      assert.equal(reason, "malformed");
    }
    for (const line of stage.daemon.log) assert.doesNotThrow(() => JSON.parse(line), line);
    assert.deepEqual(await stage.heard(), []);
  });

  await t.step("S007-EC-015, S007-SC-001: only the gateway is listened at", async () => {
    assert.deepEqual(await listeners(lab), ["tcp 10.200.255.1:53", "udp 10.200.255.1:53"]);
    const packets = [query("www.zone.test")];
    assert.deepEqual(await unfiltered.udp(gateway, packets, 1, 500), [], "dropped by the kernel");
    const dropped = (await recordedDecisions(lab)).findLast(({ agent }) => agent === null);
    assert.equal(dropped?.reason, "outside_denied");
    assert.deepEqual(await stage.heard(), []);
  });

  await t.step("S007-EC-011, S007-AS-014: EDNS is ours towards the upstream", async () => {
    const name = "signed.zone.test";
    const signature: OracleRecord = {
      ...{ name, type: "RRSIG", ttl: 60 },
      data: {
        ...{ typeCovered: "A", algorithm: 13, labels: 3, originalTTL: 60, keyTag: 7 },
        ...{ expiration: 1_800_000_000, inception: 1_700_000_000, signersName: "zone.test" },
        signature: Buffer.from([1, 2, 3, 4]),
      },
    };
    await upstream.says({ name, udp: [{ answers: [a(name, PUBLIC), signature] }] });
    await stage.heard();
    const subnet = { code: 8, data: Uint8Array.of(0, 1, 24, 0, 10, 200, 255) };
    for (const [dnssecOk, types] of [[true, ["A", "RRSIG"]], [false, ["A"]]] as const) {
      const opt = { udpPayloadSize: 4096, dnssecOk, options: [subnet] };
      const reply = await stage.ask(query(name, "A", opt));
      assert.deepEqual(reply.answers.map(({ type }) => type), types);
      assert.deepEqual(reply.opt?.options, []);
      const [heard] = await stage.heard();
      assert.deepEqual(heard?.message?.opt, {
        ...{ udpPayloadSize: 1232, extendedRcode: 0, dnssecOk, options: [] },
      });
    }
  });

  await t.step(
    "ADV-DNS-18, S007-AS-010: long answers are cut by UDP, and whole by TCP",
    async () => {
      const name = "long.zone.test";
      await upstream.says({
        ...{ name, udp: [{ truncated: true }], tcp: [{ answers: many(name, 200) }] },
      });
      for (const [opt, mostBytes] of [[{ udpPayloadSize: 65_535 }, 1232], [null, 512]] as const) {
        const reply = await stage.ask(query(name, "A", opt));
        assert(reply.tc && reply.sizeBytes <= mostBytes, `${reply.sizeBytes} bytes`);
        const whole = await stage.ask(query(name, "A", opt), "tcp");
        assert.equal(whole.answers.length, 200);
      }
    },
  );

  await t.step("ADV-DNS-09, ADV-DNS-10: what grants live for, and what opens none", async () => {
    const zero = "zero.direct.test";
    await upstream.says({ name: zero, udp: [{ answers: [a(zero, "9.8.7.6", 0)] }] });
    assert.equal((await stage.control(query(zero)))?.answers.length, 1);
    assert.equal((await stage.ask(query(zero))).rcode, "SERVFAIL");
    assert.equal((await stage.decision(zero)).reason, "zero_ttl");
    assert.deepEqual(await grants(), []);
    const ever = "ever.direct.test";
    await upstream.says({ name: ever, udp: [{ answers: [a(ever, "9.8.7.5", 0x7fff_ffff)] }] });
    for (const type of ["AAAA", "UNKNOWN_65"]) await stage.ask(query(ever, type));
    assert.deepEqual(await grants(), [], "neither AAAA nor HTTPS opens anything");
    const [answer] = (await stage.ask(query(ever))).answers;
    assert(answer?.ttl !== undefined && answer.ttl <= 300, `${answer?.ttl}`);
    const [grant, ...others] = await grants();
    assert.deepEqual([grant?.destination, grant?.source, others], ["9.8.7.5", "dns", []]);
    assert(grant !== undefined && grant.expires_in_secs <= 300);
  });

  await t.step("ADV-DNS-19: no more than 256 grants for one agent", async () => {
    assert.equal((await lab.cli("grants", "flush")).code, 0);
    const told: number[] = [];
    for (const [index, name] of ["one.direct.test", "two.direct.test"].entries()) {
      const answers = Array.from({ length: 200 }, (_, i) => a(name, `9.8.${index}.${i + 1}`));
      await upstream.says({ name, udp: [{ truncated: true }], tcp: [{ answers }] });
      told.push((await stage.ask(query(name), "tcp")).answers.length);
    }
    assert.deepEqual(told, [200, 56]);
    assert.equal((await grants()).length, 256);
  });

  await t.step("ADV-DNS-17: 120 new names a minute below a suffix, and no more", async () => {
    await stage.heard();
    const packets = Array.from({ length: 160 }, (_, i) => query(`data${i}.tunnel.test`));
    const rcodes = (await Promise.all([0, 40, 80, 120].map((from) =>
      agent.udp(gateway, packets.slice(from, from + 40))
    ))).flat().map(({ rcode }) =>
      rcode
    );
    const answered = rcodes.filter((rcode) => rcode === "NOERROR").length;
    const names = new Set((await stage.heard()).map(({ name }) => name));
    assert.equal(names.size, answered);
    // The minute may have ended in between.
    assert(answered === 120 || answered === 160, `${answered}`);
    assert.equal(rcodes.filter((rcode) => rcode === "SERVFAIL").length, 160 - answered);
    const refused = (await stage.decisions()).filter(({ reason }) => reason === "name_rate");
    assert.equal(refused.length, 160 - answered);
  });

  await t.step("ADV-DNS-14: blocked names leave nothing behind", async () => {
    // Its answer would be cached in between.
    await oneSilent;
    const before = await cached();
    assert(before > 0);
    const packets = Array.from({ length: 300 }, (_, i) => query(`n${i}.nobody.test`));
    for (let i = 0; i < packets.length; i += 50) {
      const replies = await agent.udp(gateway, packets.slice(i, i + 50));
      assert(replies.every(({ rcode }) => rcode === "NXDOMAIN"));
    }
    assert.equal(await cached(), before);
    assert.deepEqual(await stage.heard(), []);
  });

  await t.step("S007-EC-010: identical questions at once are one question upstream", async () => {
    const name = "slow.zone.test";
    await upstream.says({ name, udp: [{ afterMs: 300, answers: [a(name, PUBLIC)] }] });
    const packets = Array.from({ length: 20 }, () => query(name));
    const replies = await agent.udp(gateway, packets);
    assert(replies.every(({ answers }) => answers.length === 1));
    assert.equal(new Set(replies.map(({ id }) => id)).size, 20);
    assert.equal((await stage.heard()).length, 1);
  });

  await t.step(
    "S007-AS-008, S007-SC-007: a cached answer grows older, upstream unasked",
    async () => {
      const ttlNow = async (): Promise<number> => {
        const [answer] = (await stage.ask(query("older.zone.test"))).answers;
        return answer?.ttl ?? Infinity;
      };
      const ttl = await ttlNow();
      await stage.heard();
      // In a row: of the worker's replies, too, between which the main isolate gives one now and then.
      let older = 0;
      await eventually(async () => (older = await ttlNow() <= ttl - 2 ? older + 1 : 0) === 5);
      assert.deepEqual(await stage.heard(), []);
    },
  );

  await t.step(
    "ADV-DNS-15, S007-EC-016, S007-AS-009: what a reload takes away is gone",
    async () => {
      assert.equal((await stage.ask(query("inside.test"))).answers.length, 1);
      await reload(
        RULES.replace("allow_private_ips: true", "mode: proxy").replace("zone.test", "a.test"),
      );
      assert.equal((await stage.ask(query("www.zone.test"))).rcode, "NXDOMAIN");
      assert.equal((await stage.ask(query("inside.test"))).rcode, "SERVFAIL");
      assert.equal((await stage.decision("inside.test")).reason, "restricted_address");
      const asked = (await stage.heard()).map(({ name }) => name);
      assert.deepEqual(asked, ["inside.test"], "the cache was emptied");
      await reload(RULES);
      assert.equal((await stage.ask(query("www.zone.test"))).rcode, "NOERROR");
    },
  );

  await t.step("S007-EC-002, S007-EC-003, S007-AS-007: upstreams that are silent", async () => {
    const reply = await silent;
    assert.deepEqual([reply.rcode, edeOf(reply)?.code], ["SERVFAIL", 22]);
    assert.equal((await stage.decision("all.silent.test")).reason, "upstream_failed");
    assert.deepEqual(lines((await oneSilent).answers), [`one.silent.test A ${PUBLIC}`]);
    for (const address of [UPSTREAM_RESOLVER, OTHER_UPSTREAM]) {
      const warning = `upstream ${address}:${UPSTREAM_PORT} failed: no reply within 5000 ms`;
      const line = stage.daemon.log.find((line) => line.includes(warning));
      assert.match(line ?? "", /"level":"warn"/);
    }
  });

  await t.step(
    "S007-EC-012, S007-AS-005, S007-SC-009: a query is under way at the end",
    async () => {
      await stage.heard();
      const last = [];
      for (const by of ["udp", "tcp"] as const) {
        const name = `last-${by}.zone.test`;
        await upstream.says({ name, udp: [{ afterMs: 500, answers: [a(name, PUBLIC)] }] });
        last.push(stage.ask(query(name), by));
      }
      let asked = 0;
      await eventually(async () => (asked += (await stage.heard()).length) === last.length);
      const failures = stage.daemon.log.filter((line) => line.includes("the UDP worker failed"));
      assert.deepEqual(failures, [], "whatever came");
      assert.equal(await stage.daemon.stop(), 0);
      for (const reply of last) assert.equal((await reply).rcode, "NOERROR");
      assert.deepEqual(await listeners(lab), []);
      const after = await agent.udp(gateway, [query("www.zone.test")], 1, 500);
      assert.deepEqual(after, []);
    },
  );

  await t.step(
    "S007-EC-008: a port that is taken ends the start, with owner and remedy",
    async () => {
      const squatter = lab.host.spawn(["nc", "-luk", "10.200.255.1", "53"]);
      await eventually(async () => (await listeners(lab)).length > 0);
      const { code, stderr } = await lab.host.run(["outcalld"]);
      assert.equal(code, 1);
      assert.match(stderr, /10\.200\.255\.1:53\/udp: the address is in use by nc \(pid \d+\)/);
      assert.match(stderr, /systemctl disable --now systemd-resolved/);
      squatter.kill("SIGKILL");
    },
  );
});

labTest("the DNS filter is there when its bridge is, and nobody but agents is answered", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const { machine } = lab.internet;
  const upstream = await ScriptedUpstream.start(machine, [UPSTREAM_RESOLVER], UPSTREAM_PORT);
  const rules = { "dns.yaml": RULES };
  const flags = ["--dns-upstream", `${UPSTREAM_RESOLVER}:${UPSTREAM_PORT}`];
  const daemon = await lab.startDaemon({ rules, flags });

  await t.step("S007-EC-001, S007-AS-004: bridge down, bridge up", async () => {
    const status = async (): Promise<string> => (await lab.cli("dns", "status")).stdout;
    assert.match(await status(), /^DNS Filter: {5}active\nListen: +10\.200\.255\.1:53\n/);
    assert.equal((await lab.cli("bridge", "down")).code, 0);
    assert.equal(await status(), "DNS Filter:     inactive (bridge not up)\n");
    assert.deepEqual(await listeners(lab), []);
    assert.equal((await lab.cli("bridge", "up")).code, 0);
    assert.match(await status(), /active\nListen: +10\.200\.255\.1:53\n/);
    const agent = await lab.agent();
    assert.match(await agent.must(["dig", "+tries=1", "www.zone.test"]), /status: NOERROR/);
    await agent[Symbol.asyncDispose]();
    assert.equal((await upstream.heard()).length, 1);
    assert.equal(await daemon.stop(), 0);
  });

  await t.step("ADV-DNS-02: a source outside every managed network is refused", async () => {
    await lab.startDaemon({ flags: [...flags, "--dns-listen", UNFILTERED_GATEWAY] });
    const stranger = await RawClient.start(lab.unfiltered);
    const server = { to: UNFILTERED_GATEWAY, port: 53 };
    const packet = query("www.zone.test");
    const [byUdp] = await stranger.udp(server, [packet]);
    const [byTcp] = (await stranger.tcp(server, [packet])).replies;
    for (const reply of [byUdp, byTcp]) {
      assert.deepEqual([reply?.rcode, reply?.answers], ["REFUSED", []]);
      assert.equal(reply === undefined ? null : edeOf(reply)?.code, 18);
    }
    const decisions = await recordedDecisions(lab);
    assert.deepEqual(
      decisions.map(({ agent, reason, source }) => [agent, reason, source]).slice(-2),
      Array.from({ length: 2 }, () => [null, "unknown_source", UNFILTERED_ADDRESS]),
    );
    assert.equal((await upstream.heard()).length, 1, "the agent's of before");
  });
});
