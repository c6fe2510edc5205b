/**
 * With every fact known, our evaluator means what the CEL library means: same truth, same failures.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { celEnvironment } from "../../lib/rules/environment.ts";
import { FAILED, FALSE, type Outcome, TRUE } from "../../lib/rules/outcome.ts";
import type { Facts } from "../../lib/rules/types.ts";
import { SEED } from "../random.ts";
import { completeFacts, condition } from "./generate.ts";
import { conditionOf } from "./support.ts";

const CASES = 12_000;

const environment = celEnvironment();

/** The library's ints are bigints. */
function contextOf(facts: Required<Facts>): Record<string, unknown> {
  return {
    ...facts,
    network: { ...facts.network, port: BigInt(facts.network.port ?? 0) },
    http: { ...facts.http, body_size: BigInt(facts.http.body_size ?? 0) },
  };
}

function theirs(text: string, facts: Required<Facts>): Outcome {
  try {
    const value: unknown = environment.evaluate(text, contextOf(facts));
    return value === true ? TRUE : value === false ? FALSE : FAILED;
  } catch {
    return FAILED;
  }
}

Deno.test("evaluation agrees with the CEL library when every fact is known", () => {
  const seen: Record<Outcome, number> = {};
  let cases = 0;
  const check = (text: string, facts: Required<Facts>): void => {
    const evaluate = conditionOf(text);
    assert.equal(evaluate !== null, environment.check(text).valid, text);
    if (evaluate === null) return;
    cases++;
    const ours = evaluate(facts);
    assert.equal(ours, theirs(text, facts), text);
    seen[ours] = (seen[ours] ?? 0) + 1;
  };
  fc.assert(fc.property(condition, completeFacts, check), { numRuns: CASES, seed: SEED });
  assert.ok(cases >= 10_000, `${cases} of ${CASES} were well typed`);
  // Cases that all end alike would prove nothing.
  for (const outcome of [TRUE, FALSE, FAILED]) {
    assert.ok((seen[outcome] ?? 0) > 500, String(outcome));
  }
});
