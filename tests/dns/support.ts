/** Real parts around the filter: rules compiled from YAML, a directory, upstreams on loopback. */
import assert from "node:assert/strict";
import type { Agent, AgentDirectory } from "../../lib/agents.ts";
import type { Judge } from "../../lib/policy.ts";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { decide } from "../../lib/rules/decide.ts";
import type { Policy, PolicyData } from "../../lib/rules/policy.ts";
import { Ip } from "../../lib/net/ip.ts";
import { readTcpMessage, writeTcpMessage } from "../../lib/dns/framing.ts";
import type { AddressOpener } from "../../lib/dns/opener.ts";
import type { Upstream } from "../../lib/dns/upstreams.ts";
import { decode, encodeReply, type OracleMessage, type OracleReply } from "./oracle.ts";

/** A rule of a test: condition and action, compiled as the daemon compiles it. */
export interface TestRule {
  readonly id: string;
  readonly condition: string;
  readonly action?: "allow" | "block";
  readonly allowPrivateIps?: boolean;
  readonly mode?: "proxy" | "direct_ip";
}

/** Bytes that mean something in a DNS packet: pointers, label lengths, extremes. */
export const DNS_SPICE = [0, 1, 12, 63, 64, 0xc0, 0xff];

/** For filters whose rules open nothing. */
export const NO_OPENER: AddressOpener = {
  open: () => assert.fail("nothing is to be opened"),
};

/** Judges by `rules`, which can be replaced as a reload does. */
export class TestPolicy {
  #generation = 0;
  #policy: Policy;
  /** How often a policy decision was asked for. */
  judged = 0;
  /** Nothing can be judged while this is set. */
  isBroken = false;

  constructor(rules: readonly TestRule[]) {
    this.#policy = this.#compile(rules);
  }

  #compile(rules: readonly TestRule[]): Policy {
    const text = JSON.stringify({
      version: "1",
      rules: rules.map(({ id, condition, action = "allow", ...egress }) => ({
        id,
        condition,
        action,
        ...(action === "block" ? {} : {
          egress: {
            mode: egress.mode ?? "proxy",
            allow_private_ips: egress.allowPrivateIps ?? false,
          },
        }),
      })),
    });
    const compiled = compilePolicy([{ path: "/rules.d/test.yaml", text }], {
      generation: ++this.#generation,
    });
    if (!compiled.ok) assert.fail(JSON.stringify(compiled.errors));
    return compiled.policy;
  }

  /** The rules as other isolates get them. */
  get data(): PolicyData {
    return this.#policy.data;
  }

  readonly generation = (): number => this.#policy.generation;

  /** Swaps the rules. */
  replace(rules: readonly TestRule[]): void {
    this.#policy = this.#compile(rules);
  }

  readonly judge: Judge = (layer, facts) => {
    this.judged++;
    if (this.isBroken) throw new Error("the rules cannot be evaluated");
    return {
      verdict: decide(this.#policy, layer, facts),
      generation: this.#policy.generation,
    };
  };
}

/** A rule that allows `host` for the layers that come after DNS. */
export function allowHost(host: string, allowPrivateIps = false): TestRule {
  return { id: `allow-${host}`, condition: `http.host == "${host}"`, allowPrivateIps };
}

/** Agents by address; everybody else is a stranger. */
export class TestDirectory implements AgentDirectory {
  readonly #agents = new Map<string, Agent>();

  /** Makes the agent `name` known at `address`. */
  add(address: string, name: string): Agent {
    const agent = { name, address, network: "outcall-test" };
    this.#agents.set(address, agent);
    return agent;
  }

  identify(address: string): Agent | null {
    return this.#agents.get(address) ?? null;
  }

  readonly addresses = (): readonly string[] => [...this.#agents.keys()];
}

function random(below: number): number {
  return Math.floor(Math.random() * below);
}

/** A loopback address of this test's own, so that no two tests meet. */
export function ownAddress(): string {
  return `127.${1 + random(250)}.${random(250)}.${2 + random(250)}`;
}

/** A port above the well-known ones and below those the kernel hands out by itself. */
export function ownPort(): number {
  return 10_000 + random(20_000);
}

/** One query as an upstream received it. */
export interface Asked {
  readonly query: Uint8Array;
  readonly message: OracleMessage;
  readonly transport: "udp" | "tcp";
  /** Source port of the query. */
  readonly port: number;
}

/** What an upstream does with a query: packets to send back, in order, raw or from the oracle. */
export type Behaviour = (asked: Asked) => readonly Uint8Array[] | Promise<readonly Uint8Array[]>;

/** The usual upstream: one proper reply built from `reply`. */
export function replying(
  reply: (asked: Asked) => Omit<OracleReply, "id" | "name" | "type">,
): Behaviour {
  return (asked) => {
    const [question] = asked.message.questions;
    assert(question !== undefined);
    return [encodeReply({ id: asked.message.id, ...question, ...reply(asked) })];
  };
}

/** An upstream resolver on a loopback address, over UDP and TCP, that keeps what it was asked. */
export class TestUpstream implements AsyncDisposable {
  readonly address = ownAddress();
  readonly port = ownPort();
  readonly asked: Asked[] = [];
  readonly #udp: Deno.DatagramConn;
  readonly #tcp: Deno.TcpListener;
  readonly #conns = new Set<Deno.Conn>();
  readonly #serving: Promise<unknown>;
  #closed = false;

  constructor(public behaviour: Behaviour) {
    this.#udp = Deno.listenDatagram({
      transport: "udp",
      hostname: this.address,
      port: this.port,
    });
    this.#tcp = Deno.listen({ hostname: this.address, port: this.port });
    this.#serving = Promise.allSettled([this.#serveUdp(), this.#serveTcp()]);
  }

  /** As the filter is configured with it. */
  get upstream(): Upstream {
    const ip = Ip.parse(this.address);
    assert(ip !== null);
    return { ip, port: this.port };
  }

  /** The names it was asked, in order. */
  get names(): readonly string[] {
    return this.asked.map(({ message }) => message.questions[0]?.name ?? "");
  }

  async #packets(
    query: Uint8Array,
    transport: "udp" | "tcp",
    port: number,
  ): Promise<readonly Uint8Array[]> {
    const asked = { query, message: decode(query), transport, port };
    this.asked.push(asked);
    return await this.behaviour(asked);
  }

  async #serveUdp(): Promise<void> {
    while (!this.#closed) {
      const [query, from] = await this.#udp.receive(new Uint8Array(65_535));
      assert(from.transport === "udp");
      void this.#packets(query, "udp", from.port).then(async (packets) => {
        for (const packet of packets) await this.#udp.send(packet, from);
      }).catch(() => {});
    }
  }

  async #serveTcp(): Promise<void> {
    while (!this.#closed) void this.#serveConn(await this.#tcp.accept());
  }

  async #serveConn(conn: Deno.TcpConn): Promise<void> {
    this.#conns.add(conn);
    try {
      for (;;) {
        const query = await readTcpMessage(conn);
        if (query === null) break;
        const packets = await this.#packets(query, "tcp", conn.remoteAddr.port);
        for (const packet of packets) await writeTcpMessage(conn, packet);
      }
    } catch {
      // The filter hung up.
    }
    this.#conns.delete(conn);
    try {
      conn.close();
    } catch {
      // Closed on disposal.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#udp.close();
    this.#tcp.close();
    for (const conn of this.#conns) conn.close();
    await this.#serving;
  }
}
