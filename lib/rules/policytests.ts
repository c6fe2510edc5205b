/**
 * Policy tests: requests with the verdicts their author expects, kept beside the rules. A set whose own
 * tests fail is not loaded.
 */
import { judge } from "./answer.ts";
import type { Diagnostic, Source, Span } from "./diagnostic.ts";
import type { Policy } from "./policy.ts";
import { type RequestSpec, stepsOf } from "./request.ts";
import type { Layer } from "./types.ts";

/** One test. */
export interface PolicyTest {
  readonly name: string;
  /** Where it is written. */
  readonly source: Source;
  readonly span: Span;
  readonly request: RequestSpec;
  readonly expect: "allow" | "block";
  /** The rule that should decide; null: any. */
  readonly rule: string | null;
}

/** What became of a test. */
export interface TestResult {
  readonly name: string;
  readonly expect: "allow" | "block";
  readonly verdict: "allow" | "block";
  /** The layer that decided: the last one asked. */
  readonly layer: Layer | null;
  /** The rule that decided. */
  readonly rule: string | null;
  /** What is wrong; null when the test passed. */
  readonly failure: Diagnostic | null;
}

/** How a test without a name is called. */
export function nameOf(request: RequestSpec): string {
  const { url, dns, connect, direct, tool, agent } = request;
  const what = url !== undefined
    ? `${request.method ?? "GET"} ${url}${bodyText(request)}`
    : dns !== undefined
    ? `DNS ${dns}`
    : connect !== undefined
    ? `CONNECT ${connect}`
    : direct !== undefined
    ? `direct ${direct}`
    : [tool, ...request.args ?? []].join(" ");
  return agent === undefined ? what : `${what} by ${agent}`;
}

function bodyText({ body_size }: RequestSpec): string {
  return body_size === undefined ? "" : ` with ${body_size} bytes`;
}

function failureText(
  test: PolicyTest,
  found: Pick<TestResult, "verdict" | "layer" | "rule">,
): string | null {
  const by = found.rule === null ? "no rule" : `rule '${found.rule}'`;
  const at = found.layer === null ? "" : ` at layer ${found.layer}`;
  if (found.verdict !== test.expect) {
    return `test '${test.name}' expects ${test.expect}, and the answer is ${found.verdict}${at} (${by})`;
  }
  if (test.rule !== null && found.rule !== test.rule) {
    return `test '${test.name}' expects rule '${test.rule}', and ${by} decided${at}`;
  }
  return null;
}

function runTest(policy: Policy, test: PolicyTest): TestResult {
  const steps = stepsOf(test.request);
  const answer = judge(policy, steps.ok ? steps.steps : []);
  const last = answer.steps.at(-1);
  const found = {
    verdict: answer.allowed ? "allow" as const : "block" as const,
    layer: last?.layer ?? null,
    rule: last?.verdict.rule?.id ?? null,
  };
  const message = steps.ok ? failureText(test, found) : steps.message;
  const failure = message === null ? null : test.source.diagnostic("error", test.span, {
    code: "rules.test_failed",
    message,
    hint: "Correct the rules or the test; `outcall rules explain` shows why.",
  });
  return { name: test.name, expect: test.expect, ...found, failure };
}

/** Runs policy tests; a result's `failure` says what is wrong. */
export function runPolicyTests(policy: Policy, tests: readonly PolicyTest[]): TestResult[] {
  return tests.map((test) => runTest(policy, test));
}
