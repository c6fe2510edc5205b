/** The endpoints about rules, and what the engine says as it is sent. */
import type { z } from "zod";
import { OutcallError } from "../errors.ts";
import { formatDiagnostic } from "../rules/diagnostic.ts";
import type { Flip, TestFlip } from "../rules/diff.ts";
import type { ExplainedStep } from "../rules/explain.ts";
import { testExpression } from "../rules/expression.ts";
import { nameOf } from "../rules/policytests.ts";
import type { RuleRef, Verdict } from "../rules/types.ts";
import { act, show } from "./endpoint.ts";
import { success } from "./envelope.ts";
import { evaluateRequest, explainRequest, expressionRequest, layerOf } from "./facts.ts";
import { nothing } from "./parse.ts";
import type {
  DiffResult,
  EvaluateResult,
  ExplainResult,
  ExplainStep,
  ExpressionReply,
  TestOutcome,
} from "./replies.ts";
import { readBody, readQuery, type Route } from "./router.ts";
import { DIFF_MAX_BODY_BYTES, diffRequest } from "./schemas.ts";
import type { HostServices, PolicyDiffResult } from "./services.ts";

/** The rule that decided, as it is sent. */
export function ruleFields(
  rule: RuleRef | null,
): Pick<EvaluateResult, "matched_rule" | "file" | "line"> {
  return {
    matched_rule: rule?.id ?? null,
    file: rule?.file ?? null,
    line: rule?.line ?? null,
  };
}

/** A verdict as it is sent. */
export function evaluation({ allowed, reason, rule }: Verdict): EvaluateResult {
  return { decision: allowed ? "allow" : "block", reason, ...ruleFields(rule) };
}

/** The endpoints over `policy`; recorded decisions are what a candidate set is tried on. */
export function ruleRoutes({ policy, decisions }: HostServices): Route[] {
  return [
    show("/api/v1/rules", () => ({ rules: policy.list() })),
    show("/api/v1/rules/counters", () => ({ rules: policy.counters() })),
    {
      method: "GET",
      path: "/api/v1/rule/:id",
      handle: (c) => {
        readQuery(c, nothing);
        const id = c.req.param("id") ?? "";
        const rule = policy.find(id);
        if (rule === undefined) {
          throw new OutcallError(404, "rules.not_found", `rule not found: "${id}"`, {
            hint: "`outcall rules list` shows the rules in force.",
          });
        }
        return c.json(success(rule));
      },
    },
    act("/api/v1/rules/reload", async (c) => c.json(success(await policy.reload()))),
    ask(
      "/api/v1/rule/evaluate",
      evaluateRequest,
      ({ context, layer }) => evaluation(policy.evaluate(layer ?? layerOf(context), context)),
    ),
    ask("/api/v1/rule/test", expressionRequest, ({ expression, context }): ExpressionReply => {
      const { result, error, outcome, missing, diagnostic } = testExpression(expression, context);
      const report = diagnostic === null ? null : formatDiagnostic(diagnostic);
      return { result, error, outcome, missing, report };
    }),
    ask("/api/v1/rules/explain", explainRequest, (request): ExplainResult => {
      const explanation = policy.explain(request);
      if (!explanation.ok) throw new OutcallError(422, "request.invalid", explanation.message);
      return {
        request: nameOf(request),
        decision: explanation.allowed ? "allow" : "block",
        steps: explanation.steps.map(stepReply),
      };
    }),
    ask(
      "/api/v1/rules/diff",
      diffRequest,
      ({ files }) => diffReply(policy.diff(files, decisions.recent())),
      DIFF_MAX_BODY_BYTES,
    ),
  ];
}

/** A question that needs a body: changes nothing. */
function ask<S extends z.ZodType>(
  path: string,
  schema: S,
  answer: (question: z.output<S>) => object,
  maxBytes?: number,
): Route {
  return {
    method: "POST",
    path,
    handle: async (c) => {
      readQuery(c, nothing);
      return c.json(success(answer(await readBody(c, schema, maxBytes))));
    },
  };
}

/** What a layer says, as it is sent. */
export function stepReply({ layer, facts, verdict, rule, nearest }: ExplainedStep): ExplainStep {
  return {
    layer,
    decision: verdict.allowed ? "allow" : "block",
    reason: verdict.reason,
    facts,
    error: verdict.failures?.find(({ id }) => id === verdict.rule?.id)?.message ?? null,
    rule,
    nearest,
  };
}

function diffReply({ rules, decisions, tests }: PolicyDiffResult): DiffResult {
  return {
    rules,
    decisions: { examined: decisions.examined, flips: decisions.flips.map(flipReply) },
    tests: { examined: tests.examined, flips: tests.flips.map(testFlipReply) },
  };
}

function flipReply(
  { layer, facts, count, before, after }: Flip,
): DiffResult["decisions"]["flips"][number] {
  return {
    layer,
    agent: facts.agent?.name ?? "",
    host: facts.network?.hostname ?? null,
    address: facts.network?.ip ?? null,
    port: facts.network?.port ?? null,
    method: facts.http?.method ?? null,
    path: facts.http?.path ?? null,
    record_type: facts.dns?.record_type ?? null,
    count,
    before: evaluation(before),
    after: evaluation(after),
  };
}

function testFlipReply({ name, before, after }: TestFlip): DiffResult["tests"]["flips"][number] {
  const reply = ({ allowed, steps }: TestFlip["before"]): TestOutcome => {
    const last = steps.at(-1);
    return {
      decision: allowed ? "allow" : "block",
      layer: last?.layer ?? null,
      matched_rule: last?.verdict.rule?.id ?? null,
    };
  };
  return { name, before: reply(before), after: reply(after) };
}
