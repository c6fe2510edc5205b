/**
 * The one function that decides. Pure and synchronous: facts in, verdict out. Default is block.
 */
import { isLinkLocalName } from "../net/host.ts";
import type { Candidates } from "./index.ts";
import { PENDING_FACTS } from "./language.ts";
import { Evaluation, FAILED, type Outcome, TRUE } from "./outcome.ts";
import type { CompiledRule, Policy } from "./policy.ts";
import { DEFAULT_PORT, MAX_OPENINGS, OTHER_SERVICES_PORTS } from "./ports.ts";
import {
  DEFAULT_EGRESS,
  type DnsTerms,
  type Facts,
  type Layer,
  type Opening,
  type RuleFailure,
  type RuleRef,
  type Verdict,
  type VerdictReason,
} from "./types.ts";

/** Layers whose facts describe a connection to a port. */
const PORT_LAYERS: ReadonlySet<Layer> = new Set<Layer>(["grant", "connect", "sni", "http", "dial"]);

/** Whether nobody will see what is sent, so that the port must be meant. */
function isOpaque(layer: Layer, facts: Facts): boolean {
  return layer === "grant" || layer === "connect" || layer === "sni" ||
    (layer === "dial" && facts.http?.method === "CONNECT");
}

function conditionAdmitsPort(rule: CompiledRule, layer: Layer, facts: Facts): boolean {
  const { port: _port, ...network } = facts.network ?? {};
  const pending = PENDING_FACTS[layer];
  const withoutPort = new Evaluation({ ...facts, network }, pending);
  return rule.portTest(new Evaluation(facts, pending), withoutPort);
}

/** Decision D12: TCP, and UDP where the condition says so. All other layers have TCP alone. */
function admitsProtocol(rule: CompiledRule, layer: Layer, facts: Facts): boolean {
  if (layer !== "grant" || facts.network?.protocol === "tcp") return true;
  const { protocol: _protocol, ...network } = facts.network ?? {};
  const pending = PENDING_FACTS[layer];
  const withoutProtocol = new Evaluation({ ...facts, network }, pending);
  return rule.protocolTest(new Evaluation(facts, pending), withoutProtocol);
}

function admitsPort(rule: CompiledRule, layer: Layer, facts: Facts): boolean {
  if (!PORT_LAYERS.has(layer)) return true;
  const port = facts.network?.port;
  const ports = rule.egress?.ports;
  if (ports !== undefined) return port !== undefined && ports.includes(port);
  const isUsual = isOpaque(layer, facts)
    ? port === DEFAULT_PORT
    : port === undefined || !OTHER_SERVICES_PORTS.has(port);
  return isUsual || conditionAdmitsPort(rule, layer, facts);
}

function ref(rule: CompiledRule): RuleRef {
  return { id: rule.id, file: rule.file, line: rule.line };
}

function distinct(openings: readonly Opening[]): readonly Opening[] {
  const byKey = new Map(
    openings.map((opening) => [`${opening.port} ${opening.protocol}`, opening]),
  );
  return [...byKey.values()].slice(0, MAX_OPENINGS);
}

/**
 * Layers that let an observed agent pass. Not `grant`: nothing is opened past the proxy that nobody
 * asked for. Not `container`: creating one is an operator's act.
 */
const OBSERVED_LAYERS: ReadonlySet<Layer> = new Set<Layer>([
  "dns",
  "connect",
  "sni",
  "http",
  "dial",
  "agent",
]);

/** Failures that one verdict carries: a policy full of failing rules must not make it grow. */
const MAX_FAILURES = 8;

/** Judges one attempt; lives as long as that takes. */
class Judgement {
  readonly #evaluation: Evaluation;
  readonly #candidates: Candidates;
  readonly #failures: RuleFailure[] = [];

  constructor(readonly policy: Policy, readonly layer: Layer, readonly facts: Facts) {
    this.#evaluation = new Evaluation(facts, PENDING_FACTS[layer]);
    this.#candidates = policy.index.candidates(facts);
  }

  verdict(): Verdict {
    const verdict = this.#byRules();
    const { layer, facts } = this;
    // No rule can have a name resolved that no resolver may be asked for.
    return verdict.allowed && layer === "dns" && isLinkLocalName(facts.dns?.query ?? "")
      ? this.#blocked("default", null)
      : verdict;
  }

  #byRules(): Verdict {
    let onlyPort: CompiledRule | null = null;
    for (let rule = this.#next(); rule !== null; rule = this.#next()) {
      const outcome = this.#evaluate(rule);
      if (rule.action === "block") {
        if (this.#evaluation.blocks(outcome)) return this.#blocked("rule", rule);
        if (outcome === FAILED) return this.#blocked("rule_error", rule);
      } else if (this.#evaluation.allows(outcome)) {
        if (this.#admitsConnection(rule)) return this.#allowed(rule);
        onlyPort ??= rule;
      }
    }
    if (this.#isObserved()) return this.#observed();
    return onlyPort === null ? this.#blocked("default", null) : this.#blocked("port", onlyPort);
  }

  /**
   * The one place where an observation counts: where no rule allows, and none blocks. What is refused
   * for other reasons (addresses, limits, what is sent in tunnels) is not decided here.
   */
  #isObserved(): boolean {
    const { observed } = this.policy;
    if (observed.size === 0 || !OBSERVED_LAYERS.has(this.layer)) return false;
    const key = this.facts.agent?.key;
    return key !== undefined && observed.has(key);
  }

  #observed(): Verdict {
    const verdict: Verdict = {
      allowed: true,
      reason: "observed",
      rule: null,
      egress: DEFAULT_EGRESS,
    };
    return this.#finish(
      this.layer === "dns"
        ? { ...verdict, dns: { namesRecordType: false, namesHost: false } }
        : verdict,
    );
  }

  #next(): CompiledRule | null {
    const position = this.#candidates.next();
    return position < 0 ? null : this.policy.rules[position] ?? null;
  }

  #admitsConnection(rule: CompiledRule): boolean {
    return admitsPort(rule, this.layer, this.facts) &&
      admitsProtocol(rule, this.layer, this.facts);
  }

  #evaluate(rule: CompiledRule): Outcome {
    const outcome = rule.evaluate(this.#evaluation);
    if (outcome === FAILED && this.#failures.length < MAX_FAILURES) {
      this.#failures.push({ ...ref(rule), message: this.#evaluation.failure });
    }
    return outcome;
  }

  #allowed(rule: CompiledRule): Verdict {
    const egress = rule.egress ?? DEFAULT_EGRESS;
    if (this.layer === "grant" && egress.mode !== "direct_ip") {
      return this.#blocked("proxy_only", rule);
    }
    const verdict: Verdict = { allowed: true, reason: "rule", rule: ref(rule), egress };
    return this.#finish(this.layer === "dns" ? this.#withDnsTerms(verdict, rule) : verdict);
  }

  /**
   * Adds what the later rules that may serve this name admit: all of them wait for the same DNS
   * answer. Ends at a block rule that holds for certain.
   */
  #withDnsTerms(verdict: Verdict, deciding: CompiledRule): Verdict {
    const host = this.facts.dns?.query ?? "";
    const egress = deciding.egress ?? DEFAULT_EGRESS;
    let allowPrivateIps = false;
    let namesRecordType = false;
    let namesHost = false;
    let isDirectOnly = true;
    const openings: Opening[] = [];
    for (let rule: CompiledRule | null = deciding; rule !== null; rule = this.#next()) {
      const outcome = rule === deciding ? TRUE : this.#evaluate(rule);
      if (rule.action === "block") {
        if (this.#evaluation.blocks(outcome) || outcome === FAILED) break;
      } else if (this.#evaluation.allows(outcome)) {
        allowPrivateIps ||= rule.egress?.allowPrivateIps ?? false;
        namesRecordType ||= rule.mentionsRecordType;
        namesHost ||= rule.hosts?.exact.has(host) ?? false;
        isDirectOnly &&= rule.egress?.mode === "direct_ip";
        openings.push(...rule.openings);
      }
    }
    const dns: DnsTerms = { namesRecordType, namesHost };
    return {
      ...verdict,
      egress: { ...egress, allowPrivateIps },
      dns: openings.length === 0
        ? dns
        : { ...dns, direct: { openings: distinct(openings), isOnly: isDirectOnly } },
    };
  }

  #blocked(reason: VerdictReason, rule: CompiledRule | null): Verdict {
    const named = rule === null ? null : ref(rule);
    return this.#finish({ allowed: false, reason, rule: named, egress: null });
  }

  #finish(verdict: Verdict): Verdict {
    return this.#failures.length === 0 ? verdict : { ...verdict, failures: this.#failures };
  }
}

/**
 * Judges one attempt at one layer (docs/architecture.md, "Three-valued evaluation"). Never throws.
 *
 * The first rule that counts decides: a block rule when its condition is true or fails, an allow rule
 * when it is true, or can still become true through facts that a later layer will know; in that case
 * the later layer judges again. Where there is none, a fact that nobody knows decides against both.
 */
export function decide(policy: Policy, layer: Layer, facts: Facts): Verdict {
  return new Judgement(policy, layer, facts).verdict();
}
