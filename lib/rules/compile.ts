/**
 * Rule files to a policy: shape, definitions, CEL, order. Everything that is wrong with the whole set
 * is reported at once, and a set with one error, or one of whose own tests fails, gives no policy at all.
 */
import type { Environment } from "@marcbachmann/cel-js";
import { type CelProblem, checkExpression, typeWords } from "./check.ts";
import { costNs } from "./cost.ts";
import { Definitions, type Expression } from "./definitions.ts";
import { type Diagnostic, type Finding, Source, type Span } from "./diagnostic.ts";
import { type RawFile, type RawRule, readDocument } from "./document.ts";
import { clausesOf, type Expr, parts } from "./ir.ts";
import { celEnvironment } from "./environment.ts";
import { LIMITS } from "./limits.ts";
import { lowerExpression } from "./lower.ts";
import { PatternBudget } from "./pattern.ts";
import { buildPolicy, type Policy, type RuleData } from "./policy.ts";
import { nameOf, type PolicyTest, runPolicyTests, type TestResult } from "./policytests.ts";
import type { RawTest } from "./rawtest.ts";
import { isTestFile, type RuleFile } from "./read.ts";
import { stepsOf } from "./request.ts";

/** What became of a set of rule files. */
export type CompileResult =
  | {
    readonly ok: true;
    readonly policy: Policy;
    readonly warnings: readonly Diagnostic[];
    /** The tests beside the rules; all of them passed. */
    readonly tests: readonly TestResult[];
    /** The same tests, to be run against another policy. */
    readonly policyTests: readonly PolicyTest[];
  }
  | {
    readonly ok: false;
    readonly errors: readonly Diagnostic[];
    readonly warnings: readonly Diagnostic[];
  };

/** How to compile. */
export interface CompileOptions {
  /** Number of the snapshot, ever increasing while the daemon lives. */
  readonly generation: number;
}

/** A compiled rule and where its file puts it. */
interface Placed {
  readonly data: RuleData;
  readonly position: number;
}

/** Compiles one expression, or says what is wrong with it. */
function compileExpression(
  environment: Environment,
  patterns: PatternBudget,
  text: string,
): { expr: Expr; type: string } | CelProblem {
  const checked = checkExpression(environment, text);
  if (!checked.ok) return checked.problem;
  const lowered = lowerExpression(checked.ast, patterns);
  if (!lowered.ok) return lowered.problem;
  const { expr } = lowered;
  if (costNs(expr) > LIMITS.conditionCostNs) return tooExpensive(expr);
  return { expr, type: checked.type };
}

/** Points at the smallest part that is too expensive by itself: that is what has to change. */
function tooExpensive(expr: Expr): CelProblem {
  const inner = parts(expr).find((part) => costNs(part) > LIMITS.conditionCostNs);
  if (inner !== undefined) return tooExpensive(inner);
  const [start, end] = expr.at;
  return {
    code: "rules.too_expensive",
    message: "CEL type error: on hostile input this could take longer than a millisecond",
    hint: "Avoid loops inside loops, and long texts searched many times; split the rule.",
    start,
    end,
  };
}

class Compiler {
  readonly errors: Diagnostic[] = [];
  readonly warnings: Diagnostic[] = [];
  readonly #environment = celEnvironment();
  readonly #patterns = new PatternBudget();
  readonly #placed: Placed[] = [];
  readonly tests: PolicyTest[] = [];
  #ruleCount = 0;
  /** Rule ids of all files, with where each was first used. */
  readonly #ids = new Map<string, string>();

  /** A rule where nobody looks for rules would be a rule that nobody reviews. */
  #refuseRules(source: Source, rules: readonly RawRule[]): void {
    const [first] = rules;
    if (first === undefined) return;
    this.#error(source, first.id.span, {
      code: "rules.test_file",
      message: "a test file (.test.yaml) holds tests, not rules",
      hint: "Move the rules into a file of their own.",
    });
  }

  /** Compiles the rules of one file. */
  addFile(file: RuleFile): void {
    const source = new Source(file.path, file.text);
    const errorsBefore = this.errors.length;
    const raw = readDocument(source, (diagnostic) => this.errors.push(diagnostic));
    if (raw === null) return;
    const definitions = new Definitions(
      source,
      raw.definitions,
      (diagnostic) => this.errors.push(diagnostic),
    );
    if (isTestFile(file.path)) this.#refuseRules(source, raw.rules);
    this.#ruleCount += raw.rules.length;
    if (this.#ruleCount > LIMITS.rules) {
      this.#error(source, { start: 0, end: 0 }, {
        code: "rules.too_many",
        message: `with this file there are more than ${LIMITS.rules} rules`,
        hint: "Put many hosts into one rule: http.host in [...].",
      });
      return;
    }
    this.#patterns.addRules(raw.rules.length);
    this.#checkDefinitions(source, definitions);
    for (const [position, rule] of raw.rules.entries()) {
      this.#addRule(source, rule, position, definitions);
    }
    for (const test of raw.tests) this.#addTest(source, test);
    // What is broken may well be what would have used a definition.
    if (this.errors.length === errorsBefore) this.#warnAboutFile(raw, definitions);
  }

  /** All rules in evaluation order. */
  rules(): RuleData[] {
    return this.#placed
      .sort((a, b) =>
        a.data.priority - b.data.priority ||
        (a.data.file < b.data.file ? -1 : a.data.file > b.data.file ? 1 : 0) ||
        a.position - b.position
      )
      .map(({ data }) => data);
  }

  #error(source: Source, span: Span, finding: Finding): void {
    this.errors.push(source.diagnostic("error", span, finding));
  }

  #celError(source: Source, expression: Expression, problem: CelProblem): void {
    this.#error(source, expression.locate(problem.start, problem.end), problem);
  }

  /** Each definition must be a whole, well-typed expression by itself, used or not. */
  #checkDefinitions(source: Source, definitions: Definitions): void {
    for (const [name, expanded] of definitions.expandAll()) {
      if (!expanded.ok) continue;
      const compiled = compileExpression(
        this.#environment,
        this.#patterns,
        expanded.expression.text,
      );
      if ("expr" in compiled) continue;
      definitions.refuse(name);
      // An error inside a definition that this one uses is reported there.
      const uses = definitions.usesOf(name);
      if (!uses.some((used) => definitions.isRefused(used))) {
        this.#celError(source, expanded.expression, compiled);
      }
    }
  }

  #addRule(source: Source, rule: RawRule, position: number, definitions: Definitions): void {
    const id = rule.id.value;
    const { line } = source.position(rule.id.span.start);
    const first = this.#ids.get(id);
    if (first === undefined) {
      this.#ids.set(id, `${source.path}:${line}`);
    } else {
      this.#error(source, rule.id.span, {
        code: "rules.duplicate_id",
        message: `rule id '${id}' is already used at ${first}`,
        hint: "Give each rule an id of its own.",
      });
    }
    const expanded = definitions.expandCondition(rule.condition);
    if (!expanded.ok) return;
    const { expression } = expanded;
    const compiled = compileExpression(this.#environment, this.#patterns, expression.text);
    if (!("expr" in compiled)) {
      this.#celError(source, expression, compiled);
      return;
    }
    if (compiled.type !== "bool") {
      this.#error(source, expression.locate(0, expression.text.length), {
        code: "rules.not_boolean",
        message: `CEL type error: a condition must be true or false, and this is ${
          typeWords(compiled.type)
        }`,
        hint: 'Compare it with something, as in http.host == "api.example.com".',
      });
      return;
    }
    this.#placed.push({
      position,
      data: {
        id,
        file: source.path,
        line,
        action: rule.action,
        priority: rule.priority,
        condition: expression.text.trimEnd(),
        description: rule.description,
        log: rule.log,
        egress: rule.egress,
        expr: compiled.expr,
        places: clausesOf(compiled.expr).map(({ at: [start, end] }) => {
          const { line, column } = source.position(expression.locate(start, end).start);
          return [line, column] as const;
        }),
      },
    });
  }

  #addTest(source: Source, test: RawTest): void {
    const steps = stepsOf(test.request);
    if (!steps.ok) {
      this.#error(source, test.span, {
        code: "rules.test_request",
        message: `this test cannot be run: ${steps.message}`,
        hint: "For example: - { url: https://api.example.com/, expect: allow }",
      });
      return;
    }
    const { name, request, expect, rule } = test;
    this.tests.push({
      name: name ?? nameOf(request),
      source,
      span: test.span,
      request,
      expect,
      rule,
    });
  }

  #warnAboutFile(raw: RawFile, definitions: Definitions): void {
    for (const name of definitions.unused()) {
      const span = raw.definitions.get(name)?.span ?? { start: 0, end: 0 };
      this.warnings.push(raw.source.diagnostic("warning", span, {
        code: "rules.unused_definition",
        message: `unused definition '${name}'`,
        hint: `Use it as $${name}, or remove it.`,
      }));
    }
    if (raw.hasRules || raw.tests.length > 0) return;
    this.warnings.push(raw.source.diagnostic("warning", { start: 0, end: 0 }, {
      code: "rules.no_rules",
      message: "the file has no rules",
    }));
  }
}

/** As somebody who goes through the files meets them. */
function inOrder(files: readonly RuleFile[], diagnostics: readonly Diagnostic[]): Diagnostic[] {
  const positions = new Map(files.map(({ path }, i) => [path, i]));
  const position = ({ file }: Diagnostic): number => positions.get(file) ?? 0;
  return diagnostics.toSorted((a, b) =>
    position(a) - position(b) || a.line - b.line || a.column - b.column
  );
}

/**
 * Compiles a whole set of rule files.
 *
 * @returns the policy, or every error there is; never both.
 */
export function compilePolicy(
  files: readonly RuleFile[],
  options: CompileOptions,
): CompileResult {
  const compiler = new Compiler();
  for (const file of files) compiler.addFile(file);
  const { errors, warnings } = compiler;
  const rules = compiler.rules();
  if (errors.length > 0) {
    return { ok: false, errors: inOrder(files, errors).slice(0, LIMITS.errors), warnings };
  }
  const policy = buildPolicy({ generation: options.generation, rules });
  const tests = runPolicyTests(policy, compiler.tests);
  const failed = tests.flatMap((test) => test.failure ?? []);
  if (failed.length > 0) return { ok: false, errors: failed, warnings };
  return { ok: true, policy, warnings, tests, policyTests: compiler.tests };
}
