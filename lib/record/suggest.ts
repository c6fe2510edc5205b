/**
 * From what an agent did to the smallest readable rules that cover it: what an observed run becomes
 * before it is enforced. Nothing is suggested that was not compiled, tested and asked.
 */
import type { Decision } from "../decision.ts";
import { OutcallError } from "../errors.ts";
import { printable } from "../printable.ts";
import { judge } from "../rules/answer.ts";
import { compilePolicy } from "../rules/compile.ts";
import { draftText, literal } from "../rules/draft.ts";
import { buildPolicy, type Policy } from "../rules/policy.ts";
import { isAdmitted } from "../rules/propose.ts";
import { type RequestSpec, stepsOf } from "../rules/request.ts";
import {
  Attempts,
  type NotCovered,
  REFUSED,
  type SuggestionRequest,
} from "./suggestion/attempts.ts";
import { attemptsText, Author, type Part } from "./suggestion/author.ts";
import { neighbours, requestOf, type Test, testText } from "./suggestion/tests.ts";

export type { NotCovered, SuggestionRequest };

/** Kinds that are told in one comment. */
const MAX_TOLD = 12;

/** A suggestion. */
export interface Suggestion {
  /** A rule file with its tests. */
  readonly file: string;
  readonly rules: number;
  readonly tests: number;
  /** Attempts that the rules cover. */
  readonly covered: number;
  readonly notCovered: readonly NotCovered[];
}

function fileText(
  header: readonly string[],
  parts: readonly Part[],
  tests: readonly Test[],
): string {
  const comment = (indent: string, text: string): string => `${indent}# ${printable(text)}`;
  const isNegative = ({ expect }: Test): boolean => expect === "block";
  return [
    ...header.map((line) => comment("", line)),
    'version: "1"',
    "rules:",
    ...parts.flatMap(({ draft, comments }) => [
      ...comments.map((text) => comment("  ", text)),
      draftText(draft),
    ]),
    ...(tests.length === 0 ? [] : [
      "tests:",
      comment("  ", "what was seen"),
      ...tests.filter((test) => !isNegative(test)).map(testText),
      comment("  ", "what must stay blocked"),
      ...tests.filter(isNegative).map(testText),
    ]),
    "",
  ].join("\n");
}

/** The rules of a file; what is wrong with them is a defect of ours. */
function compiledRules(text: string): Policy {
  const result = compilePolicy([{ path: "suggestion.yaml", text }], { generation: 0 });
  if (result.ok) return result.policy;
  const [first] = result.errors;
  throw new OutcallError(
    500,
    "suggest.unproven",
    `the suggestion does not hold: line ${first?.line ?? 1}: ${first?.message ?? "unknown"}`,
  );
}

/** The rules in force with those of a suggestion, as if its file were the last one. */
function together(policy: Policy, suggestion: Policy): Policy {
  const isEarly = ({ priority }: { readonly priority: number }): boolean => priority <= 100;
  const { rules } = policy.data;
  return buildPolicy({
    generation: 0,
    rules: [
      ...rules.filter(isEarly),
      ...suggestion.data.rules,
      ...rules.filter((rule) => !isEarly(rule)),
    ],
  });
}

function isBlocked(policy: Policy, request: RequestSpec): boolean {
  const steps = stepsOf(request);
  return steps.ok && !judge(policy, steps.steps).allowed;
}

/**
 * Suggests rules for what an agent was seen to do.
 * @param policy The rules in force: what they allow needs no other rule.
 * @param recorded What was recorded in the time that is meant.
 * @throws OutcallError `suggest.nothing` (404) when there is nothing to cover.
 */
export function suggest(
  policy: Policy,
  recorded: Iterable<Decision>,
  request: SuggestionRequest,
): Suggestion {
  const { agent } = request;
  const attempts = new Attempts(policy, recorded, request);
  if (attempts.kinds.size === 0) throw nothing(request, attempts);
  const draft = compiledRules(fileText([], new Author(agent, attempts, policy).parts, []));
  const drafted = together(policy, draft);
  for (const [key, { steps, text, count }] of attempts.kinds) {
    if (isAdmitted(drafted, steps)) continue;
    attempts.kinds.delete(key);
    attempts.leave(text, count, "a block rule, or a restriction of addresses, comes first");
  }
  if (attempts.kinds.size === 0) throw nothing(request, attempts);
  const { parts } = new Author(agent, attempts, policy);
  const alone = compiledRules(fileText([], parts, []));
  const all = together(policy, alone);
  const kinds = [...attempts.kinds.values()];
  const tests: Test[] = [
    ...kinds.flatMap(({ subject }) => {
      const spec = requestOf(agent, subject);
      // With an address in place of a name a block rule on addresses may speak up already.
      return spec === null || isBlocked(alone, spec) || isBlocked(all, spec)
        ? []
        : [{ request: spec, expect: "allow" as const }];
    }),
    ...neighbours(agent, kinds)
      .filter((spec) => isBlocked(alone, spec) && isBlocked(all, spec))
      .map((spec) => ({ request: spec, expect: "block" as const })),
  ];
  const covered = kinds.reduce((sum, { count }) => sum + count, 0);
  const notCovered = attempts.left;
  const file = fileText(header(request, covered, kinds.length, notCovered), parts, tests);
  compiledRules(file);
  return { file, rules: parts.length, tests: tests.length, covered, notCovered };
}

function nothing({ agent, includeBlocked }: SuggestionRequest, { left }: Attempts): OutcallError {
  const refused = left.filter(({ why }) => why === REFUSED)
    .reduce((sum, { count }) => sum + count, 0);
  return new OutcallError(
    404,
    "suggest.nothing",
    `nothing to suggest: no attempt of agent "${agent}" in that time was ${
      includeBlocked ? "without a rule" : "observed"
    }`,
    {
      hint: refused > 0
        ? `${attemptsText(refused)} without a rule were refused: --blocked covers them.`
        : "Run the agent with --observe, or give a longer --since.",
    },
  );
}

function header(
  { agent }: SuggestionRequest,
  covered: number,
  kinds: number,
  notCovered: readonly NotCovered[],
): string[] {
  const rest = notCovered.length - MAX_TOLD;
  return [
    `Suggested from ${attemptsText(covered)} of ${kinds} kind${kinds === 1 ? "" : "s"} by agent ${
      literal(agent)
    }.`,
    "Read it, and narrow what is too wide; then: outcall rules check, outcall rules diff.",
    ...(notCovered.length === 0 ? [] : ["Not covered:"]),
    ...notCovered.slice(0, MAX_TOLD).map(({ attempt, count, why }) =>
      `  ${count} x ${attempt}: ${why}`
    ),
    ...(rest > 0 ? [`  and ${rest} more kinds`] : []),
  ];
}
