/** Why a recorded decision came out as it did, and which rule would change it. */
import type { Decision } from "../decision.ts";
import { diffRules } from "../rules/diff.ts";
import { explainEach, type ExplainedStep } from "../rules/explain.ts";
import type { PolicyHistory } from "../rules/history.ts";
import { buildPolicy, type Policy } from "../rules/policy.ts";
import { type Proposal, propose } from "../rules/propose.ts";
import { walkOf } from "../rules/replay.ts";
import { adviceFor, meaningOf } from "./advice.ts";

/** What one set of rules says, layer by layer. */
export interface Walk {
  readonly generation: number;
  readonly steps: readonly ExplainedStep[];
}

/**
 * How the rules that decided stand to those in force: the same, changed since, or no longer kept (by
 * another daemon, or many reloads ago). `not_asked`: the decision was made without asking any.
 */
export type RulesSince = "same" | "changed" | "forgotten" | "not_asked";

/** The whole explanation. */
export interface DecisionExplanation {
  readonly decision: Decision;
  /** The decision's reason, in a clause. */
  readonly meaning: string;
  readonly rules: RulesSince;
  /** By the rules that decided; null when they are not kept, or none were asked. */
  readonly then: Walk | null;
  /** By the rules in force now, where they are others. */
  readonly now: Walk | null;
  readonly advice: readonly string[];
  readonly proposals: readonly Proposal[];
}

function isSamePolicy(a: Policy, b: Policy): boolean {
  const { added, removed, changed } = diffRules(a, b);
  return added.length + removed.length + changed.length === 0;
}

function rulesSince(then: Policy | null, current: Policy): RulesSince {
  if (then === null) return "forgotten";
  if (then === current) return "same";
  return isSamePolicy(then, current) ? "same" : "changed";
}

/** Reasons that rules alone give, and that a rule can change. */
const BY_RULES: ReadonlySet<string> = new Set(["rule", "rule_error", "default", "port"]);

/** Says what records leave out, where that alone can explain the difference. */
function differenceNote({ verdict, reason }: Decision, then: Walk | null): string[] {
  const last = then?.steps.at(-1);
  if (last === undefined || !BY_RULES.has(reason)) return [];
  if (last.verdict.allowed === (verdict === "allow")) return [];
  return [
    "Judged again, the same rules say otherwise: what records never hold (headers, sizes, arguments) made the difference.",
  ];
}

/**
 * Explains a decision.
 * @param current The rules in force.
 * @param recorded Other decisions, to tell what a proposed rule would also have let pass.
 */
export function explainDecision(
  decision: Decision,
  history: PolicyHistory,
  current: Policy,
  recorded: Iterable<Decision>,
): DecisionExplanation {
  const steps = walkOf(decision);
  const wasAsked = decision.generation > 0 && steps.length > 0;
  const data = wasAsked ? history.at(decision.generation, Date.parse(decision.time)) : null;
  const policy = data === null ? null : data === current.data ? current : buildPolicy(data);
  const rules = wasAsked ? rulesSince(policy, current) : "not_asked";
  const then = policy === null
    ? null
    : { generation: policy.generation, steps: explainEach(policy, steps) };
  const now = rules === "changed" || rules === "forgotten"
    ? { generation: current.generation, steps: explainEach(current, steps) }
    : null;
  const isRuleQuestion = decision.reason === "observed" ||
    (decision.verdict === "block" && BY_RULES.has(decision.reason));
  const proposals = isRuleQuestion ? propose(current, decision, recorded) : [];
  return {
    decision,
    meaning: meaningOf(decision.reason),
    rules,
    then,
    now,
    advice: [
      ...differenceNote(decision, then),
      ...adviceFor({
        decision,
        now: (now ?? then)?.steps ?? [],
        hasProposals: proposals.length > 0,
        isBlockedInFront: proposals.some(({ inFront }) => inFront !== null),
      }),
    ],
    proposals,
  };
}
