import assert from "node:assert/strict";
import fc from "fast-check";
import { RE2JS } from "re2js";
import { compilePattern, PatternBudget, PatternError } from "../../lib/rules/pattern.ts";
import { SEED } from "../random.ts";

const ATOMS = [
  "a",
  "b",
  "c",
  ".",
  "[ab]",
  "[^a]",
  "\\b",
  "\\B",
  "^",
  "$",
  "\\w",
  "\\d",
  "\\s",
  "(?:ab|c)",
  "(a|b)",
  "é",
  "[à-ü]",
  "\\n",
  "(?i:k)",
  "(?i:S)",
  "\\pL",
  "(?m:^)",
  "(?m:$)",
  "\\A",
  "\\z",
  "(?s:.)",
  "𝒳",
];
const REPEATS = ["", "", "", "*", "+", "?", "{2}", "{1,3}", "*?", "{0,2}"];
const CHARACTERS = [
  "a",
  "b",
  "c",
  " ",
  "\n",
  "é",
  "ü",
  "K",
  "\u212a",
  "s",
  "ſ",
  "1",
  "_",
  "𝒳",
  "\ud800",
];

const piece = fc.tuple(fc.constantFrom(...ATOMS), fc.constantFrom(...REPEATS)).map((each) =>
  each.join("")
);
const sequence = fc.array(piece, { minLength: 1, maxLength: 4 }).map((each) => each.join(""));
const pattern = fc.oneof(
  sequence,
  fc.tuple(sequence, sequence, fc.constantFrom(...REPEATS)).map(([a, b, r]) => `(${a}|${b})${r}`),
  fc.tuple(sequence, sequence, sequence).map(([a, b, c]) => `${a}(${b}|${c})*`),
);
const text = fc.array(fc.constantFrom(...CHARACTERS), { maxLength: 10 }).map((each) =>
  each.join("")
);

function tryCompile<T>(compile: () => T): T | null {
  try {
    return compile();
  } catch {
    return null;
  }
}

Deno.test("a pattern is found where RE2JS finds it", () => {
  let compared = 0;
  fc.assert(
    fc.property(pattern, fc.array(text, { minLength: 8, maxLength: 8 }), (source, texts) => {
      const theirs = tryCompile(() => RE2JS.compile(source));
      const ours = tryCompile(() => compilePattern(source));
      assert.ok(ours === null || theirs !== null);
      if (ours === null || theirs === null) return;
      for (const each of texts) {
        assert.equal(ours.test(each), theirs.test(each), JSON.stringify([source, each]));
        compared++;
      }
    }),
    { numRuns: 4000, seed: SEED },
  );
  assert.ok(compared > 20_000);
});

Deno.test("patterns that make other engines explode are compiled or refused, and answer at once", () => {
  const hostile = `${"a".repeat(8000)}!`;
  for (
    const source of ["^(a+)+$", "(a|a)*b", "(a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(x+x+)+y"]
  ) {
    assert.equal(compilePattern(source).test(hostile), false);
  }
});

const REFUSED: readonly (readonly [string, string])[] = [
  ["(", "missing closing ): `(`"],
  ["a**", "invalid nested repetition operator: `**`"],
  ["(?=a)", "invalid or unsupported Perl syntax: `(?=`"],
  ["(?<=a)b", "invalid named capture: `(?<=a)b`"],
  ["(a)\\1", "invalid escape sequence: `\\1`"],
  ["a{2000}", "invalid repeat count: `{2000}`"],
  ["[ab]*a[ab]{40}[cd]", "repetitions such as {n,m} and (a|b)* multiply to too much"],
  ["(?i)é", "'É' cannot be case-insensitive"],
  ["a".repeat(1025), "it is longer than 1024 characters"],
];
for (const [source, message] of REFUSED) {
  Deno.test(`compilePattern() refuses ${source.slice(0, 20)}: ${message}`, () => {
    assert.throws(() => compilePattern(source), (thrown) => {
      assert.ok(thrown instanceof PatternError);
      assert.equal(thrown.message, message);
      assert.notEqual(thrown.hint, "");
      return true;
    });
  });
}

Deno.test("a set of patterns that are each acceptable is refused when together they are not", () => {
  const budget = new PatternBudget();
  assert.throws(() => {
    for (let i = 0; i < 1000; i++) compilePattern(`[ab]*a[ab]{7}[c${i}]`, budget);
  }, PatternError);
});
