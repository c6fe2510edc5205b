/**
 * Three-valued evaluation: expressions become functions of the facts.
 *
 * A condition is true, false, unknown, or failed. An unknown condition also says whether it may
 * still come true, and still come false, once the facts that its layer is waiting for are known
 * (PENDING_FACTS); waiting for a fact that never comes makes neither possible. So "an allow rule
 * counts when true, or unknown only for want of such a fact" is one bit, and `&&`, `||` and `!` are
 * bit operations. Nothing here throws; a failure is a value, because an exception in a block rule
 * must block and not escape (decision D9).
 */
import { Cidr } from "../net/cidr.ts";
import { isUnder } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import { FACTS, isTooLarge } from "./facts.ts";
import { type Constant, type Expr, type FunctionName, scalarsIn } from "./ir.ts";
import type { FactName } from "./language.ts";
import { compilePattern } from "./pattern.ts";
import type { Facts } from "./types.ts";

/** May be, or become, true. */
export const CAN_BE_TRUE = 1;
/** May be, or become, false. */
export const CAN_BE_FALSE = 2;
const UNKNOWN_BIT = 4;
const FAILED_BIT = 8;

/** The condition holds. */
export const TRUE = CAN_BE_TRUE;
/** The condition does not hold. */
export const FALSE = CAN_BE_FALSE;
/** The condition could not be evaluated; {@linkcode Evaluation.failure} says why. */
export const FAILED = FAILED_BIT;
/** Waits for facts that a later layer will know. */
export const UNKNOWN_PENDING = UNKNOWN_BIT | CAN_BE_TRUE | CAN_BE_FALSE;
/** Waits for a fact that never comes. */
export const UNKNOWN_NEVER = UNKNOWN_BIT;

/** TRUE, FALSE, FAILED, or the unknown bit with what is still possible. */
export type Outcome = number;

/** A value that is not known. */
class Unknown {
  constructor(readonly outcome: Outcome) {}
}

/** A value that could not be computed. */
class Failure {
  constructor(readonly message: string) {}
}

const PENDING = new Unknown(UNKNOWN_PENDING);
const NEVER = new Unknown(UNKNOWN_NEVER);

/** Everything one evaluation reads and writes. */
export class Evaluation {
  /** Values of the comprehension variables in scope, by slot. */
  readonly variables: unknown[] = [];
  /** Why the last failing part failed, for the operator. */
  failure = "";

  /**
   * @param facts What is known.
   * @param pending What is not known yet and will be: {@linkcode PENDING_FACTS} of the layer.
   */
  constructor(readonly facts: Facts, readonly pending: ReadonlySet<FactName>) {}

  /** What stands for a fact that is not there. */
  missing(fact: FactName): Unknown {
    return this.pending.has(fact) ? PENDING : NEVER;
  }
}

/** A compiled condition. Never throws. */
export type Condition = (evaluation: Evaluation) => Outcome;

/** A compiled value: the value, or one for which {@linkcode isKnown} is false. Never throws. */
export type Value = (evaluation: Evaluation) => unknown;

function fromOutcome(outcome: Outcome, evaluation: Evaluation): unknown {
  if (outcome === TRUE) return true;
  if (outcome === FALSE) return false;
  if (outcome === FAILED) return new Failure(evaluation.failure);
  return (outcome & (CAN_BE_TRUE | CAN_BE_FALSE)) === 0 ? NEVER : PENDING;
}

function fail(evaluation: Evaluation, message: string): Outcome {
  evaluation.failure = message;
  return FAILED;
}

function toOutcome(value: unknown, evaluation: Evaluation): Outcome {
  if (value === true) return TRUE;
  if (value === false) return FALSE;
  if (value instanceof Unknown) return value.outcome;
  if (value instanceof Failure) return fail(evaluation, value.message);
  return fail(evaluation, `expected true or false, found ${typeName(value)}`);
}

/** Kleene's and, with failures: false decides, then unknown, then failure. */
function and(a: Outcome, b: Outcome): Outcome {
  if (a === FALSE || b === FALSE) return FALSE;
  if (a === TRUE) return b;
  if (b === TRUE) return a;
  const possible = (a & b & CAN_BE_TRUE) | ((a | b) & CAN_BE_FALSE);
  return ((a | b) & UNKNOWN_BIT) === 0 ? FAILED : UNKNOWN_BIT | possible;
}

function or(a: Outcome, b: Outcome): Outcome {
  if (a === TRUE || b === TRUE) return TRUE;
  if (a === FALSE) return b;
  if (b === FALSE) return a;
  const possible = ((a | b) & CAN_BE_TRUE) | (a & b & CAN_BE_FALSE);
  return ((a | b) & UNKNOWN_BIT) === 0 ? FAILED : UNKNOWN_BIT | possible;
}

function not(a: Outcome): Outcome {
  const swapped = ((a & CAN_BE_TRUE) << 1) | ((a & CAN_BE_FALSE) >> 1);
  return (a & (UNKNOWN_BIT | FAILED_BIT)) | swapped;
}

function typeName(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  switch (typeof value) {
    case "string":
      return "a text";
    case "number":
      return "a number";
    case "boolean":
      return "true or false";
    default:
      return "a map";
  }
}

/** A map: facts are plain objects, so only their own keys count (`__proto__` is no header). */
type MapValue = Readonly<Record<string, unknown>>;

function isMapValue(value: unknown): value is MapValue {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function entry(map: MapValue, key: string): unknown {
  return Object.hasOwn(map, key) ? map[key] : undefined;
}

/** CEL equality: values of different types are unequal, lists and maps are compared by content. */
function equal(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) {
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length &&
      a.every((item, i) => equal(item, b[i]));
  }
  if (!isMapValue(a) || !isMapValue(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && equal(a[key], b[key]));
}

/** The one of several arguments that decides the result by not being known; failures come first. */
function unavailable(values: readonly unknown[]): Failure | Unknown | null {
  let found: Unknown | null = null;
  for (const value of values) {
    if (value instanceof Failure) return value;
    if (value instanceof Unknown && found !== NEVER) found = value;
  }
  return found;
}

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

function contains(item: unknown, collection: unknown): unknown {
  if (Array.isArray(collection)) return collection.some((each) => equal(each, item));
  if (isMapValue(collection)) {
    return typeof item === "string" && entry(collection, item) !== undefined;
  }
  return new Failure(`'in' needs a list or a map, found ${typeName(collection)}`);
}

function order(op: "<" | "<=" | ">" | ">=", a: unknown, b: unknown): unknown {
  const comparable = (typeof a === "string" && typeof b === "string") ||
    (typeof a === "number" && typeof b === "number") ||
    (typeof a === "boolean" && typeof b === "boolean");
  if (!comparable) {
    return new Failure(`'${op}' cannot compare ${typeName(a)} with ${typeName(b)}`);
  }
  switch (op) {
    case "<":
      return a < b;
    case "<=":
      return a <= b;
    case ">":
      return a > b;
    case ">=":
      return a >= b;
  }
}

function safe(result: number): unknown {
  return Number.isSafeInteger(result) ? result : new Failure("the number is too large");
}

function arithmetic(op: "+" | "-" | "*" | "/" | "%", a: unknown, b: unknown): unknown {
  if (op === "+" && typeof a === "string" && typeof b === "string") return a + b;
  if (op === "+" && Array.isArray(a) && Array.isArray(b)) return [...a, ...b];
  if (typeof a !== "number" || typeof b !== "number") {
    return new Failure(`'${op}' cannot combine ${typeName(a)} and ${typeName(b)}`);
  }
  switch (op) {
    case "+":
      return safe(a + b);
    case "-":
      return safe(a - b);
    case "*":
      return safe(a * b);
    case "/":
      // Exact, unlike rounding a / b: the remainder is taken off first.
      return b === 0 ? new Failure("division by zero") : safe((a - a % b) / b);
    case "%":
      return b === 0 ? new Failure("division by zero") : safe(a % b);
  }
}

function index(item: unknown, key: unknown): unknown {
  if (Array.isArray(item)) {
    if (typeof key !== "number") return new Failure("a list is indexed by a number");
    const found: unknown = item[key];
    return found === undefined ? new Failure(`the list has no item ${key}`) : found;
  }
  if (!isMapValue(item)) return new Failure(`${typeName(item)} has no fields`);
  if (typeof key !== "string") return new Failure("a map is indexed by a text");
  const found = entry(item, key);
  return found === undefined ? new Failure(`the map has no key '${key}'`) : found;
}

function isTextList(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

function parseInteger(text: string): unknown {
  const number = /^-?[0-9]{1,16}$/.test(text) ? Number(text) : NaN;
  return Number.isSafeInteger(number) ? number : new Failure("the text is not a whole number");
}

/** Letters outside ASCII stay as they are, so that no name changes into another one. */
function lowerAscii(text: string): string {
  return text.replace(/[A-Z]+/g, (run) => run.toLowerCase());
}

function upperAscii(text: string): string {
  return text.replace(/[a-z]+/g, (run) => run.toUpperCase());
}

function substring(text: string, start: unknown, end: unknown): unknown {
  if (typeof start !== "number" || typeof end !== "number") return null;
  return start < 0 || end < start || end > text.length
    ? new Failure("substring() is out of range")
    : text.substring(start, end);
}

/** Code points: a surrogate pair counts once. */
function codePoints(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    if ((text.codePointAt(i) ?? 0) > 0xffff) i++;
    count++;
  }
  return count;
}

function size(value: unknown): unknown {
  if (typeof value === "string") return codePoints(value);
  if (Array.isArray(value)) return value.length;
  return isMapValue(value) ? Object.keys(value).length : null;
}

const TRUE_TEXTS = ["1", "t", "true", "TRUE", "True"];
const FALSE_TEXTS = ["0", "f", "false", "FALSE", "False"];

function parseBoolean(text: string): unknown {
  if (TRUE_TEXTS.includes(text)) return true;
  return FALSE_TEXTS.includes(text) ? false : new Failure("the text is neither true nor false");
}

/** What a function makes of its arguments; null when they are of the wrong types. */
function apply(name: FunctionName, args: readonly unknown[]): unknown {
  const [first, second, third] = args;
  if (name === "size") return size(first);
  if (name === "join") {
    const separator = second ?? "";
    return isTextList(first) && typeof separator === "string" ? first.join(separator) : null;
  }
  if (name === "string") {
    return ["string", "number", "boolean"].includes(typeof first) ? String(first) : null;
  }
  if (name === "int" && typeof first === "number") return safe(Math.trunc(first));
  if (name === "bool" && typeof first === "boolean") return first;
  if (typeof first !== "string") return null;
  switch (name) {
    case "int":
      return parseInteger(first);
    case "bool":
      return parseBoolean(first);
    case "lowerAscii":
      return lowerAscii(first);
    case "upperAscii":
      return upperAscii(first);
    case "trim":
      return first.trim();
    case "substring":
      return substring(first, second, third ?? first.length);
  }
  if (typeof second !== "string") return null;
  switch (name) {
    case "contains":
      return first.includes(second);
    case "startsWith":
      return first.startsWith(second);
    case "endsWith":
      return first.endsWith(second);
    case "indexOf":
      return indexOf(first, second, third ?? 0);
    case "lastIndexOf":
      return lastIndexOf(first, second, third ?? first.length);
    case "split":
      return split(first, second, third ?? -1);
  }
}

function indexOf(text: string, search: string, from: unknown): unknown {
  if (typeof from !== "number") return null;
  return from < 0 || from > text.length
    ? new Failure("indexOf() is out of range")
    : text.indexOf(search, from);
}

function lastIndexOf(text: string, search: string, from: unknown): unknown {
  if (typeof from !== "number") return null;
  return from < 0 || from > text.length
    ? new Failure("lastIndexOf() is out of range")
    : text.lastIndexOf(search, from);
}

function split(text: string, separator: string, limit: unknown): unknown {
  if (typeof limit !== "number") return null;
  if (limit === 0) return [];
  const all = text.split(separator);
  if (limit < 0 || all.length <= limit) return all;
  return [...all.slice(0, limit - 1), all.slice(limit - 1).join(separator)];
}

/** Reads a fact; one that is larger than the cost bound assumes is a failure. */
function fact(name: FactName): Value {
  const { read, items, characters } = FACTS[name];
  const tooLarge = new Failure(`${name} is too large`);
  return (evaluation) => {
    const value = read(evaluation.facts);
    if (value === undefined) return evaluation.missing(name);
    return isTooLarge(value, items, characters) ? tooLarge : value;
  };
}

/** A condition on a text, once the text is known. */
function onText(item: Value, what: string, test: (text: string) => boolean): Condition {
  return (evaluation) => {
    const value = item(evaluation);
    if (typeof value === "string") return test(value) ? TRUE : FALSE;
    if (value instanceof Unknown || value instanceof Failure) return toOutcome(value, evaluation);
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
    if (value instanceof Unknown || value instanceof Failure) return toOutcome(value, evaluation);
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
    return value instanceof Unknown || value instanceof Failure
      ? toOutcome(value, evaluation)
      : FALSE;
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
      if (value instanceof Unknown || value instanceof Failure) return value;
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
    if (value instanceof Unknown || value instanceof Failure) return toOutcome(value, evaluation);
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

/** Whether a compiled value gave a value, and not that it is unknown or has failed. */
export function isKnown(value: unknown): boolean {
  return !(value instanceof Unknown || value instanceof Failure);
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
