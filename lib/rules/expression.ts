/** Trying a condition out: `outcall rules test --expr … --context …`. */
import { checkExpression } from "./check.ts";
import { costNs } from "./cost.ts";
import { type Diagnostic, Source } from "./diagnostic.ts";
import { compileCondition } from "./evaluate.ts";
import { FACTS } from "./facts.ts";
import { mentions } from "./ir.ts";
import { celEnvironment } from "./environment.ts";
import { FACT_NAMES, type FactName, PENDING_FACTS } from "./language.ts";
import { LIMITS } from "./limits.ts";
import { lowerExpression } from "./lower.ts";
import { CAN_BE_TRUE, Evaluation, FAILED, FALSE, type Outcome, TRUE } from "./outcome.ts";
import { PatternBudget } from "./pattern.ts";
import type { Facts, Layer } from "./types.ts";

/** What came of it. */
export interface ExpressionResult {
  /** The condition holds. */
  readonly result: boolean;
  /** Why it cannot be evaluated; null when it can. */
  readonly error: string | null;
  /** `unknown`: a fact that it needs is not given. */
  readonly outcome: "true" | "false" | "unknown" | "error";
  /** The unknown condition may still become true at a later layer. */
  readonly pending: boolean;
  /** Facts that an unknown condition reads and that are not given. */
  readonly missing: readonly FactName[];
  /** The mistake with its place, when the condition is wrong. */
  readonly diagnostic: Diagnostic | null;
}

const WORDS: ReadonlyMap<Outcome, ExpressionResult["outcome"]> = new Map([
  [TRUE, "true"],
  [FALSE, "false"],
  [FAILED, "error"],
]);

function refused(
  text: string,
  problem: { code: string; message: string; hint?: string | undefined; start: number; end: number },
): ExpressionResult {
  const diagnostic = new Source("expression", text).diagnostic("error", problem, problem);
  return {
    result: false,
    error: problem.message,
    outcome: "error",
    pending: false,
    missing: [],
    diagnostic,
  };
}

/** Evaluates `text` on `facts` as `layer` would. Touches no policy. Never throws. */
export function testExpression(
  text: string,
  facts: Facts,
  layer: Layer = "dial",
): ExpressionResult {
  const checked = checkExpression(celEnvironment(), text);
  if (!checked.ok) return refused(text, checked.problem);
  const whole = { start: 0, end: text.length };
  if (checked.type !== "bool") {
    const message = `CEL type error: the expression is a ${checked.type}, not true or false`;
    return refused(text, { code: "rules.not_boolean", message, ...whole });
  }
  const lowered = lowerExpression(checked.ast, new PatternBudget());
  if (!lowered.ok) return refused(text, lowered.problem);
  if (costNs(lowered.expr) > LIMITS.conditionCostNs) {
    const message = "CEL type error: on hostile input this could take longer than a millisecond";
    return refused(text, { code: "rules.too_expensive", message, ...whole });
  }
  const evaluation = new Evaluation(facts, PENDING_FACTS[layer]);
  const outcome = compileCondition(lowered.expr)(evaluation);
  const word = WORDS.get(outcome) ?? "unknown";
  return {
    result: outcome === TRUE,
    error: outcome === FAILED ? evaluation.failure : null,
    outcome: word,
    pending: outcome !== TRUE && (outcome & CAN_BE_TRUE) !== 0,
    missing: word === "unknown"
      ? FACT_NAMES.filter((name) =>
        mentions(lowered.expr, name) && FACTS[name].read(facts) === undefined
      )
      : [],
    diagnostic: null,
  };
}
