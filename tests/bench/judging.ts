/** What the policy alone costs: from the bytes of a request to the verdicts. */
import { Ip } from "../../lib/net/ip.ts";
import { admit, admitAddress, type PolicyInForce } from "../../lib/proxy/admission.ts";
import { bytesOf } from "../../lib/proxy/bytes.ts";
import { parseClientHello } from "../../lib/proxy/client_hello.ts";
import { fieldsForUpstream, type Reading, readingsOf, tunnelFacts } from "../../lib/proxy/facts.ts";
import { parseRequestHead } from "../../lib/proxy/head.ts";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { decide } from "../../lib/rules/decide.ts";
import type { RuleFile } from "../../lib/rules/read.ts";
import { RequestReads } from "../../lib/rules/reads.ts";
import { ruleFiles } from "./names.ts";
import { clientHello } from "./wanted.ts";

const TUNNELS = 50_000;
const REQUESTS = 500;
const PUBLIC = Ip.fromBytes(Uint8Array.of(93, 184, 216, 34));
const AGENT = { name: "worker", address: "10.200.0.2", network: "outcall-agent-net" };

function inForce(files: readonly RuleFile[]): PolicyInForce {
  const compiled = compilePolicy(files, { generation: 1 });
  if (!compiled.ok) throw new Error("the rules do not compile");
  const { policy } = compiled;
  const reads = new RequestReads(policy.rules.map(({ expr }) => expr));
  return {
    judge: (layer, facts) => ({ verdict: decide(policy, layer, facts), generation: 1 }),
    reads: () => reads,
  };
}

/**
 * Microseconds for a tunnel to `server`, by a set of `ruleCount` rules: head and ClientHello parsed,
 * host, server name and address judged, and the address once more when it has answered.
 * @throws Error when it is not admitted.
 */
export async function judgingUs(server: string, ruleCount: number): Promise<number> {
  const policy = inForce(
    Object.entries(ruleFiles(ruleCount)).map(([path, text]) => ({ path, text })),
  );
  const head = bytesOf(`CONNECT ${server}:443 HTTP/1.1\r\nHost: ${server}:443\r\n\r\n`);
  const hello = await clientHello(server);
  const judgeOne = (): void => {
    const request = parseRequestHead(head);
    if (request.kind !== "tunnel") throw new Error("not a tunnel");
    const facts = tunnelFacts(request.host, request.port, AGENT);
    const readings: readonly Reading[] = [{ facts, ambiguity: null }];
    admit(policy, "connect", readings);
    if (parseClientHello(hello).kind !== "hello") throw new Error("not a ClientHello");
    admit(policy, "sni", readings);
    for (let i = 0; i < 2; i++) admitAddress(policy, readings, { ip: PUBLIC, isLocal: false });
  };
  return usPerCall(TUNNELS, judgeOne);
}

/** As many fields as a head may have, each of them twice, and under a name that can be read as another. */
const AMBIGUOUS = Array.from({ length: 120 }, (_, i) => `X-Field_${i % 60}: value ${i}`);

/**
 * Microseconds for the request that can be read in the most ways, by `ruleCount` rules that look at a
 * header of any request.
 * @throws Error when it is not admitted.
 */
export function ambiguousUs(ruleCount: number): number {
  const rules = Array.from({ length: ruleCount }, (_, i) => ({
    id: `block-${i}`,
    condition: `"x-role" in http.headers && http.headers["x-role"] == "role-${i}"`,
    action: "block",
  }));
  const last = { id: "allow", condition: "true", action: "allow" };
  const text = JSON.stringify({ version: "1", rules: [...rules, last] });
  const policy = inForce([{ path: "/rules/headers.yaml", text }]);
  const head = bytesOf(
    [
      "POST http://a.example/;v/%2e/ HTTP/1.1",
      ...["Host: a.example", "Transfer-Encoding: chunked", ...AMBIGUOUS, "", ""],
    ].join("\r\n"),
  );
  return usPerCall(REQUESTS, () => {
    const request = parseRequestHead(head);
    if (request.kind !== "forward") throw new Error("not a plain request");
    admit(policy, "http", readingsOf(request, fieldsForUpstream(request), AGENT));
  });
}

/** The first half is for the engine, which compiles what is busy. */
function usPerCall(count: number, run: () => void): number {
  let startMs = 0;
  for (let i = -count; i < count; i++) {
    if (i === 0) startMs = performance.now();
    run();
  }
  return (performance.now() - startMs) * 1_000 / count;
}
