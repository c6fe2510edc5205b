/**
 * Why: one answer that walks the layers and shows for each the verdict, the rule, and the values of the
 * rule's parts; for a refusal the allow rule that came nearest and the clause that failed.
 */
import { isUnder } from "../net/host.ts";
import { judge, type JudgedStep } from "./answer.ts";
import { decide } from "./decide.ts";
import { compileCondition, compileValue } from "./evaluate.ts";
import { clausesOf, type Expr, parts } from "./ir.ts";
import { PENDING_FACTS } from "./language.ts";
import { CAN_BE_TRUE, Evaluation, FAILED, FALSE, isKnown, type Outcome, TRUE } from "./outcome.ts";
import type { CompiledRule, Policy } from "./policy.ts";
import { type RequestSpec, type Step, stepsOf } from "./request.ts";
import type { Facts, Layer, Verdict } from "./types.ts";

/** What a condition came to. `pending`: a later layer will know. `never`: nobody will. */
export type Truth = "true" | "false" | "error" | "pending" | "never";

/** One clause of a condition. */
export interface Clause {
  /** As written, with definitions expanded. */
  readonly text: string;
  /** Where it begins in the rule's file, from 1; of a definition: where that is used. */
  readonly line: number;
  readonly column: number;
  readonly truth: Truth;
  /** Facts that it reads; null where one is not known. */
  readonly facts: Readonly<Record<string, unknown>>;
}

/** A rule and what its condition came to. */
export interface ExplainedRule {
  readonly id: string;
  readonly file: string;
  readonly line: number;
  readonly action: "allow" | "block";
  readonly condition: string;
  readonly truth: Truth;
  readonly clauses: readonly Clause[];
}

/** One layer's part of the answer. */
export interface ExplainedStep {
  readonly layer: Layer;
  readonly facts: Facts;
  readonly verdict: Verdict;
  /** The rule that decided. */
  readonly rule: ExplainedRule | null;
  /** For a refusal by default or port: the allow rule that came nearest, and what kept it from counting. */
  readonly nearest: { readonly rule: ExplainedRule; readonly failed: Clause | null } | null;
}

/** The whole answer. */
export type Explanation =
  | { readonly ok: true; readonly allowed: boolean; readonly steps: readonly ExplainedStep[] }
  | { readonly ok: false; readonly message: string };

function truthOf(outcome: Outcome): Truth {
  if (outcome === TRUE) return "true";
  if (outcome === FALSE) return "false";
  if (outcome === FAILED) return "error";
  return (outcome & CAN_BE_TRUE) === 0 ? "never" : "pending";
}

/** Facts that an expression reads, with their values. */
function factsOf(expr: Expr, evaluation: Evaluation): Record<string, unknown> {
  if (expr.op === "fact") {
    const value = compileValue(expr)(evaluation);
    return { [expr.name]: isKnown(value) ? value : null };
  }
  return Object.assign({}, ...parts(expr).map((part) => factsOf(part, evaluation)));
}

function count(text: string, char: string): number {
  return text.split(char).length - 1;
}

/** A clause as written. Parentheses are no part of the syntax tree: those it opens are closed again. */
function textOf({ at: [start, end] }: Expr, condition: string): string {
  let stop = end;
  while (condition[stop] === ")" || condition[stop] === " ") {
    const text = condition.slice(start, stop);
    if (count(text, "(") <= count(text, ")")) break;
    stop++;
  }
  return condition.slice(start, stop).trimEnd();
}

function explainClause(rule: CompiledRule, expr: Expr, evaluation: Evaluation): Clause {
  // Of `a ? b : c` as a whole: where a stands.
  const [first = expr] = clausesOf(expr);
  const [line, column] = rule.places[clausesOf(rule.expr).indexOf(first)] ?? [rule.line, 1];
  return {
    text: textOf(expr, rule.condition),
    line,
    column,
    truth: truthOf(compileCondition(expr)(evaluation)),
    facts: factsOf(expr, evaluation),
  };
}

function explainRule(rule: CompiledRule, evaluation: Evaluation): ExplainedRule {
  return {
    id: rule.id,
    file: rule.file,
    line: rule.line,
    action: rule.action,
    condition: rule.condition,
    truth: truthOf(rule.evaluate(evaluation)),
    clauses: clausesOf(rule.expr).map((expr) => explainClause(rule, expr, evaluation)),
  };
}

/** How far a condition is from counting, and the first clause in the way. */
interface Distance {
  /** Clauses that would have to be otherwise. */
  readonly clauses: number;
  readonly failed: Expr | null;
}

function distance(expr: Expr, evaluation: Evaluation): Distance {
  if (expr.op === "and") {
    const items = expr.items.map((item) => distance(item, evaluation));
    return {
      clauses: items.reduce((sum, item) => sum + item.clauses, 0),
      failed: items.find((item) => item.failed !== null)?.failed ?? null,
    };
  }
  if (expr.op === "or") {
    const items = expr.items.map((item) => distance(item, evaluation));
    return items.reduce((best, item) => item.clauses < best.clauses ? item : best);
  }
  const counts = (compileCondition(expr)(evaluation) & CAN_BE_TRUE) !== 0;
  return counts ? { clauses: 0, failed: null } : { clauses: 1, failed: expr };
}

/** What an attempt is about. */
function hostOf({ network, http, dns }: Facts): string | undefined {
  return network?.hostname ?? http?.host ?? dns?.query;
}

/** Whether the rule is about this host, whatever else it wants. */
function namesHost({ hosts }: CompiledRule, host: string | undefined): boolean {
  if (host === undefined || hosts === null) return false;
  return hosts.exact.has(host) || [...hosts.under].some((parent) => isUnder(host, parent));
}

/** What ranks rules by how near they came, the least first. */
interface Remoteness {
  readonly rule: CompiledRule;
  readonly failed: Expr | null;
  readonly rank: readonly number[];
}

function remoteness(rule: CompiledRule, evaluation: Evaluation): Remoteness {
  const { clauses, failed } = distance(rule.expr, evaluation);
  const all = clausesOf(rule.expr);
  const foreign =
    all.filter((clause) => truthOf(compileCondition(clause)(evaluation)) === "never").length;
  const isAbout = namesHost(rule, hostOf(evaluation.facts));
  // A rule about this host is nearer than one about another; one about other facts altogether is not
  // near at all (a rule on a tool, for a name).
  return { rule, failed, rank: [isAbout ? 0 : 1, foreign, clauses, clauses / all.length] };
}

function isNearer(a: Remoteness, b: Remoteness): boolean {
  const i = a.rank.findIndex((value, i) => value !== b.rank[i]);
  return i >= 0 && (a.rank[i] ?? 0) < (b.rank[i] ?? 0);
}

function nearestRule(policy: Policy, evaluation: Evaluation): ExplainedStep["nearest"] {
  let best: Remoteness | null = null;
  for (const rule of policy.rules) {
    if (rule.action !== "allow") continue;
    const found = remoteness(rule, evaluation);
    if (best === null || isNearer(found, best)) best = found;
  }
  if (best === null) return null;
  const { rule, failed } = best;
  return {
    rule: explainRule(rule, evaluation),
    failed: failed === null ? null : explainClause(rule, failed, evaluation),
  };
}

function explainStep(policy: Policy, step: JudgedStep): ExplainedStep {
  const evaluation = new Evaluation(step.facts, PENDING_FACTS[step.layer]);
  const { verdict } = step;
  const rule = verdict.rule === null ? undefined : policy.byId.get(verdict.rule.id);
  const isDecided = verdict.reason === "rule" || verdict.reason === "rule_error" ||
    verdict.reason === "proxy_only" || verdict.reason === "limit";
  return {
    layer: step.layer,
    facts: step.facts,
    verdict,
    rule: rule === undefined ? null : explainRule(rule, evaluation),
    nearest: isDecided ? null : nearestRule(policy, evaluation),
  };
}

/** Explains what each layer says, whatever the others say. */
export function explainEach(policy: Policy, steps: readonly Step[]): readonly ExplainedStep[] {
  return steps.map((step) =>
    explainStep(policy, { ...step, verdict: decide(policy, step.layer, step.facts) })
  );
}

/** Explains what a policy says to a hypothetical request. */
export function explain(policy: Policy, spec: RequestSpec): Explanation {
  const steps = stepsOf(spec);
  if (!steps.ok) return steps;
  const { allowed, steps: judged } = judge(policy, steps.steps);
  return { ok: true, allowed, steps: judged.map((step) => explainStep(policy, step)) };
}
