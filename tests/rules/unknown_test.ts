/** Evaluation with facts missing: what is certain stays certain, what is impossible stays impossible. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { decide } from "../../lib/rules/decide.ts";
import { FACT_NAMES, type FactName, PENDING_FACTS } from "../../lib/rules/language.ts";
import {
  CAN_BE_FALSE,
  CAN_BE_TRUE,
  FAILED,
  FALSE,
  type Outcome,
  TRUE,
  UNKNOWN_NEVER,
  UNKNOWN_PENDING,
} from "../../lib/rules/outcome.ts";
import type { Facts, Layer } from "../../lib/rules/types.ts";
import { SEED } from "../random.ts";
import { completeFacts, condition, ruleCondition } from "./generate.ts";
import { conditionOf, policyOf } from "./support.ts";

/** `facts` without those of `names`. */
function without(facts: Facts, names: readonly FactName[]): Facts {
  const result: Record<string, Record<string, unknown>> = {};
  for (const [namespace, fields] of Object.entries(facts)) {
    const kept = Object.entries(fields).filter(([field]) =>
      !names.some((name) => name === `${namespace}.${field}`)
    );
    result[namespace] = Object.fromEntries(kept);
  }
  return result;
}

const missingFacts = fc.oneof(
  fc.subarray([...FACT_NAMES]),
  fc.subarray([...PENDING_FACTS.dns], { minLength: 4 }),
);
const layer = fc.constantFrom<Layer>("dns", "connect", "http", "dial", "agent");

Deno.test("an outcome that is certain does not change when missing facts become known", () => {
  let certain = 0;
  fc.assert(
    fc.property(condition, completeFacts, missingFacts, layer, (text, facts, missing, at) => {
      const evaluate = conditionOf(text);
      if (evaluate === null) return;
      const partial = evaluate(without(facts, missing), at);
      if (partial !== TRUE && partial !== FALSE && partial !== FAILED) return;
      certain++;
      assert.equal(evaluate(facts, at), partial, `${text} without ${missing.join()}`);
    }),
    { numRuns: 5000, seed: SEED },
  );
  assert.ok(certain > 500);
});

Deno.test("what cannot become true or false by the facts that are pending does not", () => {
  let open = 0;
  fc.assert(
    fc.property(condition, completeFacts, missingFacts, layer, (text, facts, missing, at) => {
      const evaluate = conditionOf(text);
      if (evaluate === null) return;
      const partial = evaluate(without(facts, missing), at);
      const neverComing = missing.filter((name) => !PENDING_FACTS[at].has(name));
      const later = evaluate(without(facts, neverComing), at);
      if (later === TRUE) assert.notEqual(partial & CAN_BE_TRUE, 0, text);
      if (later === FALSE) assert.notEqual(partial & CAN_BE_FALSE, 0, text);
      if (partial !== later && (later === TRUE || later === FALSE)) open++;
    }),
    { numRuns: 5000, seed: SEED },
  );
  assert.ok(open > 50);
});

Deno.test("what is dialled with a body of unknown length would be with any (property)", () => {
  const about = fc.constantFrom(
    "http.body_size == 3",
    "http.body_size > 1 && http.body_size < 4",
    "10 / (http.body_size - 2) > 1",
    "http.body_size < 9",
    "true",
  );
  const rule = fc.record({
    condition: fc.tuple(about, ruleCondition, fc.boolean())
      .map(([size, other, isBoth]) => `(${size}) ${isBoth ? "&&" : "||"} (${other})`),
    action: fc.constantFrom("allow" as const, "block" as const),
  });
  let dialled = 0;
  fc.assert(
    fc.property(
      fc.array(rule, { maxLength: 4 }),
      completeFacts,
      (rules, { run: _run, ...facts }) => {
        const policy = policyOf(...rules, { condition: "http.host != 'y.org'" });
        const judged = (body_size: number | null): boolean =>
          decide(policy, "dial", { ...facts, http: { ...facts.http, body_size } }).allowed;
        if (!judged(null)) return;
        dialled++;
        for (let size = 0; size < 10; size++) assert.ok(judged(size), `${size} bytes`);
      },
    ),
    { numRuns: 2000, seed: SEED },
  );
  assert.ok(dialled > 100, `${dialled}`);
});

const KLEENE: readonly (readonly [string, number])[] = [
  ["true || http.path == '/'", TRUE],
  ["http.path == '/' || true", TRUE],
  ["false && http.path == '/'", FALSE],
  ["http.path == '/' && false", FALSE],
  ["!(http.path == '/')", UNKNOWN_PENDING],
  ["http.path == '/' && run.cwd == '/'", UNKNOWN_NEVER | CAN_BE_FALSE],
  ["http.path == '/' || run.cwd == '/'", UNKNOWN_NEVER | CAN_BE_TRUE],
  ["run.cwd == '/'", UNKNOWN_NEVER],
  ["!(run.cwd == '/')", UNKNOWN_NEVER],
  ["http.path + run.cwd == '/'", UNKNOWN_NEVER],
  ["http.path in ['/', run.cwd]", UNKNOWN_NEVER],
  ["http.path.startsWith('/a')", UNKNOWN_PENDING],
  ["http.headers.exists(k, k == 'a')", UNKNOWN_PENDING],
  ["['a', 'b'].exists(x, http.path == x)", UNKNOWN_PENDING],
  ["['a', 'b'].exists_one(x, http.path == x)", UNKNOWN_PENDING],
  ["[].all(x, http.path == '/')", TRUE],
  ["['a'].all(x, x == 'b' && http.path == '/')", FALSE],
  ["has(http.headers.a)", UNKNOWN_PENDING],
  ["has(run.context.a)", UNKNOWN_NEVER],
  ["1 / 0 == 1", FAILED],
  ["1 / 0 == 1 || true", TRUE],
  ["1 / 0 == 1 && false", FALSE],
  ["1 / 0 == 1 || http.path == '/'", UNKNOWN_NEVER | CAN_BE_TRUE],
  ["1 / 0 == 1 && http.path == '/'", UNKNOWN_NEVER | CAN_BE_FALSE],
  ["http.path.size() / 0 == 1", UNKNOWN_PENDING],
];
const WORDS: ReadonlyMap<Outcome, string> = new Map([
  [TRUE, "true"],
  [FALSE, "false"],
  [FAILED, "a failure"],
  [UNKNOWN_PENDING, "unknown yet"],
  [UNKNOWN_NEVER, "unknown for ever"],
  [UNKNOWN_NEVER | CAN_BE_TRUE, "unknown, and may only come true"],
  [UNKNOWN_NEVER | CAN_BE_FALSE, "unknown, and may only come false"],
]);
for (const [text, outcome] of KLEENE) {
  Deno.test(`at the DNS layer, ${text} is ${WORDS.get(outcome)} (three-valued logic)`, () => {
    assert.equal(conditionOf(text)?.({ network: { hostname: "x.org" } }, "dns"), outcome);
  });
}
