/** A proxy on loopback with a real policy behind it, witnesses upstream of it, and raw clients. */
import assert from "node:assert/strict";
import type { Agent, AgentDirectory } from "../../lib/agents.ts";
import { type Decision, DecisionLog } from "../../lib/decision.ts";
import { Ip } from "../../lib/net/ip.ts";
import { bytesOf } from "../../lib/proxy/bytes.ts";
import type { ProxyLimits } from "../../lib/proxy/context.ts";
import { ProxyServer } from "../../lib/proxy/server.ts";
import { compilePolicy } from "../../lib/rules/compile.ts";
import type { Policy } from "../../lib/rules/policy.ts";
import type { RuleFailure } from "../../lib/rules/types.ts";
import { clientHello, join } from "./hello.ts";
import { type Origin, RawClient } from "./raw.ts";

/** The agent behind every loopback client. */
export const AGENT: Agent = {
  name: "worker",
  containerId: "c".repeat(64),
  address: "127.0.0.1",
  network: "outcall-agent-net",
};

/** What {@linkcode Lab.tunnelTo} sends through its tunnel. */
export const TUNNELLED = join(clientHello({ names: ["a.example"] }), bytesOf("echo this"));

/** One rule as a test writes it. */
export interface TestRule {
  readonly condition: string;
  readonly action?: "allow" | "block";
  /** YAML flow mapping of the egress block, such as `tls: any`. */
  readonly egress?: string;
}

/** Compiles rules; origins of the tests live on loopback, so allow rules admit private addresses. */
function policyOf(rules: readonly TestRule[], generation = 1): Policy {
  const text = [
    'version: "1"',
    rules.length === 0 ? "rules: []" : "rules:",
    ...rules.map(({ condition, action = "allow", egress = "allow_private_ips: true" }, i) =>
      [
        `  - id: rule-${i}`,
        `    condition: ${JSON.stringify(condition)}`,
        `    action: ${action}`,
        ...(action === "allow" ? [`    egress: { ${egress} }`] : []),
      ].join("\n")
    ),
  ].join("\n");
  const result = compilePolicy([{ path: "/rules/test.yaml", text }], { generation });
  assert.ok(result.ok, JSON.stringify(result));
  return result.policy;
}

/** How a test's proxy differs from the usual one. */
export interface LabOptions {
  readonly rules: readonly TestRule[];
  readonly limits?: Partial<ProxyLimits>;
  /** Names and what they resolve to; without an entry resolving fails. Default: all to 127.0.0.1. */
  readonly names?: Readonly<Record<string, readonly string[]>>;
  readonly agents?: AgentDirectory;
  readonly isLocalAddress?: (ip: Ip) => boolean;
}

/** A running proxy. */
export class Lab implements AsyncDisposable {
  readonly decisions = new DecisionLog();
  readonly resolved: string[] = [];
  readonly failures: RuleFailure[] = [];
  readonly proxy: ProxyServer;
  #policy: Policy;

  private constructor(options: LabOptions) {
    this.#policy = policyOf(options.rules);
    this.proxy = new ProxyServer({
      port: 0,
      address: null,
      resolve: (hostname) => {
        this.resolved.push(hostname.name);
        const found = options.names === undefined ? ["127.0.0.1"] : options.names[hostname.name];
        return found === undefined
          ? Promise.reject(new Error("no such name"))
          : Promise.resolve(found.map(ip));
      },
      isLocalAddress: options.isLocalAddress ?? (() => false),
      agents: options.agents ?? { identify: () => AGENT },
      decisions: this.decisions,
      onFailures: (failures) => this.failures.push(...failures),
      limits: options.limits ?? {},
    });
  }

  /** Starts a proxy on 127.0.0.1 and a free port. */
  static async start(options: LabOptions): Promise<Lab> {
    const lab = new Lab(options);
    await lab.proxy.usePolicy(lab.#policy.data);
    await lab.proxy.serve(["127.0.0.1"]);
    return lab;
  }

  get port(): number {
    return this.proxy.status().listen_port;
  }

  /** Puts other rules in force and re-judges; how many exchanges were cut. */
  reload(rules: readonly TestRule[]): Promise<number> {
    this.#policy = policyOf(rules, this.#policy.generation + 1);
    return this.proxy.usePolicy(this.#policy.data);
  }

  /** The decisions so far, oldest first. */
  async recent(): Promise<Decision[]> {
    await this.proxy.settle();
    return this.decisions.recent();
  }

  /** The decisions so far, shortened to what tests compare. */
  async record(): Promise<string[]> {
    return (await this.recent()).map(({ verdict, layer, reason }) =>
      `${verdict} ${layer} ${reason}`
    );
  }

  /** A raw connection to the proxy. */
  connect(): Promise<RawClient> {
    return RawClient.connect(this.port);
  }

  /** A tunnel to `origin`, by the name a.example, that has echoed {@linkcode TUNNELLED}. */
  async tunnelTo(origin: Origin): Promise<RawClient> {
    const client = await this.connect();
    await client.send(connectRequest(`a.example:${origin.port}`));
    await client.until(/\r\n\r\n/);
    await client.send(TUNNELLED);
    await client.until(/echo this/);
    return client;
  }

  /** Sends `text` on a connection of its own and reads until the proxy closes. */
  async exchange(text: string): Promise<string> {
    using client = await this.connect();
    await client.send(text);
    return await client.rest();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy.stop();
  }
}

function ip(text: string): Ip {
  const parsed = Ip.parse(text);
  if (parsed === null) throw new TypeError(`not an address: ${text}`);
  return parsed;
}

/** A sound response with this body. */
export function ok(body: string, ...fields: string[]): string {
  return ["HTTP/1.1 200 OK", `Content-Length: ${body.length}`, ...fields, "", body].join("\r\n");
}

/** A GET through the proxy. */
export function getRequest(url: string, ...fields: string[]): string {
  const { host } = new URL(url);
  return [`GET ${url} HTTP/1.1`, `Host: ${host}`, ...fields, "", ""].join("\r\n");
}

/** A CONNECT request. */
export function connectRequest(authority: string, ...fields: string[]): string {
  return [`CONNECT ${authority} HTTP/1.1`, `Host: ${authority}`, ...fields, "", ""].join("\r\n");
}
