/** What a policy says to a whole request: the first layer that blocks, or a yes from all of them. */
import { decide } from "./decide.ts";
import type { Policy } from "./policy.ts";
import { type RequestSpec, type Step, stepsOf } from "./request.ts";
import { DEFAULT_BODY_BYTES, type Facts, type Verdict } from "./types.ts";

/** One layer's verdict on a request. */
export interface JudgedStep extends Step {
  readonly verdict: Verdict;
}

/** The whole answer. */
export interface Answer {
  readonly allowed: boolean;
  /** The layers asked, in order; the last one blocks unless `allowed`. */
  readonly steps: readonly JudgedStep[];
}

/** The verdict, unless the body is longer than the rule admits that allows it. */
function withBodyLimit(verdict: Verdict, { http }: Facts): Verdict {
  const { maxBodyBytes = DEFAULT_BODY_BYTES } = verdict.egress ?? {};
  const isTooLong = (http?.body_size ?? 0) > maxBodyBytes;
  return verdict.allowed && isTooLong
    ? { ...verdict, allowed: false, reason: "limit", egress: null }
    : verdict;
}

/** Asks the layers in order and stops at the first that blocks, as a real request does. */
export function judge(policy: Policy, steps: readonly Step[]): Answer {
  const judged: JudgedStep[] = [];
  for (const [i, step] of steps.entries()) {
    const decided = decide(policy, step.layer, step.facts);
    // The body's limit is that of the rule which admits the address, where one is known.
    const verdict = i === steps.length - 1 ? withBodyLimit(decided, step.facts) : decided;
    judged.push({ ...step, verdict });
    if (!verdict.allowed) return { allowed: false, steps: judged };
  }
  return { allowed: judged.length > 0, steps: judged };
}

/**
 * What a policy says to `spec`, or what is wrong with `spec`.
 * @param agent Who asks, where more is known of it than its name.
 */
export function answer(
  policy: Policy,
  spec: RequestSpec,
  agent?: Facts["agent"],
): { readonly ok: true; readonly answer: Answer } | {
  readonly ok: false;
  readonly message: string;
} {
  const steps = stepsOf(spec);
  if (!steps.ok) return steps;
  const asked = agent === undefined
    ? steps.steps
    : steps.steps.map((step) => ({ ...step, facts: { ...step.facts, agent } }));
  return { ok: true, answer: judge(policy, asked) };
}
