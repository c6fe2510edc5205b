/**
 * Checked CEL syntax trees to our own expressions. Everything that makes an evaluation unbounded or
 * ambiguous is refused here, at load: patterns that are not literals, numbers that do not fit, types
 * that no fact has.
 */
import type { ASTNode } from "@marcbachmann/cel-js";
import { Cidr } from "../net/cidr.ts";
import { Hostname } from "../net/host.ts";
import type { CelProblem } from "./check.ts";
import type { Constant, Expr, FunctionName, Range } from "./ir.ts";
import { LIMITS } from "./limits.ts";
import { compilePattern, type PatternBudget, PatternError } from "./pattern.ts";
import {
  type FactName,
  fieldsOf,
  FUNCTIONS,
  isNamespace,
  MACROS,
  type Namespace,
  type ValueType,
} from "./language.ts";

/** Thrown inside this file only. */
class Refusal extends Error {
  constructor(readonly problem: CelProblem) {
    super(problem.message);
  }
}

function refuse(node: ASTNode, code: string, message: string, hint?: string): never {
  throw new Refusal({ code, message, hint, start: node.start, end: node.end });
}

/** What a function gives when its arguments are known and right. */
const RETURN_TYPES: Readonly<Record<FunctionName, ValueType>> = {
  bool: "bool",
  contains: "bool",
  endsWith: "bool",
  indexOf: "int",
  int: "int",
  join: "string",
  lastIndexOf: "int",
  lowerAscii: "string",
  size: "int",
  split: "list",
  startsWith: "bool",
  string: "string",
  substring: "string",
  trim: "string",
  upperAscii: "string",
};

function isFunctionName(name: string): name is FunctionName {
  return Object.hasOwn(RETURN_TYPES, name);
}

/** What lowering needs to know beside the tree. */
interface Scope {
  /** Slots of the comprehension variables by name. */
  readonly variables: ReadonlyMap<string, number>;
  readonly patterns: PatternBudget;
}

function isComparison(op: string): boolean {
  return ["==", "!=", "<", "<=", ">", ">=", "in"].includes(op);
}

function valueType(celType: string): ValueType {
  if (celType.startsWith("list")) return "list";
  if (celType.startsWith("map")) return "map";
  return celType === "int" || celType === "string" ? celType : "dyn";
}

function range(node: ASTNode): Range {
  return [node.start, node.end];
}

function constant(node: ASTNode, value: unknown): Expr {
  const at = range(node);
  if (value === null) return { op: "constant", value, type: "null", at };
  if (typeof value === "boolean") return { op: "constant", value, type: "bool", at };
  if (typeof value === "string") return { op: "constant", value, type: "string", at };
  if (typeof value === "bigint") {
    const number = Number(value);
    if (Number.isSafeInteger(number)) return { op: "constant", value: number, type: "int", at };
    return refuse(
      node,
      "rules.number",
      "CEL type error: this number is too large",
      `The largest is ${Number.MAX_SAFE_INTEGER}.`,
    );
  }
  return refuse(
    node,
    "rules.number",
    "CEL type error: only whole numbers, text, true, false and null can be written here",
    "No fact is a decimal number, an unsigned number or bytes.",
  );
}

/** The namespace that `node` names, unless a variable hides it. */
function namespaceOf(node: ASTNode, scope: Scope): Namespace | null {
  return node.op === "id" && !scope.variables.has(node.args) && isNamespace(node.args)
    ? node.args
    : null;
}

function fact(node: ASTNode, namespace: Namespace, field: string): Expr {
  const type = fieldsOf(namespace)[field];
  if (type === undefined) {
    return refuse(
      node,
      "rules.unknown_fact",
      `CEL type error: ${namespace} has no field '${field}'`,
    );
  }
  return {
    op: "fact",
    name: `${namespace}.${field}` as FactName,
    type: valueType(type),
    at: range(node),
  };
}

/** Items of `a || b || c`, which the parser nests to the left. */
function chain(node: ASTNode, op: "||" | "&&", scope: Scope): Expr[] {
  const items: Expr[] = [];
  let rest = node;
  while (rest.op === op) {
    items.push(lower(rest.args[1], scope));
    rest = rest.args[0];
  }
  items.push(lower(rest, scope));
  return items.reverse();
}

function list(node: ASTNode, elements: readonly ASTNode[], scope: Scope): Expr {
  const items = elements.map((element) => lower(element, scope));
  const values: Constant[] = [];
  for (const item of items) if (item.op === "constant") values.push(item.value);
  return values.length === items.length
    ? { op: "constant", value: values, type: "list", at: range(node) }
    : { op: "list", items, type: "list", at: range(node) };
}

function record(
  node: ASTNode,
  pairs: readonly (readonly [ASTNode, ASTNode])[],
  scope: Scope,
): Expr {
  const seen = new Set<string>();
  const entries = pairs.map(([key, value]) => {
    if (key.op !== "value" || typeof key.args !== "string") {
      return refuse(
        key,
        "rules.map_key",
        "CEL type error: the keys of a map must be text literals",
      );
    }
    if (seen.has(key.args)) {
      return refuse(key, "rules.map_key", `CEL type error: the key '${key.args}' appears twice`);
    }
    seen.add(key.args);
    return [key.args, lower(value, scope)] as const;
  });
  return { op: "record", entries, type: "map", at: range(node) };
}

/** Text literals given as one argument or as a list of them. */
function literals(
  argument: ASTNode,
  name: string,
): { text: string; node: ASTNode }[] {
  const nodes = argument.op === "list" ? argument.args : [argument];
  return nodes.map((each) => {
    if (each.op === "value" && typeof each.args === "string") {
      return { text: each.args, node: each };
    }
    return refuse(
      each,
      "rules.literal",
      `CEL type error: ${name}() needs a text literal, or a list of them`,
      `Write: ${FUNCTIONS[name] ?? ""}`,
    );
  });
}

function hostname(text: string, node: ASTNode): string {
  const host = Hostname.parse(text.replace(/^\*?\./, ""));
  if (host !== null && host.name === text) return text;
  return refuse(
    node,
    "rules.hostname",
    `CEL type error: '${text}' is not a host name as facts show it`,
    host === null
      ? "Write a domain, such as example.com."
      : `Write '${host.name}': it matches itself and every name below it.`,
  );
}

function block(text: string, node: ASTNode): string {
  const problem = Cidr.problem(text);
  if (problem === null) return text;
  return refuse(
    node,
    "rules.cidr",
    `CEL type error: '${text}' is not a block of addresses: ${problem}`,
  );
}

function pattern(node: ASTNode, scope: Scope): string {
  if (node.op !== "value" || typeof node.args !== "string") {
    return refuse(
      node,
      "rules.literal",
      "CEL type error: the pattern of matches() must be a text literal",
      "Patterns are compiled when the rules are loaded.",
    );
  }
  try {
    compilePattern(node.args, scope.patterns);
    return node.args;
  } catch (thrown) {
    if (!(thrown instanceof PatternError)) throw thrown;
    const { message, hint } = thrown;
    return refuse(
      node,
      "rules.pattern",
      `CEL type error: this pattern cannot be used: ${message}`,
      hint,
    );
  }
}

function method(
  node: ASTNode,
  name: string,
  receiver: ASTNode,
  args: readonly ASTNode[],
  scope: Scope,
): Expr {
  const at = range(node);
  const comprehension = MACROS.find((macro) => macro === name);
  if (comprehension !== undefined) {
    return lowerComprehension(node, comprehension, receiver, args, scope);
  }
  const [first] = args;
  if (first !== undefined && name === "matches") {
    return {
      op: "matches",
      item: lower(receiver, scope),
      pattern: pattern(first, scope),
      type: "bool",
      at,
    };
  }
  if (first !== undefined && name === "under") {
    const parents = literals(first, name).map((each) => hostname(each.text, each.node));
    return { op: "under", item: lower(receiver, scope), parents, type: "bool", at };
  }
  if (first !== undefined && name === "inCidr") {
    const blocks = literals(first, name).map((each) => block(each.text, each.node));
    return { op: "inCidr", item: lower(receiver, scope), blocks, type: "bool", at };
  }
  return call(node, name, [receiver, ...args], scope);
}

function call(node: ASTNode, name: string, args: readonly ASTNode[], scope: Scope): Expr {
  if (!isFunctionName(name)) {
    return refuse(
      node,
      "rules.unknown_function",
      `CEL type error: '${name}' is not available in rules`,
      `Functions: ${Object.keys(FUNCTIONS).join(", ")}.`,
    );
  }
  const items = args.map((arg) => lower(arg, scope));
  return { op: "call", name, items, type: RETURN_TYPES[name], at: range(node) };
}

function has(node: ASTNode, argument: ASTNode | undefined, scope: Scope): Expr {
  if (argument?.op !== ".") {
    return refuse(
      node,
      "rules.wrong_call",
      "CEL type error: has() needs a field, as in has(map.key)",
    );
  }
  const [item, key] = argument.args;
  if (namespaceOf(item, scope) !== null) {
    return refuse(
      argument,
      "rules.wrong_call",
      "CEL type error: has() is for the keys of a map; this field always exists",
      "Leave it out: a condition on a fact that is not known yet waits for it.",
    );
  }
  return { op: "has", item: lower(item, scope), key, type: "bool", at: range(node) };
}

function lowerComprehension(
  node: ASTNode,
  op: (typeof MACROS)[number],
  receiver: ASTNode,
  args: readonly ASTNode[],
  scope: Scope,
): Expr {
  const [variable] = args;
  const body = args.at(-1);
  if (variable?.op !== "id" || body === undefined) {
    return refuse(
      node,
      "rules.wrong_call",
      `CEL type error: ${op}() needs a variable and a condition`,
      `Write: ${FUNCTIONS[op] ?? ""}`,
    );
  }
  const slot = scope.variables.size;
  if (slot >= LIMITS.comprehensionDepth) {
    return refuse(
      node,
      "rules.too_expensive",
      `CEL type error: loops are nested more than ${LIMITS.comprehensionDepth} deep`,
      "Split the condition.",
    );
  }
  const inner = { ...scope, variables: new Map(scope.variables).set(variable.args, slot) };
  if (scope.variables.has(variable.args) || isNamespace(variable.args)) {
    return refuse(
      variable,
      "rules.variable",
      `CEL type error: the variable '${variable.args}' hides another name`,
      "Give it a name of its own.",
    );
  }
  return {
    op,
    list: lower(receiver, scope),
    slot,
    filter: args.length === 3 && args[1] !== undefined ? lower(args[1], inner) : null,
    body: lower(body, inner),
    type: op === "filter" || op === "map" ? "list" : "bool",
    at: range(node),
  };
}

function lower(node: ASTNode, scope: Scope): Expr {
  const at = range(node);
  switch (node.op) {
    case "value":
      return constant(node, node.args);
    case "id": {
      const slot = scope.variables.get(node.args);
      if (slot !== undefined) return { op: "variable", slot, type: "dyn", at };
      return refuse(
        node,
        "rules.namespace_value",
        `CEL type error: '${node.args}' cannot be used as a value`,
        isNamespace(node.args)
          ? `Name one of its fields: ${Object.keys(fieldsOf(node.args)).join(", ")}.`
          : undefined,
      );
    }
    case ".": {
      const [item, field] = node.args;
      const namespace = namespaceOf(item, scope);
      if (namespace !== null) return fact(node, namespace, field);
      const key: Expr = { op: "constant", value: field, type: "string", at };
      return { op: "index", item: lower(item, scope), key, type: "dyn", at };
    }
    case "[]": {
      const [item, key] = node.args;
      const namespace = namespaceOf(item, scope);
      if (namespace !== null && key.op === "value" && typeof key.args === "string") {
        return fact(node, namespace, key.args);
      }
      return { op: "index", item: lower(item, scope), key: lower(key, scope), type: "dyn", at };
    }
    case "call":
      return node.args[0] === "has"
        ? has(node, node.args[1][0], scope)
        : call(node, node.args[0], node.args[1], scope);
    case "rcall":
      return method(node, node.args[0], node.args[1], node.args[2], scope);
    case "list":
      return list(node, node.args, scope);
    case "map":
      return record(node, node.args, scope);
    case "?:": {
      const [condition, then, otherwise] = node.args.map((arg) => lower(arg, scope));
      if (condition === undefined || then === undefined || otherwise === undefined) {
        return refuse(node, "rules.syntax", "CEL parse error: '?:' needs three parts");
      }
      const type = then.type === otherwise.type ? then.type : "dyn";
      return { op: "if", condition, then, otherwise, type, at };
    }
    case "||":
      return { op: "or", items: chain(node, "||", scope), type: "bool", at };
    case "&&":
      return { op: "and", items: chain(node, "&&", scope), type: "bool", at };
    case "!_":
      return { op: "not", item: lower(node.args, scope), type: "bool", at };
    case "-_": {
      const item = lower(node.args, scope);
      return item.op === "constant" && typeof item.value === "number"
        ? { ...item, value: -item.value, at }
        : { op: "negate", item, type: "int", at };
    }
    case ".?":
    case "[?]":
      return refuse(node, "rules.syntax", "CEL parse error: optional fields are not supported");
    default: {
      const left = lower(node.args[0], scope);
      const right = lower(node.args[1], scope);
      const type = isComparison(node.op) ? "bool" : node.op === "+" ? "dyn" : "int";
      return { op: node.op, left, right, type, at };
    }
  }
}

/** What lowering gives: an expression, or the first thing in it that is refused. */
export type Lowered =
  | { readonly ok: true; readonly expr: Expr }
  | { readonly ok: false; readonly problem: CelProblem };

/**
 * Turns a checked syntax tree into an expression.
 * @param patterns Shared by all conditions of a rule set.
 */
export function lowerExpression(ast: ASTNode, patterns: PatternBudget): Lowered {
  try {
    return { ok: true, expr: lower(ast, { variables: new Map(), patterns }) };
  } catch (thrown) {
    if (thrown instanceof Refusal) return { ok: false, problem: thrown.problem };
    throw thrown;
  }
}
