/**
 * A policy snapshot: immutable, in evaluation order, with a generation number. Its data is plain JSON
 * and crosses isolates; each isolate builds its own functions from it.
 */
import { compileCondition, type Condition } from "./evaluate.ts";
import { HostIndex, type HostSet, hostsOf, type RuleIndex } from "./index.ts";
import { type Expr, mentions } from "./ir.ts";
import { type AdmissionTest, compileAdmissionTest, openingsOf } from "./ports.ts";
import type { Egress, Opening, RuleRef } from "./types.ts";

/** One rule as plain data. */
export interface RuleData extends RuleRef {
  readonly action: "allow" | "block";
  /** Lower is judged first. */
  readonly priority: number;
  /** The condition with definitions expanded. */
  readonly condition: string;
  readonly description: string | null;
  /** A match is logged. */
  readonly log: boolean;
  /** Null for block rules. */
  readonly egress: Egress | null;
  readonly expr: Expr;
  /** Where each clause of `expr` begins in the file, in the order of {@linkcode clausesOf}. */
  readonly places: readonly (readonly [line: number, column: number])[];
}

/** Whether two rules say the same, wherever they are written. */
export function isSameRule(a: RuleData, b: RuleData): boolean {
  const says = ({ id, action, priority, condition, log, egress }: RuleData): string =>
    JSON.stringify([id, action, priority, condition, log, egress]);
  return says(a) === says(b);
}

/** A policy as plain data: what is sent to workers. */
export interface PolicyData {
  readonly generation: number;
  /** In evaluation order: priority, then file name, then position (decision D10). */
  readonly rules: readonly RuleData[];
  /** Keys of agents that are observed; absent: none. */
  readonly observed?: readonly string[];
}

/** One rule, ready to be evaluated. */
export interface CompiledRule extends RuleData {
  readonly evaluate: Condition;
  readonly portTest: AdmissionTest;
  readonly protocolTest: AdmissionTest;
  /** What a `direct_ip` rule may open; empty for others. */
  readonly openings: readonly Opening[];
  /** The condition reads `dns.record_type`. */
  readonly mentionsRecordType: boolean;
  /** See {@linkcode hostsOf}. */
  readonly hosts: HostSet | null;
}

/** A policy, ready to decide. */
export interface Policy {
  readonly generation: number;
  readonly rules: readonly CompiledRule[];
  readonly byId: ReadonlyMap<string, CompiledRule>;
  readonly index: RuleIndex;
  /** Keys of agents that are observed: see {@linkcode withObserved}. */
  readonly observed: ReadonlySet<string>;
  /** The same as plain data, for other isolates: see {@linkcode buildPolicy}. */
  readonly data: PolicyData;
}

/** Builds the functions of a policy from its data. */
export function buildPolicy(data: PolicyData): Policy {
  const rules = data.rules.map((rule) => ({
    ...rule,
    evaluate: compileCondition(rule.expr),
    portTest: compileAdmissionTest(rule.expr, "network.port"),
    protocolTest: compileAdmissionTest(rule.expr, "network.protocol"),
    openings: openingsOf(rule.egress, rule.expr),
    mentionsRecordType: mentions(rule.expr, "dns.record_type"),
    hosts: hostsOf(rule.expr),
  }));
  const index = new HostIndex(data.rules.map(({ expr }) => expr));
  const byId = new Map(rules.map((rule) => [rule.id, rule]));
  const observed = new Set(data.observed);
  return { generation: data.generation, rules, byId, index, observed, data };
}

/**
 * The same rules as another snapshot, in which these agents are observed: what no rule allows them is
 * let out and recorded as such. It is part of the snapshot so that beginning and end of an
 * observation are swaps like a reload: every layer and thread follows, and what is alive is judged
 * again.
 * @param observed Keys of agents, as in `Facts.agent.key`.
 */
export function withObserved(
  policy: Policy,
  generation: number,
  observed: ReadonlySet<string>,
): Policy {
  return {
    ...policy,
    generation,
    observed,
    data: { ...policy.data, generation, observed: [...observed] },
  };
}

/** The policy of a daemon without rules: everything is blocked. */
export function emptyPolicy(generation: number): Policy {
  return buildPolicy({ generation, rules: [] });
}
