/**
 * Parses and type-checks one condition, and says what is wrong with it in an operator's words.
 */
import { type ASTNode, type Environment, ParseError, TypeError } from "@marcbachmann/cel-js";
import type { Finding } from "./diagnostic.ts";
import { fieldsOf, FUNCTIONS, isNamespace, NAMESPACES } from "./language.ts";
import { LIMITS } from "./limits.ts";
import { nearest } from "./suggest.ts";

/** A finding and the characters of the expression it is about. */
export interface CelProblem extends Finding {
  readonly start: number;
  readonly end: number;
}

/** The checked syntax tree, or the first thing that is wrong. */
export type Checked =
  | { readonly ok: true; readonly ast: ASTNode; readonly type: string }
  | { readonly ok: false; readonly problem: CelProblem };

const NAMESPACE_LIST = Object.keys(NAMESPACES).join(", ");

/** Words of other languages, and what CEL writes instead. */
const OPERATOR_WORDS: Readonly<Record<string, string>> = {
  and: "&&",
  or: "||",
  not: "!",
  AND: "&&",
  OR: "||",
  NOT: "!",
};

/** Where a bare field name, such as `host`, most likely belongs. */
const FIELD_OWNERS = new Map(
  Object.entries(NAMESPACES).flatMap(([namespace, fields]) =>
    Object.keys(fields).map((field) => [field, `${namespace}.${field}`])
  ),
);

function undefinedIdentifier(name: string, text: string, end: number): Finding {
  const message = `CEL parse error: undefined identifier '${name}'`;
  const code = "rules.undefined_identifier";
  const dotted = name.replace("_", ".");
  const [namespace = "", field = ""] = dotted.split(".");
  if (isNamespace(namespace) && field !== "") {
    const meant = nearest(field, Object.keys(fieldsOf(namespace)));
    const hint = meant === null
      ? `Fields are written with a dot; ${namespace} has: ${
        Object.keys(fieldsOf(namespace)).join(", ")
      }.`
      : `Fields are written with a dot. Did you mean ${namespace}.${meant}?`;
    return { code, message, hint };
  }
  const owner = FIELD_OWNERS.get(name);
  if (owner !== undefined) return { code, message, hint: `Did you mean ${owner}?` };
  const near = nearest(name, Object.keys(NAMESPACES));
  if (near !== null) return { code, message, hint: `Did you mean ${near}?` };
  const looksLikeText = /^[.\-/]?[A-Za-z0-9]/.test(text.slice(end)) ||
    !/\s*[.(]/.test(text[end] ?? "");
  return {
    code,
    message,
    hint: looksLikeText
      ? `Put text in quotes; otherwise start with a namespace: ${NAMESPACE_LIST}.`
      : `Start with a namespace: ${NAMESPACE_LIST}.`,
  };
}

/** The namespace that `node` names, if it is one. */
function namespaceOf(node: ASTNode): string | null {
  return node.op === "id" && isNamespace(node.args) ? node.args : null;
}

function unknownField(node: ASTNode | undefined): Finding {
  const code = "rules.unknown_fact";
  if (node?.op !== "." || namespaceOf(node.args[0]) === null) {
    return { code, message: "CEL type error: there is no such field" };
  }
  const namespace = namespaceOf(node.args[0]) ?? "";
  const field = node.args[1];
  const fields = isNamespace(namespace) ? Object.keys(fieldsOf(namespace)) : [];
  const meant = nearest(field, fields);
  const elsewhere = FIELD_OWNERS.get(field);
  return {
    code,
    message: `CEL type error: ${namespace} has no field '${field}'`,
    hint: meant !== null
      ? `Did you mean ${namespace}.${meant}?`
      : elsewhere !== undefined
      ? `Did you mean ${elsewhere}?`
      : `Fields of ${namespace}: ${fields.join(", ")}.`,
  };
}

const TYPE_WORDS: Readonly<Record<string, string>> = {
  string: "a text",
  int: "a number",
  double: "a decimal number",
  uint: "an unsigned number",
  bool: "true or false",
  bytes: "bytes",
  null: "null",
  dyn: "a value of any type",
  "list<string>": "a list of texts",
  "list<int>": "a list of numbers",
  "map<string, string>": "a map of texts",
};

/** A CEL type in an operator's words. Namespaces appear as `$http`. */
export function typeWords(type: string): string {
  if (type.startsWith("$")) return `the whole namespace ${type.slice(1)}`;
  if (Object.hasOwn(TYPE_WORDS, type)) return TYPE_WORDS[type] ?? type;
  if (type.startsWith("list")) return "a list";
  if (type.startsWith("map")) return "a map";
  return type;
}

const OPERATOR_ACTIONS: Readonly<Record<string, string>> = {
  "==": "compare",
  "!=": "compare",
  "<": "compare",
  "<=": "compare",
  ">": "compare",
  ">=": "compare",
  "+": "add",
  "-": "subtract",
  "*": "multiply",
  "/": "divide",
  "%": "divide",
};

function wrongOperands(summary: string): Finding {
  const code = "rules.type_mismatch";
  const unary = /^no such overload: ([!-])(\S+)$/.exec(summary);
  if (unary !== null) {
    const [, operator = "", type = ""] = unary;
    return {
      code,
      message: `CEL type error: '${operator}' needs ${
        operator === "!" ? "true or false" : "a number"
      }, not ${typeWords(type)}`,
    };
  }
  const binary = /^no such overload: (.+) (==|!=|<=|>=|<|>|\+|-|\*|\/|%|in) (.+)$/.exec(summary);
  if (binary === null) return { code, message: `CEL type error: ${summary}` };
  const [, left = "", operator = "", right = ""] = binary;
  if (operator === "in") {
    return {
      code,
      message: `CEL type error: ${typeWords(left)} cannot be in ${typeWords(right)}`,
      hint: right === "string"
        ? "Use contains() to look for text in a text."
        : right.startsWith("$")
        ? namespaceHint(right.slice(1))
        : 'Write: http.host in ["a.example", "b.example"]',
    };
  }
  const namespace = [left, right].find((type) => type.startsWith("$"));
  const numberAsText = (left === "int" && right === "string") ||
    (left === "string" && right === "int");
  return {
    code,
    message: `CEL type error: cannot ${OPERATOR_ACTIONS[operator] ?? "combine"} ${
      typeWords(left)
    } ${operator === "+" ? "and" : "with"} ${typeWords(right)}`,
    hint: namespace !== undefined
      ? namespaceHint(namespace.slice(1))
      : numberAsText
      ? "Write numbers without quotes and text with quotes."
      : undefined,
  };
}

function namespaceHint(name: string): string {
  const [first = ""] = isNamespace(name) ? Object.keys(fieldsOf(name)) : [];
  return `Name one of its fields, such as ${name}.${first}.`;
}

/** `&&`, `||` or `?:` on something that is neither true nor false. */
function notLogical(summary: string): Finding {
  const type = /got '(.+)'$/.exec(summary)?.[1] ?? "";
  return {
    code: "rules.type_mismatch",
    message: `CEL type error: &&, || and ?: need true or false, not ${typeWords(type)}`,
    hint: 'Compare it with something, as in http.host == "api.example.com".',
  };
}

function mixedTypes(summary: string): Finding {
  const [, expected = "", found = ""] = /expected type '(.+)' but found '(.+)'$/.exec(summary) ??
    [];
  return {
    code: "rules.type_mismatch",
    message: `CEL type error: ${typeWords(expected)} is expected here as before, not ${
      typeWords(found)
    }`,
    hint: "All values of a list or map must be of one type.",
  };
}

function missingVariable(summary: string): Finding {
  const name = /^[a-z_]+/.exec(summary)?.[0] ?? "";
  return {
    code: "rules.wrong_call",
    message: `CEL type error: ${name}() needs the name of a variable first`,
    hint: `Write: ${FUNCTIONS[name] ?? ""}`,
  };
}

function wrongCall(node: ASTNode | undefined): Finding {
  const name = node?.op === "call" || node?.op === "rcall" ? node.args[0] : "";
  if (Object.hasOwn(FUNCTIONS, name)) {
    return {
      code: "rules.wrong_call",
      message: `CEL type error: ${name}() cannot be called like this`,
      hint: `Write: ${FUNCTIONS[name] ?? ""}`,
    };
  }
  const meant = nearest(name, Object.keys(FUNCTIONS));
  return {
    code: "rules.unknown_function",
    message: `CEL type error: there is no function '${name}'`,
    hint: meant === null
      ? `Functions: ${Object.keys(FUNCTIONS).join(", ")}.`
      : `Did you mean ${FUNCTIONS[meant] ?? meant}?`,
  };
}

/** What a syntax error is about, from the text at its position. */
function syntaxError(summary: string, text: string, start: number, end: number): Finding {
  const code = "rules.syntax";
  const rest = text.slice(start);
  const word = /^[A-Za-z]+/.exec(rest)?.[0] ?? "";
  if (rest.trim() === "") {
    return {
      code,
      message: summary.startsWith("Expected RPAREN")
        ? "CEL parse error: a closing ')' is missing"
        : summary.startsWith("Expected RBRACKET")
        ? "CEL parse error: a closing ']' is missing"
        : "CEL parse error: the condition ends too early",
      hint: summary.startsWith("Unexpected")
        ? "Something is missing after the last operator."
        : undefined,
    };
  }
  // `not x` fails at x, because `not` by itself is a name.
  const before = /\b(?:not|NOT)(?=\s+$)/.exec(text.slice(0, start))?.[0] ?? "";
  const foreign = [before, word].find((each) => Object.hasOwn(OPERATOR_WORDS, each));
  if (foreign !== undefined) {
    return {
      code,
      message: `CEL parse error: unexpected '${foreign}'`,
      hint: `CEL writes ${OPERATOR_WORDS[foreign] ?? ""} instead.`,
    };
  }
  const single = /^[=&|](?![=&|])/.exec(rest)?.[0];
  if (single !== undefined) {
    return {
      code,
      message: `CEL parse error: unexpected '${single}'`,
      hint: `Write ${single}${single} instead of ${single}.`,
    };
  }
  if (/^(?:Unterminated|Newlines)/.test(summary)) {
    return {
      code,
      message: "CEL parse error: a text is not closed",
      hint: "Add the closing quote on the same line.",
    };
  }
  if (/^(?:Invalid|Octal)/.test(summary)) {
    return {
      code,
      message: `CEL parse error: ${summary.charAt(0).toLowerCase()}${summary.slice(1)}`,
      hint: /escape/i.test(summary) ? "Write \\\\ for one backslash, or use r'…'." : undefined,
    };
  }
  if (summary.startsWith("Reserved")) {
    return { code, message: `CEL parse error: '${word}' is a reserved word` };
  }
  const shown = word !== "" ? word : text.slice(start, Math.max(end, start + 1));
  return { code, message: `CEL parse error: unexpected '${shown}'` };
}

/** The library's errors carry either a node of the tree or a mere place. */
function isSyntaxTree(node: object): node is ASTNode {
  return "op" in node && "args" in node;
}

function problemOf(thrown: unknown, text: string): CelProblem {
  if (!(thrown instanceof ParseError || thrown instanceof TypeError)) {
    // The parser and the checker recurse; anything else is a defect of ours.
    if (!(thrown instanceof RangeError)) throw thrown;
    return {
      code: "rules.too_deep",
      message: "CEL parse error: the condition is nested too deeply",
      hint: "Split it into several rules.",
      start: 0,
      end: text.length,
    };
  }
  const { start, end } = thrown.range ?? { start: 0, end: text.length };
  const { code, summary, node } = thrown;
  const tree = node !== undefined && isSyntaxTree(node) ? node : undefined;
  const at = (finding: Finding): CelProblem => ({ ...finding, start, end });
  switch (code) {
    case "unknown_variable":
      return at(undefinedIdentifier(text.slice(start, end), text, end));
    case "no_such_key":
      return at(unknownField(tree));
    case "no_such_overload":
      return at(wrongOperands(summary));
    case "no_matching_overload":
      return at(wrongCall(tree));
    case "invalid_logical_operand":
    case "invalid_condition_type":
      return at(notLogical(summary));
    case "heterogeneous_list_element":
    case "heterogeneous_map_key":
    case "heterogeneous_map_value":
      return at(mixedTypes(summary));
    case "invalid_macro_argument":
      return at(missingVariable(summary));
    case "limit_exceeded":
      return at({
        code: "rules.too_complex",
        message: "CEL parse error: the condition is too complex",
        hint: "Split it into several rules, or put many hosts into one list: http.host in [...].",
      });
    default:
      return thrown instanceof ParseError
        ? at(syntaxError(summary, text, start, end))
        : at({ code: "rules.type_mismatch", message: `CEL type error: ${summary}` });
  }
}

function children(node: ASTNode): readonly ASTNode[] {
  switch (node.op) {
    case "value":
    case "id":
      return [];
    case ".":
    case ".?":
      return [node.args[0]];
    case "call":
      return node.args[1];
    case "rcall":
      return [node.args[1], ...node.args[2]];
    case "map":
      return node.args.flat();
    case "!_":
    case "-_":
      return [node.args];
    default:
      return node.args;
  }
}

/** Whether the tree is higher than `limit`; without recursion, which is what it guards. */
function isDeeper(root: ASTNode, limit: number): boolean {
  let level: readonly ASTNode[] = [root];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > limit) return true;
    level = level.flatMap((node) => [...children(node)]);
  }
  return false;
}

/** Parses and checks `text`. */
export function checkExpression(environment: Environment, text: string): Checked {
  try {
    const parsed = environment.parse(text);
    if (isDeeper(parsed.ast, LIMITS.expressionDepth)) {
      const problem = {
        code: "rules.too_deep",
        message:
          `CEL parse error: more than ${LIMITS.expressionDepth} operators are chained or nested`,
        hint: "Put many hosts into one list, http.host in [...], or split the rule.",
        start: 0,
        end: text.length,
      };
      return { ok: false, problem };
    }
    const result = parsed.check();
    if (result.error !== undefined) throw result.error;
    return { ok: true, ast: parsed.ast, type: result.type ?? "dyn" };
  } catch (thrown) {
    return { ok: false, problem: problemOf(thrown, text) };
  }
}
