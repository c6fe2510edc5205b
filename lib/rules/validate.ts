/** `outcall rules check`: everything there is to say about a directory of rules, without a daemon. */
import { compilePolicy } from "./compile.ts";
import type { Diagnostic } from "./diagnostic.ts";
import { lint } from "./lint.ts";
import type { TestResult } from "./policytests.ts";
import type { RulesDirectory } from "./read.ts";

/** What was found. */
export interface ValidationReport {
  readonly files: number;
  readonly rules: number;
  readonly errors: readonly Diagnostic[];
  /** Of the compiler, then of the linter. */
  readonly warnings: readonly Diagnostic[];
  /** Policy tests that were run; none while there are errors. */
  readonly tests: readonly TestResult[];
}

/** Validates, lints and tests what {@linkcode readRulesDir} found. Pure. */
export function validate(directory: RulesDirectory): ValidationReport {
  const compiled = compilePolicy(directory.files, { generation: 0 });
  const files = directory.files.length;
  if (!compiled.ok) {
    const errors = [...directory.problems, ...compiled.errors];
    return { files, rules: 0, errors, warnings: compiled.warnings, tests: [] };
  }
  const { policy, warnings, tests } = compiled;
  return {
    files,
    rules: policy.rules.length,
    errors: directory.problems,
    warnings: [...warnings, ...lint(policy)],
    tests,
  };
}

/** 0: clean. 1: warnings, where `isStrict` asks for none. 2: errors. */
export function exitCodeOf(report: ValidationReport, isStrict: boolean): 0 | 1 | 2 {
  if (report.errors.length > 0) return 2;
  return isStrict && report.warnings.length > 0 ? 1 : 0;
}
