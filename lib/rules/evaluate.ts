/**
 * Three-valued evaluation: expressions become functions of the facts. Nothing here throws; see
 * {@linkcode Outcome} for what a condition can come to.
 */
import { Cidr } from "../net/cidr.ts";
import { isUnder } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import { FACTS } from "./facts.ts";
import { type Constant, type Expr, type FunctionName, scalarsIn } from "./ir.ts";
import type { FactName } from "./language.ts";
import {
  apply,
  arithmetic,
  contains,
  entry,
  equal,
  index,
  isMapValue,
  order,
} from "./operators.ts";
import {
  and,
  CAN_BE_FALSE,
  CAN_BE_TRUE,
  type Evaluation,
  fail,
  FAILED,
  Failure,
  FALSE,
  fromOutcome,
  isKnown,
  NEVER,
  not,
  or,
  type Outcome,
  PENDING,
  toOutcome,
  TRUE,
  typeName,
  unavailable,
  Unknown,
  UNKNOWN_BIT,
} from "./outcome.ts";
import { compilePattern } from "./pattern.ts";

/** A compiled condition. Never throws. */
export type Condition = (evaluation: Evaluation) => Outcome;

/** A compiled value: the value, or one for which {@linkcode isKnown} is false. Never throws. */
export type Value = (evaluation: Evaluation) => unknown;

/** `compute` on two values once both are known. */
function strict2(
  left: Value,
  right: Value,
  compute: (left: unknown, right: unknown) => unknown,
): Value {
  return (evaluation) => {
    const a = left(evaluation);
    const b = right(evaluation);
    return unavailable([a, b]) ?? compute(a, b);
  };
}

/** Reads a fact; one that is larger than the cost bound assumes is a failure. */
function fact(name: FactName): Value {
  const { read, characters } = FACTS[name];
  const tooLarge = new Failure(`${name} is too large`);
  return (evaluation) => {
    const value = read(evaluation.facts);
    if (value === undefined) return evaluation.missing(name);
    if (value === null) return PENDING;
    const isLarge = typeof value === "string"
      ? value.length > characters
      : typeof value === "object" && evaluation.isTooLarge(name, value);
    return isLarge ? tooLarge : value;
  };
}

/** A condition on a text, once the text is known. */
function onText(item: Value, what: string, test: (text: string) => boolean): Condition {
  return (evaluation) => {
    const value = item(evaluation);
    if (typeof value === "string") return test(value) ? TRUE : FALSE;
    if (!isKnown(value)) return toOutcome(value, evaluation);
    return fail(evaluation, `${what} needs a text, found ${typeName(value)}`);
  };
}

function block(text: string): Cidr {
  const parsed = Cidr.parse(text);
  if (parsed === null) throw new TypeError(`not a canonical block: ${text}`);
  return parsed;
}

function inCidr(item: Value, texts: readonly string[]): Condition {
  const blocks = texts.map(block);
  return onText(item, "inCidr()", (text) => {
    const ip = Ip.parse(text);
    if (ip === null) return false;
    // ::ffff:10.0.0.1 reaches 10.0.0.1: it must not slip past a block of IPv4 addresses.
    const reached = ip.mappedIpv4();
    return blocks.some((each) => each.contains(ip) || (reached !== null && each.contains(reached)));
  });
}

/** Membership in a list of literals: one look-up however long the list. */
function inLiterals(item: Value, literals: readonly Constant[]): Condition {
  const set: ReadonlySet<unknown> = new Set(literals);
  return (evaluation) => {
    const value = item(evaluation);
    if (!isKnown(value)) return toOutcome(value, evaluation);
    return set.has(value) ? TRUE : FALSE;
  };
}

function isConstantText(expr: Expr): expr is Expr & { op: "constant"; value: string } {
  return expr.op === "constant" && typeof expr.value === "string";
}

function equalsText(item: Value, text: string): Condition {
  return (evaluation) => {
    const value = item(evaluation);
    if (value === text) return TRUE;
    return isKnown(value) ? FALSE : toOutcome(value, evaluation);
  };
}

function fold(items: readonly Condition[], decided: Outcome, combine: typeof and): Condition {
  const [first, second] = items;
  if (items.length === 2 && first !== undefined && second !== undefined) {
    return (evaluation) => {
      const left = first(evaluation);
      return left === decided ? decided : combine(left, second(evaluation));
    };
  }
  return (evaluation) => {
    let result = decided === FALSE ? TRUE : FALSE;
    for (const item of items) {
      result = combine(result, item(evaluation));
      if (result === decided) return result;
    }
    return result;
  };
}

function conditional(condition: Condition, then: Value, otherwise: Value): Value {
  return (evaluation) => {
    const outcome = condition(evaluation);
    if (outcome === TRUE) return then(evaluation);
    if (outcome === FALSE) return otherwise(evaluation);
    if (outcome === FAILED) return new Failure(evaluation.failure);
    // The value may still become known if one of the branches that are left open can.
    const open = [
      (outcome & CAN_BE_TRUE) === 0 ? NEVER : then(evaluation),
      (outcome & CAN_BE_FALSE) === 0 ? NEVER : otherwise(evaluation),
    ];
    return open.every((value) => value === NEVER || value instanceof Failure) ? NEVER : PENDING;
  };
}

/** `?:` between conditions: what is still possible is what an open branch makes possible. */
function conditionalCondition(
  condition: Condition,
  then: Condition,
  otherwise: Condition,
): Condition {
  return (evaluation) => {
    const outcome = condition(evaluation);
    if (outcome === TRUE) return then(evaluation);
    if (outcome === FALSE) return otherwise(evaluation);
    if (outcome === FAILED) return FAILED;
    const open = ((outcome & CAN_BE_TRUE) === 0 ? 0 : then(evaluation)) |
      ((outcome & CAN_BE_FALSE) === 0 ? 0 : otherwise(evaluation));
    return UNKNOWN_BIT | (open & (CAN_BE_TRUE | CAN_BE_FALSE));
  };
}

/** The elements a comprehension runs over: a list, or the keys of a map. */
function elements(value: unknown): readonly unknown[] | Failure | Unknown {
  if (Array.isArray(value) || value instanceof Failure || value instanceof Unknown) return value;
  return isMapValue(value)
    ? Object.keys(value)
    : new Failure(`a list or a map is needed, found ${typeName(value)}`);
}

/** `all` and `exists`: and, or over the elements. */
function quantifier(list: Value, slot: number, body: Condition, isAll: boolean): Condition {
  const decided = isAll ? FALSE : TRUE;
  const combine = isAll ? and : or;
  return (evaluation) => {
    const items = elements(list(evaluation));
    if (!Array.isArray(items)) return toOutcome(items, evaluation);
    let result = isAll ? TRUE : FALSE;
    for (const item of items) {
      evaluation.variables[slot] = item;
      result = combine(result, body(evaluation));
      if (result === decided) return result;
    }
    return result;
  };
}

/** `filter`, `map` and `exists_one`: any element that is not known decides. */
function collect(list: Value, slot: number, filter: Condition | null, body: Value | null): Value {
  return (evaluation) => {
    const items = elements(list(evaluation));
    if (!Array.isArray(items)) return items;
    const result: unknown[] = [];
    for (const item of items) {
      evaluation.variables[slot] = item;
      const taken = filter === null ? TRUE : filter(evaluation);
      if (taken === FALSE) continue;
      if (taken !== TRUE) return fromOutcome(taken, evaluation);
      const value = body === null ? item : body(evaluation);
      if (!isKnown(value)) return value;
      result.push(value);
    }
    return result;
  };
}

function exactlyOne(list: Value, slot: number, body: Condition): Condition {
  const taken = collect(list, slot, body, null);
  return (evaluation) => {
    const items = taken(evaluation);
    if (!Array.isArray(items)) return toOutcome(items, evaluation);
    return items.length === 1 ? TRUE : FALSE;
  };
}

function hasKey(item: Value, key: string): Condition {
  return (evaluation) => {
    const value = item(evaluation);
    if (!isKnown(value)) return toOutcome(value, evaluation);
    if (!isMapValue(value)) return fail(evaluation, `has() needs a map, found ${typeName(value)}`);
    return entry(value, key) === undefined ? FALSE : TRUE;
  };
}

function equality(left: Expr, right: Expr): Condition {
  if (isConstantText(right)) return equalsText(compileValue(left), right.value);
  if (isConstantText(left)) return equalsText(compileValue(right), left.value);
  return asCondition(strict2(compileValue(left), compileValue(right), equal));
}

function asCondition(value: Value): Condition {
  return (evaluation) => toOutcome(value(evaluation), evaluation);
}

function call(name: FunctionName, items: readonly Expr[]): Value {
  const args = items.map(compileValue);
  return (evaluation) => {
    const values = args.map((arg) => arg(evaluation));
    const result = unavailable(values) ?? apply(name, values);
    if (result !== null) return result;
    return new Failure(`${name}() does not take ${values.map(typeName).join(" and ")}`);
  };
}
/** Compiles an expression that is used as a value; see {@linkcode isKnown} for what it gives. */
export function compileValue(expr: Expr): Value {
  switch (expr.op) {
    case "constant": {
      const { value } = expr;
      return () => value;
    }
    case "fact":
      return fact(expr.name);
    case "variable": {
      const { slot } = expr;
      return (evaluation) => evaluation.variables[slot];
    }
    case "negate":
      return strict2(
        () => 0,
        compileValue(expr.item),
        (zero, value) => arithmetic("-", zero, value),
      );
    case "if":
      return conditional(
        compileCondition(expr.condition),
        compileValue(expr.then),
        compileValue(expr.otherwise),
      );
    case "+":
    case "-":
    case "*":
    case "/":
    case "%": {
      const { op } = expr;
      return strict2(
        compileValue(expr.left),
        compileValue(expr.right),
        (left, right) => arithmetic(op, left, right),
      );
    }
    case "index":
      return strict2(compileValue(expr.item), compileValue(expr.key), index);
    case "list": {
      const items = expr.items.map(compileValue);
      return (evaluation) => {
        const values = items.map((item) => item(evaluation));
        return unavailable(values) ?? values;
      };
    }
    case "record": {
      const entries = expr.entries.map(([key, value]) => [key, compileValue(value)] as const);
      return (evaluation) => {
        const values = entries.map(([key, value]) => [key, value(evaluation)] as const);
        return unavailable(values.map(([, value]) => value)) ?? Object.fromEntries(values);
      };
    }
    case "call":
      return call(expr.name, expr.items);
    case "filter":
      return collect(compileValue(expr.list), expr.slot, compileCondition(expr.body), null);
    case "map":
      return collect(
        compileValue(expr.list),
        expr.slot,
        expr.filter === null ? null : compileCondition(expr.filter),
        compileValue(expr.body),
      );
    default: {
      const condition = compileCondition(expr);
      return (evaluation) => fromOutcome(condition(evaluation), evaluation);
    }
  }
}

/** Compiles an expression that is used as a condition. */
export function compileCondition(expr: Expr): Condition {
  switch (expr.op) {
    case "and":
      return fold(expr.items.map(compileCondition), FALSE, and);
    case "or":
      return fold(expr.items.map(compileCondition), TRUE, or);
    case "not": {
      const item = compileCondition(expr.item);
      return (evaluation) => not(item(evaluation));
    }
    case "if":
      return conditionalCondition(
        compileCondition(expr.condition),
        compileCondition(expr.then),
        compileCondition(expr.otherwise),
      );
    case "==":
      return equality(expr.left, expr.right);
    case "!=": {
      const same = equality(expr.left, expr.right);
      return (evaluation) => not(same(evaluation));
    }
    case "<":
    case "<=":
    case ">":
    case ">=": {
      const { op } = expr;
      const left = compileValue(expr.left);
      return asCondition(strict2(left, compileValue(expr.right), (a, b) => order(op, a, b)));
    }
    case "in": {
      const literals = scalarsIn(expr.right);
      const item = compileValue(expr.left);
      return literals === null
        ? asCondition(strict2(item, compileValue(expr.right), contains))
        : inLiterals(item, literals);
    }
    case "has":
      return hasKey(compileValue(expr.item), expr.key);
    case "matches": {
      const pattern = compilePattern(expr.pattern);
      return onText(compileValue(expr.item), "matches()", (text) => pattern.test(text));
    }
    case "under": {
      const { parents } = expr;
      return onText(
        compileValue(expr.item),
        "under()",
        (text) => parents.some((parent) => isUnder(text, parent)),
      );
    }
    case "inCidr":
      return inCidr(compileValue(expr.item), expr.blocks);
    case "all":
    case "exists": {
      const body = compileCondition(expr.body);
      return quantifier(compileValue(expr.list), expr.slot, body, expr.op === "all");
    }
    case "exists_one":
      return exactlyOne(compileValue(expr.list), expr.slot, compileCondition(expr.body));
    default:
      return asCondition(compileValue(expr));
  }
}
