/** Random, type-correct conditions and facts, small enough that things are equal now and then. */
import fc from "fast-check";
import { costNs } from "../../lib/rules/cost.ts";
import { LIMITS } from "../../lib/rules/limits.ts";
import type { Facts } from "../../lib/rules/types.ts";
import { exprOf } from "./support.ts";

const TEXTS = ["", "a", "b", "ab", "aB", "a.b", "x.org", "a/b", "𝒳a", "5", "-3"];
const KEYS = ["a", "b", "x-y", "toString"];
const HOSTS = ["x.org", "a.x.org", "y.org", "evilx.org", "org"];

function literal(text: string): string {
  return JSON.stringify(text);
}

const text = fc.constantFrom(...TEXTS);
const texts = fc.array(text, { maxLength: 4 });

/** Facts in which everything is known. */
export const completeFacts: fc.Arbitrary<Required<Facts>> = fc.record({
  network: fc.record({
    hostname: fc.constantFrom(...HOSTS),
    ip: fc.constantFrom("10.0.0.1", "93.184.216.34", "::1"),
    port: fc.integer({ min: 1, max: 5 }),
    protocol: fc.constantFrom("tcp", "udp"),
  }),
  http: fc.record({
    method: fc.constantFrom("GET", "POST", "CONNECT"),
    path: fc.constantFrom("/", "/a", "/a/b", "/b"),
    host: fc.constantFrom(...HOSTS),
    headers: fc.dictionary(fc.constantFrom(...KEYS), text, { maxKeys: 3 }),
    body_size: fc.integer({ min: 0, max: 5 }),
  }),
  dns: fc.record({
    query: fc.constantFrom(...HOSTS),
    record_type: fc.constantFrom("A", "AAAA"),
  }),
  agent: fc.record({ name: text }),
  docker: fc.record({
    image: text,
    command: texts,
    volumes: texts,
    env_keys: texts,
    capabilities: texts,
  }),
  run: fc.record({
    tool: text,
    args: texts,
    flags: texts,
    cwd: text,
    context: fc.dictionary(
      fc.constantFrom(...KEYS),
      fc.oneof(text, fc.boolean(), fc.constant(null), texts),
      { maxKeys: 3 },
    ),
  }),
});

const TEXT_FACTS = [
  "network.hostname",
  "network.ip",
  "http.method",
  "http.path",
  "http.host",
  "dns.query",
  "agent.name",
  "docker.image",
  "run.tool",
  "run.cwd",
];
const INT_FACTS = ["network.port", "http.body_size"];
const LIST_FACTS = ["run.args", "run.flags", "docker.command", "docker.volumes"];
const PATTERNS = ["a", "^a", "b$", "a.b", "(a|b)+", "[^a]", "^$", "x\\.org$", "^/a(/|$)"];

interface Levels {
  readonly condition: fc.Arbitrary<string>;
  readonly text: fc.Arbitrary<string>;
  readonly int: fc.Arbitrary<string>;
  readonly list: fc.Arbitrary<string>;
}

function join(...parts: (string | fc.Arbitrary<string>)[]): fc.Arbitrary<string> {
  const arbitraries = parts.map((part) => typeof part === "string" ? fc.constant(part) : part);
  return fc.tuple(...arbitraries).map((each) => each.join(""));
}

function leaves(variables: readonly string[]): Levels {
  const textLeaf = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(...TEXT_FACTS) },
    { weight: 2, arbitrary: text.map(literal) },
    ...(variables.length === 0 ? [] : [{ weight: 4, arbitrary: fc.constantFrom(...variables) }]),
  );
  return {
    condition: fc.oneof(
      { weight: 1, arbitrary: fc.constantFrom("true", "false") },
      { weight: 6, arbitrary: join(textLeaf, fc.constantFrom(" == ", " != "), textLeaf) },
    ),
    text: textLeaf,
    int: fc.oneof(fc.constantFrom(...INT_FACTS), fc.integer({ min: -3, max: 5 }).map(String)),
    list: fc.oneof(
      fc.constantFrom(...LIST_FACTS),
      texts.filter((each) => each.length > 0).map((each) => `[${each.map(literal).join(", ")}]`),
    ),
  };
}

/** Expressions one level higher than `below`; `inner` is used in bodies of comprehensions. */
function above(below: Levels, inner: Levels, variable: string): Levels {
  const { condition, text: string, int, list } = below;
  const key = fc.constantFrom(...KEYS).map(literal);
  return {
    condition: fc.oneof(
      condition,
      join("(", condition, " && ", condition, ")"),
      join("(", condition, " || ", condition, ")"),
      join("!(", condition, ")"),
      join("(", condition, " ? ", condition, " : ", condition, ")"),
      join("(", string, fc.constantFrom(" == ", " != ", " < ", " >= "), string, ")"),
      join("(", int, fc.constantFrom(" == ", " != ", " < ", " <= ", " > ", " >= "), int, ")"),
      join("(", list, fc.constantFrom(" == ", " != "), list, ")"),
      join("(", string, " in ", list, ")"),
      join("(", key, " in ", fc.constantFrom("http.headers", "run.context"), ")"),
      join(fc.constantFrom("has(http.headers.a)", "has(run.context.b)")),
      join("(run.context[", key, fc.constantFrom("] == ", "] != "), string, ")"),
      join(
        "(",
        string,
        ").",
        fc.constantFrom("startsWith", "endsWith", "contains"),
        "(",
        string,
        ")",
      ),
      join("(", string, ").matches(", fc.constantFrom(...PATTERNS).map(literal), ")"),
      join(
        "(",
        list,
        ").",
        fc.constantFrom("exists", "all", "exists_one"),
        `(${variable}, `,
        inner.condition,
        ")",
      ),
      join(
        fc.constantFrom("http.headers", "run.context"),
        ".",
        fc.constantFrom("exists", "all"),
        `(${variable}, `,
        inner.condition,
        ")",
      ),
    ),
    text: fc.oneof(
      string,
      join("(", string, " + ", string, ")"),
      join("(", condition, " ? ", string, " : ", string, ")"),
      join("http.headers[", key, "]"),
      join("(", list, ")[", int, "]"),
      join("(", string, ").", fc.constantFrom("lowerAscii", "upperAscii", "trim"), "()"),
      join("(", string, ").substring(", int, ")"),
      join("(", string, ").substring(", int, ", ", int, ")"),
      join("(", list, ").join(", string, ")"),
      join("string(", int, ")"),
    ),
    int: fc.oneof(
      int,
      join("(", int, fc.constantFrom(" + ", " - ", " * ", " / ", " % "), int, ")"),
      join("(", condition, " ? ", int, " : ", int, ")"),
      join("(", fc.oneof(string, list), ").size()"),
      join("(", string, ").", fc.constantFrom("indexOf", "lastIndexOf"), "(", string, ")"),
      join("(-(", int, "))"),
      fc.constantFrom('int("5")', 'int("-3")', 'int("x")'),
    ),
    list: fc.oneof(
      list,
      join("(", list, " + ", list, ")"),
      join("(", condition, " ? ", list, " : ", list, ")"),
      join("(", list, ").filter(", `${variable}, `, inner.condition, ")"),
      join("(", list, ").map(", `${variable}, `, inner.text, ")"),
      join("(", string, ").split(", fc.constantFrom('"/"', '"."', '""'), ")"),
    ),
  };
}

function levels(depth: number, variables: readonly string[]): Levels {
  if (depth === 0) return leaves(variables);
  const variable = `v${variables.length}`;
  const inner = variables.length < 2
    ? levels(depth - 1, [...variables, variable])
    : leaves([...variables, variable]);
  return above(levels(depth - 1, variables), inner, variable);
}

/** A random condition. */
export const condition: fc.Arbitrary<string> = levels(3, []).condition;

/** A random condition that a rule may have. */
export const ruleCondition: fc.Arbitrary<string> = condition.filter((text) => {
  const expr = exprOf(text);
  return expr !== null && costNs(expr) <= LIMITS.conditionCostNs;
});
