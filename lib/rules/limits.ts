/** Bounds of what a policy may contain: whatever is beyond them is refused, never cut short. */
export const LIMITS = {
  /** Rule files in the directory. */
  files: 1024,
  /** Of one rule file. */
  fileBytes: 1024 * 1024,
  /** Of all rule files together. */
  totalBytes: 16 * 1024 * 1024,
  /** In all files together. */
  rules: 10_000,
  /** Errors that are told; a set with more is not mended by reading them all. */
  errors: 1000,
  /** Definitions that use definitions that use definitions … */
  definitionDepth: 64,
  /** One condition with its definitions expanded, in UTF-16 units. */
  conditionLength: 1024 * 1024,
  /** All conditions of a file with their definitions expanded, per character of the file. */
  expansionFactor: 16,
  /** Of a rule id, which also appears in response headers. */
  idLength: 128,
  /** Operators, operands and calls of one condition. */
  expressionNodes: 50_000,
  /** Nested operators of one condition; the type checker and the evaluator recurse this deep. */
  expressionDepth: 400,
  /** Loops inside loops. */
  comprehensionDepth: 3,
  /** Worst case of evaluating one condition on facts of any size (lib/rules/cost.ts). */
  conditionCostNs: 1_000_000,
  /** Items of one list literal. */
  listItems: 10_000,
} as const;
