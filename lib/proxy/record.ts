/** Decision records of the proxy, from what it knows when it decides. */
import type { Agent } from "../agents.ts";
import type { Attempt, NewDecision, Reason } from "../decision.ts";
import type { Layer } from "../rules/types.ts";
import type { Admission } from "./admission.ts";
import type { Exchange } from "./exchange.ts";
import type { ForwardRequest, TunnelRequest } from "./head.ts";
import type { Refusal } from "./refusal.ts";
import { normalisePath } from "./target.ts";

/** What a request attempts, as far as its head says. */
export function attemptOf(head: TunnelRequest | ForwardRequest): Attempt {
  if (head.kind === "tunnel") {
    return { host: String(head.host), port: head.port, method: "CONNECT" };
  }
  const { host, port, path } = head.target;
  return { host: String(host), port, method: head.method, path: normalisePath(path) };
}

/** The record of an admitted exchange. */
export function allowed(exchange: Exchange, source: string, admission: Admission): NewDecision {
  const { layer, reason, rule, generation } = admission;
  const { agent, attempt } = exchange;
  return { generation, layer, agent, source, attempt, verdict: "allow", reason, rule };
}

/** The record of a refused attempt; `generation` where policy was not asked. */
export function blocked(
  agent: Agent | null,
  source: string,
  attempt: Attempt,
  refusal: Refusal,
  generation: number,
): NewDecision {
  const { layer, reason, details }: { layer: Layer; reason: Reason; details: Refusal["details"] } =
    refusal;
  return {
    generation: details.generation ?? generation,
    layer,
    agent,
    source,
    attempt: details.address === undefined ? attempt : { ...attempt, address: details.address },
    verdict: "block",
    reason,
    rule: details.rule ?? null,
  };
}
