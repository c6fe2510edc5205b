/** The DNS filter as a whole, for tests; gateways are loopback addresses of the test's own. */
import assert from "node:assert/strict";
import type { DnsRehearsal } from "../../lib/api/services.ts";
import { DecisionLog } from "../../lib/decision.ts";
import { RecordType } from "../../lib/dns/codes.ts";
import { DnsServer } from "../../lib/dns/server.ts";
import { Hostname } from "../../lib/net/host.ts";
import type { Rate } from "../../lib/rate.ts";
import { decode, type OracleMessage } from "./oracle.ts";
import {
  type Behaviour,
  NO_OPENER,
  ownPort,
  replying,
  TestDirectory,
  TestPolicy,
  type TestRule,
  TestUpstream,
} from "./support.ts";

/** On loopback a client's source address is this one unless it binds another. */
export const CLIENT = "127.0.0.1";

/** Every name has an address but two. */
export const good = replying(({ message }) => {
  const name = message.questions[0]?.name ?? "";
  return {
    answers: name === "void.test" ? [] : [{ name, type: "A", ttl: 60, data: "93.184.216.34" }],
    rcode: name === "missing.test" ? 3 : 0,
  };
});

/** A DNS server on real sockets, with one agent at {@linkcode CLIENT}. */
export class World implements AsyncDisposable {
  readonly port = ownPort();
  readonly agents = new TestDirectory();
  readonly agent = this.agents.add(CLIENT, "coder");
  readonly policy: TestPolicy;
  readonly upstream: TestUpstream;
  readonly decisions = new DecisionLog();
  readonly server: DnsServer;

  constructor(
    rules: readonly TestRule[],
    behaviour: Behaviour = good,
    options: {
      readonly address?: string;
      readonly port?: number;
      readonly queryRate?: Rate;
    } = {},
  ) {
    this.policy = new TestPolicy(rules);
    this.upstream = new TestUpstream(behaviour);
    this.server = new DnsServer({
      generation: this.policy.generation,
      address: options.address ?? null,
      port: options.port ?? this.port,
      upstreams: [this.upstream.upstream],
      upstreamTimeoutMs: 400,
      queryRate: options.queryRate ?? { count: 1000, windowSecs: 1 },
      agents: this.agents,
      agentAddresses: this.agents.addresses,
      judge: this.policy.judge,
      evaluate: this.policy.judge,
      decisions: this.decisions,
      opener: NO_OPENER,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop();
    await this.upstream[Symbol.asyncDispose]();
  }

  async udp(gateway: string, packet: Uint8Array, from = CLIENT): Promise<OracleMessage> {
    const socket = Deno.listenDatagram({ transport: "udp", hostname: from, port: 0 });
    try {
      await socket.send(packet, { transport: "udp", hostname: gateway, port: this.port });
      const [reply, source] = await socket.receive(new Uint8Array(65_535));
      assert(source.transport === "udp");
      assert.deepEqual([source.hostname, source.port], [gateway, this.port]);
      return decode(reply);
    } finally {
      socket.close();
    }
  }

  /** What a query would get: see {@linkcode DnsServer.rehearse}. */
  rehearse(name: string, agentName = "", type: number = RecordType.A): Promise<DnsRehearsal> {
    const hostname = Hostname.parse(name);
    assert(hostname !== null);
    return this.server.rehearse({ hostname, type, agentName });
  }

  connect(gateway: string): Promise<Deno.TcpConn> {
    return Deno.connect({ hostname: gateway, port: this.port });
  }
}
