/** A rule file that an agent proposes: checked like any other, and told to the operator plainly. */
import { OutcallError } from "../errors.ts";
import { parseHost } from "../net/host.ts";
import { compilePolicy } from "../rules/compile.ts";
import { FACT_NAMES, type FactName } from "../rules/language.ts";
import { lint } from "../rules/lint.ts";
import { CAN_BE_TRUE, Evaluation } from "../rules/outcome.ts";
import type { CompiledRule, Policy } from "../rules/policy.ts";
import { DEFAULT_BODY_BYTES } from "../rules/types.ts";

/** Decision D10: rules of agents come after those that an operator put first. */
const LEAST_PRIORITY = 100;
/** Enough for one thing to ask for; more would not be read. */
const MAX_RULES = 20;

/** One proposed rule. */
export interface ProposedRule {
  readonly id: string;
  readonly action: "allow" | "block";
  /** With definitions expanded. */
  readonly condition: string;
  /** What becomes reachable: A-labels and addresses, `*.` in front of a suffix; null: any host. */
  readonly hosts: readonly string[] | null;
}

/** What a proposal says. */
export interface Proposal {
  readonly rules: readonly ProposedRule[];
  /** What an operator should know before saying yes. */
  readonly warnings: readonly string[];
}

/**
 * Checks a proposed file with the pipeline that loads rules.
 * @param path As it is called in messages.
 * @throws OutcallError `requests.invalid` (422), told in the agent's own words only.
 */
export function checkProposal(path: string, text: string): Proposal {
  const compiled = compilePolicy([{ path, text }], { generation: 0 });
  if (!compiled.ok) {
    const [first] = compiled.errors;
    throw new OutcallError(
      422,
      "requests.invalid",
      `invalid rule file: line ${first?.line ?? 1}: ${first?.message ?? "it cannot be read"}`,
      first?.hint === undefined ? {} : { hint: first.hint },
    );
  }
  const { policy } = compiled;
  const wrong = objection(policy);
  if (wrong !== null) {
    throw new OutcallError(422, "requests.invalid", `invalid rule file: ${wrong}`);
  }
  return {
    rules: policy.rules.map((rule) => ({
      id: rule.id,
      action: rule.action,
      condition: rule.condition,
      hosts: hostsIn(rule),
    })),
    warnings: [
      ...policy.rules.flatMap(breadth),
      ...[...compiled.warnings, ...lint(policy)].map(({ line, message }) =>
        `line ${line}: ${message}`
      ),
    ],
  };
}

function objection({ rules }: Policy): string | null {
  if (rules.length === 0) return "it has no rules";
  if (rules.length > MAX_RULES) return `it has more than ${MAX_RULES} rules`;
  const early = rules.find(({ priority }) => priority < LEAST_PRIORITY);
  if (early !== undefined) {
    return `rule "${early.id}" has priority ${early.priority}; ${LEAST_PRIORITY} is the least`;
  }
  return null;
}

/** What a connection, or a question about one, has facts of: everything but tools and containers. */
const CONNECTION_FACTS: ReadonlySet<FactName> = new Set(
  FACT_NAMES.filter((fact) => !/^(run|docker)\./.test(fact)),
);

/** Whether a condition could be true of some connection. */
function mayOpen({ evaluate }: CompiledRule): boolean {
  return (evaluate(new Evaluation({}, CONNECTION_FACTS)) & CAN_BE_TRUE) !== 0;
}

/** Hosts that become reachable; null: any. A rule that no connection can fulfil opens none. */
function hostsIn(rule: CompiledRule): readonly string[] | null {
  if (!mayOpen(rule)) return [];
  if (rule.hosts === null) return null;
  const canonical = (text: string): string => String(parseHost(text) ?? text);
  return [
    ...[...rule.hosts.exact].map(canonical),
    ...[...rule.hosts.under].map((suffix) => `*.${canonical(suffix)}`),
  ].sort();
}

/** A name that no rule means: what may be true for it is true for agents that nobody thought of. */
const STRANGER = crypto.randomUUID();

/** Whether a rule can serve any agent, though it may well mention one. */
function isForStrangers({ evaluate }: CompiledRule): boolean {
  const evaluation = new Evaluation({ agent: { name: STRANGER } }, new Set(FACT_NAMES));
  return (evaluate(evaluation) & CAN_BE_TRUE) !== 0;
}

function breadth(rule: CompiledRule): string[] {
  if (rule.action === "block") return [`rule "${rule.id}" blocks, perhaps also other agents`];
  const warnings: string[] = [];
  if (isForStrangers(rule)) {
    warnings.push(`rule "${rule.id}" is for every agent, not only for the one that asks`);
  }
  const hosts = hostsIn(rule);
  if (hosts === null) warnings.push(`rule "${rule.id}" may allow any host`);
  const wide = hosts?.filter((host) => host.startsWith("*.")) ?? [];
  if (wide.length > 0) {
    warnings.push(`rule "${rule.id}" allows every name under ${wide.join(", ")}`);
  }
  if (rule.egress?.allowPrivateIps === true) {
    warnings.push(`rule "${rule.id}" allows private addresses`);
  }
  if (rule.egress?.mode === "direct_ip") {
    warnings.push(
      `rule "${rule.id}" opens addresses past the proxy, where nobody sees what is sent`,
    );
  }
  if (rule.egress?.tls === "any") {
    warnings.push(`rule "${rule.id}" does not check what is inside the tunnel`);
  }
  const { maxBodyBytes = DEFAULT_BODY_BYTES } = rule.egress ?? {};
  if (maxBodyBytes > DEFAULT_BODY_BYTES) {
    warnings.push(`rule "${rule.id}" lets bodies of up to ${maxBodyBytes} bytes out`);
  }
  return warnings;
}
