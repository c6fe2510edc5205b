/**
 * The vocabulary of conditions: namespaces, their fields and types, and the functions that may be
 * called on them. One table; the type checker, the evaluator and the error messages read it.
 */
import type { Layer } from "./types.ts";

/** Types of values as the evaluator sees them; `dyn` is known at run time only. */
export type ValueType = "bool" | "int" | "string" | "list" | "map" | "null" | "dyn";

/** The CEL type of every field of every namespace. */
export const NAMESPACES = {
  network: { hostname: "string", ip: "string", port: "int", protocol: "string" },
  http: {
    method: "string",
    path: "string",
    host: "string",
    headers: "map<string, string>",
    body_size: "int",
  },
  dns: { query: "string", record_type: "string" },
  agent: { name: "string" },
  docker: {
    image: "string",
    command: "list<string>",
    volumes: "list<string>",
    env_keys: "list<string>",
    capabilities: "list<string>",
  },
  run: {
    tool: "string",
    args: "list<string>",
    flags: "list<string>",
    cwd: "string",
    context: "map<string, dyn>",
  },
} as const satisfies Readonly<Record<string, Readonly<Record<string, string>>>>;

/** Name of a namespace, such as `http`. */
export type Namespace = keyof typeof NAMESPACES;

/** Path of a fact, such as `http.host`. */
export type FactName = {
  [N in Namespace]: `${N}.${keyof (typeof NAMESPACES)[N] & string}`;
}[Namespace];

/** Whether `name` is a namespace. */
export function isNamespace(name: string): name is Namespace {
  return Object.hasOwn(NAMESPACES, name);
}

/** Fields of a namespace with their CEL types. */
export function fieldsOf(namespace: Namespace): Readonly<Record<string, string>> {
  return NAMESPACES[namespace];
}

/** Every fact, such as `http.host`. */
export const FACT_NAMES: readonly FactName[] = Object.entries(NAMESPACES).flatMap(
  ([namespace, fields]) => Object.keys(fields).map((field) => `${namespace}.${field}` as FactName),
);

const NOTHING_PENDING: ReadonlySet<FactName> = new Set();
const ADDRESS_PENDING: ReadonlySet<FactName> = new Set<FactName>(["network.ip"]);

/**
 * Facts that a layer does not know yet and a later layer will, for the same attempt. A condition
 * that waits for these alone may still come true, so an allow rule counts; a condition that waits
 * for a fact which never comes (such as `run.tool` in a DNS query) can never open anything.
 */
export const PENDING_FACTS: Readonly<Record<Layer, ReadonlySet<FactName>>> = {
  dns: new Set<FactName>([
    "network.ip",
    "network.port",
    "network.protocol",
    "http.method",
    "http.path",
    "http.headers",
    "http.body_size",
  ]),
  // The name is not resolved yet: decision D32.
  connect: ADDRESS_PENDING,
  sni: ADDRESS_PENDING,
  http: ADDRESS_PENDING,
  // Known when a grant is made; open in a question that names no address.
  grant: ADDRESS_PENDING,
  dial: NOTHING_PENDING,
  agent: NOTHING_PENDING,
  container: NOTHING_PENDING,
};

/** Macros: their argument is evaluated once for each element. */
export const MACROS = ["all", "exists", "exists_one", "filter", "map"] as const;

/** Functions and methods, with how each is written, for messages. */
export const FUNCTIONS: Readonly<Record<string, string>> = {
  all: "list.all(x, condition)",
  bool: "bool(text)",
  contains: "text.contains(text)",
  endsWith: "text.endsWith(text)",
  exists: "list.exists(x, condition)",
  exists_one: "list.exists_one(x, condition)",
  filter: "list.filter(x, condition)",
  has: "has(map.key)",
  inCidr: 'address.inCidr("10.0.0.0/8") or address.inCidr(["10.0.0.0/8", "fd00::/8"])',
  indexOf: "text.indexOf(text)",
  int: "int(text)",
  join: "list.join(text)",
  lastIndexOf: "text.lastIndexOf(text)",
  lowerAscii: "text.lowerAscii()",
  map: "list.map(x, value)",
  matches: 'text.matches("pattern")',
  size: "text.size() or list.size()",
  split: "text.split(text)",
  startsWith: "text.startsWith(text)",
  string: "string(number)",
  substring: "text.substring(start, end)",
  trim: "text.trim()",
  under: 'host.under("example.com") or host.under(["example.com", "example.org"])',
  upperAscii: "text.upperAscii()",
};
