/** Requests that are alike to the rules get the same verdict, so that one of them stands for all. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { decide } from "../../lib/rules/decide.ts";
import { RequestReads } from "../../lib/rules/reads.ts";
import type { Facts } from "../../lib/rules/types.ts";
import { SEED } from "../random.ts";
import { completeFacts, ruleCondition } from "./generate.ts";
import { policyOf } from "./support.ts";

/** Rules as people write them about headers, and any others. */
const text = fc.oneof(
  fc.constantFrom(
    '"a" in http.headers && http.headers["a"] == "ab"',
    'has(http.headers.b) && http.headers.b == "a"',
    'http.headers.b != "a"',
    'http.headers[http.path.substring(1)] == "a"',
    'http.headers.exists(k, k == "x-y")',
    'http.headers.filter(k, k != "a")[0] == "b"',
    'http.path.startsWith("/a")',
    "http.body_size > 2",
    'http.host == "x.org"',
  ),
  ruleCondition,
);

/** What may differ between the readings of one request; now and then the headers are too large. */
const variant = fc.record({
  path: fc.constantFrom("/", "/a", "/b"),
  body_size: fc.constantFrom(0, 5),
  headers: fc.oneof(
    {
      weight: 5,
      arbitrary: fc.dictionary(fc.constantFrom("a", "b", "x-y"), fc.constantFrom("a", "ab")),
    },
    { weight: 1, arbitrary: fc.constant({ a: "ab", z: "z".repeat(20_000) }) },
  ),
});

function requestsOf(
  facts: Facts,
  variants: readonly NonNullable<Facts["http"]>[],
): { facts: Facts }[] {
  return variants.map((each) => ({ facts: { ...facts, http: { ...facts.http, ...each } } }));
}

Deno.test("requests that the rules cannot tell apart get the same verdict (property)", () => {
  let alike = 0;
  fc.assert(
    fc.property(
      fc.array(text, { maxLength: 4 }),
      completeFacts,
      variant,
      variant,
      (texts, facts, a, b) => {
        const policy = policyOf(
          ...texts.map((condition, i) => ({
            condition,
            action: i % 2 === 0 ? "block" as const : "allow" as const,
          })),
        );
        const requests = requestsOf(facts, [a, b]);
        const reads = new RequestReads(policy.rules.map(({ expr }) => expr));
        if (reads.distinct(requests).length > 1) return;
        alike++;
        const verdicts = requests.map((each) => decide(policy, "http", each.facts));
        assert.deepEqual(verdicts[0], verdicts[1]);
      },
    ),
    { numRuns: 3000, seed: SEED },
  );
  assert.ok(alike > 300, `${alike} pairs were alike: too few to show anything`);
});

Deno.test("a request stands for those alone that differ in what no rule looks at", () => {
  const facts: Facts = { http: { host: "x.org", method: "GET" } };
  const large = { a: "1", z: "z".repeat(20_000) };
  const requests = requestsOf(
    facts,
    [{ a: "1" }, { a: "1", b: "2" }, { a: "2" }, large].flatMap((headers) =>
      ["/", "/x"].flatMap((path) => [0, 1].map((body_size) => ({ headers, path, body_size })))
    ),
  );
  const kept = (...conditions: string[]): number[] => {
    const { rules } = policyOf(...conditions.map((condition) => ({ condition })));
    const distinct = new RequestReads(rules.map(({ expr }) => expr)).distinct(requests);
    return distinct.map((each) => requests.indexOf(each));
  };
  assert.deepEqual(kept('http.host == "x.org"'), [0]);
  assert.deepEqual(kept('http.path == "/x"'), [0, 2]);
  assert.deepEqual(kept('http.path == "/x"', "http.body_size > 0"), [0, 1, 2, 3]);
  assert.deepEqual(kept('http.headers.a == "1"'), [0, 8, 12], "too large is no header's value");
  assert.deepEqual(kept('"b" in http.headers || has(http.headers.b)'), [0, 4, 12]);
  assert.deepEqual(kept('http.headers.exists(k, k == "a")'), [0, 4, 8, 12]);
  assert.deepEqual(kept("true").length, 1);
  assert.equal(kept("http.headers.size() > 1 && http.body_size > 0 && http.path > ''").length, 16);
});
