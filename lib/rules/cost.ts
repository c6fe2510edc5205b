/**
 * The worst case of evaluating a condition, in nanoseconds, on facts of any content within their
 * sizes (lib/rules/facts.ts). Text and arguments are chosen by agents, so the worst case is what a
 * hostile agent makes happen; a condition without an acceptable one is refused at load.
 *
 * The constants are measured on a slow machine and rounded up (tests/bench/policy.ts repeats the
 * measurement). They need not be exact: they must grow as the real cost grows.
 */
import { FACTS, type FactSize } from "./facts.ts";
import { type Expr, scalarsIn } from "./ir.ts";

/** One node: a call or two, a test of the result. */
const NODE_NS = 10;
/** One item of a list or map that is walked. */
const ITEM_NS = 15;
/** One character compared, copied or put through a pattern's table. */
const CHARACTER_NS = 5;
/** One character of a text whose letters are changed. */
const CASE_NS = 30;
/** Up to this length of needle V8 searches in linear time; beyond it, worst case is the product. */
const LINEAR_NEEDLE_CHARACTERS = 250;
const SEARCH_NS = 6;
/** Reading an address, and comparing it with one block. */
const ADDRESS_NS = 500;
const BLOCK_NS = 60;
const SUFFIX_NS = 20;

/** Time to evaluate an expression and the size of what it gives. */
interface Bound extends FactSize {
  readonly ns: number;
}

const SCALAR: FactSize = { items: 0, characters: 0 };
/** Longest text of a number. */
const NUMBER_TEXT: FactSize = { items: 0, characters: 20 };

/** Sizes of the comprehension variables in scope, by slot. */
type Variables = readonly FactSize[];

function constantSize(value: unknown): FactSize {
  if (typeof value === "string") return { items: 0, characters: value.length };
  if (!Array.isArray(value)) return SCALAR;
  const sizes = value.map(constantSize);
  return { items: value.length + total(sizes).items, characters: total(sizes).characters };
}

function total(sizes: readonly FactSize[]): FactSize {
  return {
    items: sizes.reduce((sum, size) => sum + size.items, 0),
    characters: sizes.reduce((sum, size) => sum + size.characters, 0),
  };
}

function largest(a: FactSize, b: FactSize): FactSize {
  return {
    items: Math.max(a.items, b.items),
    characters: Math.max(a.characters, b.characters),
  };
}

/** Walking a whole value. */
function walkNs(size: FactSize): number {
  return size.items * ITEM_NS + size.characters * CHARACTER_NS;
}

function searchNs(text: FactSize, needle: FactSize): number {
  return needle.characters <= LINEAR_NEEDLE_CHARACTERS
    ? text.characters * SEARCH_NS
    : text.characters * needle.characters;
}

function sumNs(bounds: readonly Bound[]): number {
  return bounds.reduce((sum, each) => sum + each.ns, NODE_NS);
}

function callBound(expr: Extract<Expr, { op: "call" }>, variables: Variables): Bound {
  const args = expr.items.map((item) => bound(item, variables));
  const ns = sumNs(args);
  const first = args[0] ?? { ns: 0, ...SCALAR };
  const second = args[1] ?? { ns: 0, ...SCALAR };
  const { characters } = first;
  switch (expr.name) {
    case "size":
      return { ns: ns + walkNs(first), ...SCALAR };
    case "startsWith":
    case "endsWith":
      return { ns: ns + second.characters * CHARACTER_NS, ...SCALAR };
    case "contains":
    case "indexOf":
    case "lastIndexOf":
      return { ns: ns + searchNs(first, second), ...SCALAR };
    case "lowerAscii":
    case "upperAscii":
      return { ns: ns + characters * CASE_NS, items: 0, characters };
    case "trim":
    case "substring":
      return { ns: ns + characters * CHARACTER_NS, items: 0, characters };
    case "split":
      return {
        ns: ns + searchNs(first, second) + characters * ITEM_NS,
        items: characters + 1,
        characters,
      };
    case "join": {
      const joined = characters + first.items * second.characters;
      return {
        ns: ns + walkNs({ items: first.items, characters: joined }),
        items: 0,
        characters: joined,
      };
    }
    case "string":
      return { ns: ns + ITEM_NS, ...largest({ items: 0, characters }, NUMBER_TEXT) };
    case "bool":
    case "int":
      return { ns: ns + NUMBER_TEXT.characters * CHARACTER_NS, ...SCALAR };
  }
}

/**
 * What the body of a comprehension costs over a whole list. Bodies grow at least linearly with their
 * element, so the worst list has one element that holds every character and many empty ones.
 */
function overElements(list: FactSize, measure: (element: FactSize) => Bound): Bound {
  const empty = measure(SCALAR);
  const full = measure(list);
  const others = Math.max(0, list.items - 1);
  return {
    ns: full.ns + others * empty.ns + list.items * ITEM_NS,
    items: full.items + others * empty.items,
    characters: full.characters + others * empty.characters,
  };
}

type ComprehensionExpr = Extract<Expr, { readonly slot: number; readonly list: Expr }>;

function comprehensionBound(expr: ComprehensionExpr, variables: Variables): Bound {
  const list = bound(expr.list, variables);
  const over = (body: Expr): Bound =>
    overElements(list, (element) => {
      const inner = [...variables];
      inner[expr.slot] = element;
      return bound(body, inner);
    });
  const body = over(expr.body);
  const filter = expr.filter === null ? null : over(expr.filter);
  const ns = NODE_NS + list.ns + body.ns + (filter?.ns ?? 0);
  if (expr.op === "filter") return { ...list, ns };
  if (expr.op !== "map") return { ns, ...SCALAR };
  return { ns, items: list.items + body.items, characters: body.characters };
}

function bound(expr: Expr, variables: Variables): Bound {
  switch (expr.op) {
    case "constant":
      return { ns: NODE_NS, ...constantSize(expr.value) };
    case "fact": {
      const { items, characters } = FACTS[expr.name];
      // Reading a list or map includes measuring it.
      return { ns: NODE_NS + items * ITEM_NS, items, characters };
    }
    case "variable":
      return { ns: NODE_NS, ...(variables[expr.slot] ?? SCALAR) };
    case "and":
    case "or":
      return { ns: sumNs(expr.items.map((item) => bound(item, variables))), ...SCALAR };
    case "not":
    case "negate":
    case "has":
      return { ns: NODE_NS + bound(expr.item, variables).ns, ...SCALAR };
    case "if": {
      const condition = bound(expr.condition, variables);
      const then = bound(expr.then, variables);
      const otherwise = bound(expr.otherwise, variables);
      return {
        ns: NODE_NS + condition.ns + Math.max(then.ns, otherwise.ns),
        ...largest(then, otherwise),
      };
    }
    case "index": {
      const item = bound(expr.item, variables);
      return { ...item, ns: item.ns + bound(expr.key, variables).ns + NODE_NS };
    }
    case "list": {
      const items = expr.items.map((item) => bound(item, variables));
      const size = total(items);
      return {
        ns: sumNs(items) + items.length * ITEM_NS,
        items: size.items + items.length,
        characters: size.characters,
      };
    }
    case "record": {
      const values = expr.entries.map(([, value]) => bound(value, variables));
      const size = total(values);
      return {
        ns: sumNs(values) + values.length * ITEM_NS,
        items: size.items + values.length,
        characters: size.characters,
      };
    }
    case "call":
      return callBound(expr, variables);
    case "matches": {
      const item = bound(expr.item, variables);
      return { ns: item.ns + NODE_NS + item.characters * CHARACTER_NS, ...SCALAR };
    }
    case "under":
      return {
        ns: bound(expr.item, variables).ns + NODE_NS + expr.parents.length * SUFFIX_NS,
        ...SCALAR,
      };
    case "inCidr":
      return {
        ns: bound(expr.item, variables).ns + ADDRESS_NS + expr.blocks.length * BLOCK_NS,
        ...SCALAR,
      };
    case "all":
    case "exists":
    case "exists_one":
    case "filter":
    case "map":
      return comprehensionBound(expr, variables);
    case "in": {
      const left = bound(expr.left, variables);
      const right = bound(expr.right, variables);
      const walked = scalarsIn(expr.right) === null ? walkNs(right) : walkNs(left);
      return { ns: sumNs([left, right]) + walked, ...SCALAR };
    }
    case "+": {
      const left = bound(expr.left, variables);
      const right = bound(expr.right, variables);
      const size = total([left, right]);
      return { ns: sumNs([left, right]) + walkNs(size), ...size };
    }
    case "-":
    case "*":
    case "/":
    case "%":
      return { ns: sumNs([bound(expr.left, variables), bound(expr.right, variables)]), ...SCALAR };
    default: {
      const left = bound(expr.left, variables);
      const right = bound(expr.right, variables);
      const compared = {
        items: Math.min(left.items, right.items),
        characters: Math.min(left.characters, right.characters),
      };
      return { ns: sumNs([left, right]) + walkNs(compared), ...SCALAR };
    }
  }
}

/** The worst case of evaluating `expr`, in nanoseconds. */
export function costNs(expr: Expr): number {
  return bound(expr, []).ns;
}
