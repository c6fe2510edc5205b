/** Small policies and facts for tests. */
import assert from "node:assert/strict";
import { checkExpression } from "../../lib/rules/check.ts";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { formatDiagnostic } from "../../lib/rules/diagnostic.ts";
import { compileCondition } from "../../lib/rules/evaluate.ts";
import type { Expr } from "../../lib/rules/ir.ts";
import { celEnvironment } from "../../lib/rules/environment.ts";
import { PENDING_FACTS } from "../../lib/rules/language.ts";
import { lowerExpression } from "../../lib/rules/lower.ts";
import { Evaluation, type Outcome } from "../../lib/rules/outcome.ts";
import { PatternBudget } from "../../lib/rules/pattern.ts";
import type { Policy } from "../../lib/rules/policy.ts";
import type { Facts, Layer } from "../../lib/rules/types.ts";

/** One rule, as JSON, which is YAML too. */
export interface RuleSpec {
  readonly id?: string;
  readonly condition: string;
  readonly action?: "allow" | "block";
  readonly priority?: number;
  readonly log?: boolean;
  readonly egress?: Readonly<Record<string, unknown>>;
}

/** The text of a rule file with these rules; ids default to r0, r1 … */
export function ruleFileText(rules: readonly RuleSpec[]): string {
  const withDefaults = rules.map((rule, i) => ({ id: `r${i}`, action: "allow", ...rule }));
  return JSON.stringify({ version: "1", rules: withDefaults });
}

/** Compiles files by name; fails the test with the diagnostics when they are wrong. */
export function compileFiles(files: Readonly<Record<string, string>>): Policy {
  const result = compilePolicy(
    Object.entries(files).map(([name, text]) => ({ path: `/rules/${name}`, text })),
    { generation: 1 },
  );
  assert.ok(result.ok, result.ok ? "" : result.errors.map(formatDiagnostic).join("\n"));
  return result.policy;
}

/** Compiles rules of one file. */
export function policyOf(...rules: readonly RuleSpec[]): Policy {
  return compileFiles({ "test.yaml": ruleFileText(rules) });
}

const environment = celEnvironment();

/** The expression of `condition` without the cost bound, or null when it is not well typed. */
export function exprOf(condition: string): Expr | null {
  const checked = checkExpression(environment, condition);
  if (!checked.ok) return null;
  const lowered = lowerExpression(checked.ast, new PatternBudget());
  return lowered.ok ? lowered.expr : null;
}

/** A function that evaluates `condition`, or null when it is not well typed. */
export function conditionOf(
  condition: string,
): ((facts: Facts, layer?: Layer) => Outcome) | null {
  const expr = exprOf(condition);
  if (expr === null) return null;
  const evaluate = compileCondition(expr);
  return (facts, layer = "dial") => evaluate(new Evaluation(facts, PENDING_FACTS[layer]));
}

/** What the DNS filter knows. */
export function dnsFacts(name: string, agent = "tester"): Facts {
  return {
    dns: { query: name, record_type: "A" },
    network: { hostname: name },
    http: { host: name },
    agent: { name: agent },
  };
}

/** What the proxy knows of a CONNECT before it resolves the name. */
export function connectFacts(host: string, port = 443, agent = "tester"): Facts {
  return {
    network: { hostname: host, port, protocol: "tcp" },
    http: { host, method: "CONNECT" },
    agent: { name: agent },
  };
}

/** What the proxy knows of a plain request before it resolves the name. */
export function httpFacts(method: string, host: string, path = "/", port = 80): Facts {
  return {
    network: { hostname: host, port, protocol: "tcp" },
    http: { host, method, path, headers: {}, body_size: 0 },
    agent: { name: "tester" },
  };
}

/** The same with the address that is about to be dialled. */
export function withAddress(facts: Facts, ip: string): Facts {
  return { ...facts, network: { ...facts.network, ip } };
}
