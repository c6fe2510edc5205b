/** What operators and functions make of values that are known. A mistake is a {@linkcode Failure}. */
import type { FunctionName } from "./ir.ts";
import { Failure, typeName } from "./outcome.ts";

/** A map: facts are plain objects, so only their own keys count (`__proto__` is no header). */
export type MapValue = Readonly<Record<string, unknown>>;

/** Whether a value is a map. */
export function isMapValue(value: unknown): value is MapValue {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value at `key`; undefined where there is none. */
export function entry(map: MapValue, key: string): unknown {
  return Object.hasOwn(map, key) ? map[key] : undefined;
}

/** CEL equality: values of different types are unequal, lists and maps are compared by content. */
export function equal(a: unknown, b: unknown): boolean {
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

/** `in`: an element of a list, or a key of a map. */
export function contains(item: unknown, collection: unknown): unknown {
  if (Array.isArray(collection)) return collection.some((each) => equal(each, item));
  if (isMapValue(collection)) {
    return typeof item === "string" && entry(collection, item) !== undefined;
  }
  return new Failure(`'in' needs a list or a map, found ${typeName(collection)}`);
}

/** CEL ordering: of two texts, two numbers, or false before true. */
export function order(op: "<" | "<=" | ">" | ">=", a: unknown, b: unknown): unknown {
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

/** Sums of whole numbers, and `+` of texts and of lists. */
export function arithmetic(op: "+" | "-" | "*" | "/" | "%", a: unknown, b: unknown): unknown {
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

/** `item[key]`. */
export function index(item: unknown, key: unknown): unknown {
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
export function apply(name: FunctionName, args: readonly unknown[]): unknown {
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
