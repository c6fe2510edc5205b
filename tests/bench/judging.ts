/** What the policy alone costs a tunnel: from the bytes of its head and hello to the verdicts. */
import { Ip } from "../../lib/net/ip.ts";
import type { Judge } from "../../lib/policy.ts";
import { admit, admitAddress } from "../../lib/proxy/admission.ts";
import { bytesOf } from "../../lib/proxy/bytes.ts";
import { parseClientHello } from "../../lib/proxy/client_hello.ts";
import { type Reading, tunnelFacts } from "../../lib/proxy/facts.ts";
import { parseRequestHead } from "../../lib/proxy/head.ts";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { decide } from "../../lib/rules/decide.ts";
import { ruleFiles } from "./names.ts";
import { clientHello } from "./wanted.ts";

const TUNNELS = 50_000;
const PUBLIC = Ip.fromBytes(Uint8Array.of(93, 184, 216, 34));
const AGENT = { name: "worker", address: "10.200.0.2", network: "outcall-agent-net" };

/**
 * Microseconds for a tunnel to `server`, by a set of `ruleCount` rules: head and ClientHello parsed,
 * host, server name and address judged, and the address once more when it has answered.
 * @throws Error when it is not admitted.
 */
export async function judgingUs(server: string, ruleCount: number): Promise<number> {
  const files = Object.entries(ruleFiles(ruleCount)).map(([path, text]) => ({ path, text }));
  const compiled = compilePolicy(files, { generation: 1 });
  if (!compiled.ok) throw new Error("the rules do not compile");
  const { policy } = compiled;
  const judge: Judge = (layer, facts) => ({ verdict: decide(policy, layer, facts), generation: 1 });
  const head = bytesOf(`CONNECT ${server}:443 HTTP/1.1\r\nHost: ${server}:443\r\n\r\n`);
  const hello = await clientHello(server);
  const judgeOne = (): void => {
    const request = parseRequestHead(head);
    if (request.kind !== "tunnel") throw new Error("not a tunnel");
    const facts = tunnelFacts(request.host, request.port, AGENT);
    const readings: readonly Reading[] = [{ facts, ambiguity: null }];
    admit(judge, "connect", readings);
    if (parseClientHello(hello).kind !== "hello") throw new Error("not a ClientHello");
    admit(judge, "sni", readings);
    for (let i = 0; i < 2; i++) admitAddress(judge, readings, { ip: PUBLIC, isLocal: false });
  };
  let startMs = 0;
  // The first half is for the engine, which compiles what is busy.
  for (let i = -TUNNELS; i < TUNNELS; i++) {
    if (i === 0) startMs = performance.now();
    judgeOne();
  }
  return (performance.now() - startMs) * 1_000 / TUNNELS;
}
