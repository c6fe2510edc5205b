/**
 * Conditions as data: small, typed, JSON-able trees that cross isolates and are turned into
 * functions there (lib/rules/evaluate.ts).
 */
import type { FactName, ValueType } from "./language.ts";

/** A value that a rule file can contain. */
export type Constant = null | boolean | number | string | readonly Constant[];

/** Characters of the expanded condition that an expression was written as. */
export type Range = readonly [start: number, end: number];

interface Node {
  readonly at: Range;
  /** What it evaluates to when nothing is unknown and nothing fails. */
  readonly type: ValueType;
}

/** Comparisons that need an order. */
export type OrderOperator = "<" | "<=" | ">" | ">=";

/** Arithmetic. */
export type ArithmeticOperator = "+" | "-" | "*" | "/" | "%";

/** Comprehensions (CEL macros). */
export type Comprehension = "all" | "exists" | "exists_one" | "filter" | "map";

/** Functions of values. */
export type FunctionName =
  | "bool"
  | "contains"
  | "endsWith"
  | "indexOf"
  | "int"
  | "join"
  | "lastIndexOf"
  | "lowerAscii"
  | "size"
  | "split"
  | "startsWith"
  | "string"
  | "substring"
  | "trim"
  | "upperAscii";

/** One expression. */
export type Expr =
  | Node & { readonly op: "constant"; readonly value: Constant }
  | Node & { readonly op: "fact"; readonly name: FactName }
  /** The variable of the comprehension `slot` levels from the outermost. */
  | Node & { readonly op: "variable"; readonly slot: number }
  | Node & { readonly op: "and" | "or"; readonly items: readonly Expr[] }
  | Node & { readonly op: "not"; readonly item: Expr }
  | Node & { readonly op: "negate"; readonly item: Expr }
  | Node & {
    readonly op: "if";
    readonly condition: Expr;
    readonly then: Expr;
    readonly otherwise: Expr;
  }
  | Node & {
    readonly op: "==" | "!=" | "in" | OrderOperator | ArithmeticOperator;
    readonly left: Expr;
    readonly right: Expr;
  }
  /** `map.key`, `map["key"]`, `list[0]`. */
  | Node & { readonly op: "index"; readonly item: Expr; readonly key: Expr }
  | Node & { readonly op: "has"; readonly item: Expr; readonly key: string }
  | Node & { readonly op: "list"; readonly items: readonly Expr[] }
  | Node & {
    readonly op: "record";
    readonly entries: readonly (readonly [key: string, value: Expr])[];
  }
  | Node & { readonly op: "call"; readonly name: FunctionName; readonly items: readonly Expr[] }
  /** RE2 syntax, linear time; true when the pattern is found anywhere. */
  | Node & { readonly op: "matches"; readonly item: Expr; readonly pattern: string }
  /** Canonical hostnames. */
  | Node & { readonly op: "under"; readonly item: Expr; readonly parents: readonly string[] }
  /** Canonical blocks. */
  | Node & { readonly op: "inCidr"; readonly item: Expr; readonly blocks: readonly string[] }
  | Node & {
    readonly op: Comprehension;
    readonly list: Expr;
    readonly slot: number;
    /** Condition, or what `map` makes of an element. */
    readonly body: Expr;
    /** Of `map` with three arguments: which elements are taken. */
    readonly filter: Expr | null;
  };

/** The direct parts of an expression. */
export function parts(expr: Expr): readonly Expr[] {
  switch (expr.op) {
    case "constant":
    case "fact":
    case "variable":
      return [];
    case "and":
    case "or":
    case "list":
    case "call":
      return expr.items;
    case "not":
    case "negate":
    case "has":
    case "matches":
    case "under":
    case "inCidr":
      return [expr.item];
    case "index":
      return [expr.item, expr.key];
    case "if":
      return [expr.condition, expr.then, expr.otherwise];
    case "record":
      return expr.entries.map(([, value]) => value);
    case "all":
    case "exists":
    case "exists_one":
    case "filter":
    case "map":
      return expr.filter === null ? [expr.list, expr.body] : [expr.list, expr.filter, expr.body];
    default:
      return [expr.left, expr.right];
  }
}

/** The items of a literal list of texts, numbers and truth values: membership is one look-up. */
export function scalarsIn(expr: Expr): readonly Constant[] | null {
  if (expr.op !== "constant" || !Array.isArray(expr.value)) return null;
  const values: readonly Constant[] = expr.value;
  return values.some((value) => typeof value === "object") ? null : values;
}

/** Whether `expr` or a part of it reads `fact`. */
export function mentions(expr: Expr, fact: FactName): boolean {
  return (expr.op === "fact" && expr.name === fact) ||
    parts(expr).some((part) => mentions(part, fact));
}

/** The clauses of a condition: the parts that are joined by `&&`, `||` and `?:`, as written. */
export function clausesOf(expr: Expr): readonly Expr[] {
  switch (expr.op) {
    case "and":
    case "or":
    case "if":
      return parts(expr).flatMap(clausesOf);
    default:
      return [expr];
  }
}
