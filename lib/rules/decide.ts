/**
 * The one function that decides. Pure and synchronous: facts in, verdict out. Default is block.
 */
import { CAN_BE_TRUE, Evaluation, FAILED, TRUE } from "./evaluate.ts";
import type { Candidates } from "./index.ts";
import type { CompiledRule, Policy } from "./policy.ts";
import {
  DEFAULT_EGRESS,
  type Egress,
  type Facts,
  type Layer,
  type RuleRef,
  type Verdict,
  type VerdictReason,
} from "./types.ts";

/** Decision D25: what a tunnel may reach when neither `egress.ports` nor the condition says more. */
const DEFAULT_TUNNEL_PORT = 443;

/** Layers whose facts describe a connection to a port. */
const PORT_LAYERS: ReadonlySet<Layer> = new Set<Layer>(["connect", "sni", "http", "dial"]);

function isTunnel(layer: Layer, facts: Facts): boolean {
  return layer === "connect" || layer === "sni" ||
    (layer === "dial" && facts.http?.method === "CONNECT");
}

/**
 * Whether it is a port comparison of the condition that admits this port: without knowing the port
 * the condition does not hold. Otherwise `http.host == "a" || (http.host == "b" && network.port == 22)`
 * would open every port of a.
 */
function conditionAdmitsPort(rule: CompiledRule, layer: Layer, facts: Facts): boolean {
  if (!rule.mentionsPort) return false;
  const { port: _port, ...network } = facts.network ?? {};
  return rule.evaluate(new Evaluation({ ...facts, network }, layer)) !== TRUE;
}

function admitsPort(rule: CompiledRule, layer: Layer, facts: Facts): boolean {
  if (!PORT_LAYERS.has(layer)) return true;
  const port = facts.network?.port;
  const ports = rule.egress?.ports;
  if (ports !== undefined) return port !== undefined && ports.includes(port);
  return !isTunnel(layer, facts) || port === DEFAULT_TUNNEL_PORT ||
    conditionAdmitsPort(rule, layer, facts);
}

function ref(rule: CompiledRule): RuleRef {
  return { id: rule.id, file: rule.file, line: rule.line };
}

function allowed(rule: CompiledRule, egress: Egress): Verdict {
  return { allowed: true, reason: "rule", rule: ref(rule), egress };
}

function blocked(reason: VerdictReason, rule: CompiledRule | null): Verdict {
  return { allowed: false, reason, rule: rule === null ? null : ref(rule), egress: null };
}

/**
 * Whether any rule left in `candidates` that may serve this name later admits private addresses: all of
 * them wait for the same DNS answer. Ends at a block rule that holds for certain.
 */
function anyAllowsPrivateIps(
  policy: Policy,
  candidates: Candidates,
  evaluation: Evaluation,
): boolean {
  for (let i = candidates.next(); i >= 0; i = candidates.next()) {
    const rule = policy.rules[i];
    if (rule === undefined) break;
    const outcome = rule.evaluate(evaluation);
    if (rule.action === "block") {
      if (outcome === TRUE || outcome === FAILED) return false;
    } else if ((outcome & CAN_BE_TRUE) !== 0 && rule.egress?.allowPrivateIps === true) {
      return true;
    }
  }
  return false;
}

/**
 * Judges one attempt at one layer (docs/architecture.md, "Three-valued evaluation"). Never throws.
 *
 * The first rule that counts decides: a block rule when its condition is true or fails, an allow rule
 * when it is true, or can still become true through facts that a later layer will know; in that case
 * the later layer judges again.
 */
export function decide(policy: Policy, layer: Layer, facts: Facts): Verdict {
  const evaluation = new Evaluation(facts, layer);
  const candidates = policy.index.candidates(facts);
  let onlyPort: CompiledRule | null = null;
  for (let i = candidates.next(); i >= 0; i = candidates.next()) {
    const rule = policy.rules[i];
    if (rule === undefined) break;
    const outcome = rule.evaluate(evaluation);
    if (rule.action === "block") {
      if (outcome === TRUE) return blocked("rule", rule);
      if (outcome === FAILED) return blocked("rule_error", rule);
      continue;
    }
    if ((outcome & CAN_BE_TRUE) === 0) continue;
    if (!admitsPort(rule, layer, facts)) {
      onlyPort ??= rule;
      continue;
    }
    const egress = rule.egress ?? DEFAULT_EGRESS;
    if (layer !== "dns" || egress.allowPrivateIps) return allowed(rule, egress);
    const allowPrivateIps = anyAllowsPrivateIps(policy, candidates, evaluation);
    return allowed(rule, { ...egress, allowPrivateIps });
  }
  return onlyPort === null ? blocked("default", null) : blocked("port", onlyPort);
}
