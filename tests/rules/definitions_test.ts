import assert from "node:assert/strict";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { LIMITS } from "../../lib/rules/limits.ts";
import { compileFiles } from "./support.ts";

interface FileSpec {
  readonly definitions?: Readonly<Record<string, string>>;
  readonly conditions: readonly string[];
}

function fileText({ definitions, conditions }: FileSpec): string {
  return JSON.stringify({
    version: "1",
    ...(definitions === undefined ? {} : { definitions }),
    rules: conditions.map((condition, i) => ({ id: `r${i}`, condition, action: "allow" })),
  });
}

/** The first condition with its definitions expanded. */
function expanded(spec: FileSpec): string | undefined {
  return compileFiles({ "a.yaml": fileText(spec) }).rules[0]?.condition;
}

/** Codes of the errors in `spec`. */
function codes(spec: FileSpec): string[] {
  const result = compilePolicy([{ path: "a.yaml", text: fileText(spec) }], { generation: 1 });
  return result.ok ? [] : result.errors.map(({ code }) => code);
}

Deno.test("$name stands for its definition in parentheses (S003-AS-005)", () => {
  const spec = {
    definitions: { is_github: 'http.host == "github.com"' },
    conditions: ['$is_github && http.path.startsWith("/api/v3")'],
  };
  assert.equal(
    expanded(spec),
    '(http.host == "github.com") && http.path.startsWith("/api/v3")',
  );
});

Deno.test("definitions may use definitions, in any order (S003-FR-006.a)", () => {
  const definitions = { c: "$b || $a", a: "true", b: "!$a" };
  assert.equal(expanded({ definitions, conditions: ["$c"] }), "((!(true)) || (true))");
});

Deno.test("$name in a text literal or comment is left alone", () => {
  const definitions = { a: "true" };
  for (
    const condition of [
      'http.path == "$a" && $a',
      "http.path == '$a' && $a",
      'http.path == "\\"$a" && $a',
      'http.path == r"$a" && $a',
      'http.path == """a"$a""" && $a',
    ]
  ) {
    const result = expanded({ definitions, conditions: [condition] });
    assert.equal(result, condition.replace(/\$a$/, "(true)"));
  }
  const commented = expanded({ definitions, conditions: ["// $b is gone\n$a // $b too"] });
  assert.equal(commented, "(true)");
});

Deno.test("a comment at a definition's end does not swallow what follows its use", () => {
  const definitions = { a: "// why\nfalse // really" };
  assert.equal(
    expanded({ definitions, conditions: ["$a || true"] })?.replace(/\s+/g, " "),
    "(false ) || true",
  );
});

Deno.test("a definition is visible in its own file alone (S003-FR-006.d)", () => {
  const result = compilePolicy([
    { path: "a.yaml", text: fileText({ definitions: { a: "true" }, conditions: ["$a"] }) },
    { path: "b.yaml", text: fileText({ conditions: ["$a"] }).replace("r0", "r9") },
  ], { generation: 1 });
  assert.ok(!result.ok);
  assert.deepEqual(result.errors.map(({ file, code }) => [file, code]), [
    ["b.yaml", "rules.undefined_definition"],
  ]);
});

Deno.test("an error in a definition is told once, however often it is used", () => {
  const spec = {
    definitions: { bad: "http.hots == 1", worse: "$bad || true" },
    conditions: ["$bad", "$worse", "$bad && $worse"],
  };
  assert.deepEqual(codes(spec), ["rules.unknown_fact"]);
});

Deno.test("definitions nest as deep as the limit and no deeper", () => {
  const chain = (length: number): FileSpec => ({
    definitions: Object.fromEntries(
      Array.from({ length }, (_, i) => [`d${i}`, i === 0 ? "true" : `$d${i - 1}`]),
    ),
    conditions: [`$d${length - 1}`],
  });
  assert.deepEqual(codes(chain(LIMITS.definitionDepth)), []);
  const reversed = chain(LIMITS.definitionDepth + 2);
  const definitions = Object.fromEntries(Object.entries(reversed.definitions ?? {}).reverse());
  assert.ok(codes({ ...reversed, definitions }).includes("rules.definition_depth"));
});

Deno.test("definitions that double each time are refused before they fill the memory (ADV-AGENT-10)", () => {
  const definitions = Object.fromEntries(
    Array.from({ length: 40 }, (_, i) => [`d${i}`, i === 0 ? "true" : `$d${i - 1} && $d${i - 1}`]),
  );
  const found = codes({ definitions, conditions: ["$d39"] });
  assert.ok(found.includes("rules.condition_too_long") || found.includes("rules.too_complex"));
});

Deno.test("a file whose definitions add up to too much is refused (ADV-AGENT-10)", () => {
  const hosts = JSON.stringify(Array.from({ length: 500 }, (_, i) => `host${i}.example.com`));
  const definitions = { long: `http.host in ${hosts}` };
  const uses = (count: number): FileSpec => ({
    definitions,
    conditions: Array.from({ length: count }, () => "$long"),
  });
  assert.deepEqual(codes(uses(10)), []);
  assert.ok(codes(uses(500)).includes("rules.condition_too_long"));
});

Deno.test("only definitions that no rule reaches are reported as unused (S003-AS-008)", () => {
  const result = compilePolicy([{
    path: "a.yaml",
    text: fileText({ definitions: { a: "$b", b: "true", c: "$b" }, conditions: ["$a"] }),
  }], { generation: 1 });
  assert.deepEqual(result.warnings.map(({ message }) => message), ["unused definition 'c'"]);
});
