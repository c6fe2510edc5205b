/**
 * Which rules can matter for a host, so that a decision costs what the rules about this host cost and
 * not what the policy as a whole would.
 *
 * The index may only leave a rule out when its condition can be neither true, nor become true, nor
 * fail. It is a filter in front of the evaluation, never a replacement of it.
 */
import { FACTS } from "./facts.ts";
import type { Expr } from "./ir.ts";
import type { FactName } from "./language.ts";
import type { Facts } from "./types.ts";

/** Hosts that could make a condition count: exactly these, and everything under those. */
export interface HostSet {
  readonly exact: ReadonlySet<string>;
  readonly under: ReadonlySet<string>;
}

const HOST_FACTS: ReadonlySet<FactName> = new Set<FactName>([
  "network.hostname",
  "http.host",
  "dns.query",
]);

const NO_HOST: HostSet = { exact: new Set(), under: new Set() };

function isHostFact(expr: Expr): boolean {
  return expr.op === "fact" && HOST_FACTS.has(expr.name);
}

function exactly(texts: readonly string[]): HostSet {
  return { exact: new Set(texts), under: new Set() };
}

function textsIn(expr: Expr): readonly string[] | null {
  if (expr.op !== "constant" || !Array.isArray(expr.value)) return null;
  const texts: string[] = [];
  // Hosts are texts: what is not one in the list can never be equal.
  for (const item of expr.value) if (typeof item === "string") texts.push(item);
  return texts;
}

function equalityHosts(left: Expr, right: Expr): HostSet | null {
  for (const [a, b] of [[left, right], [right, left]] as const) {
    if (isHostFact(a) && b.op === "constant" && typeof b.value === "string") {
      return exactly([b.value]);
    }
  }
  return null;
}

/** Hosts that end in `suffix`: those under the part of it that is made of whole labels. */
function suffixHosts(suffix: string): HostSet | null {
  const dot = suffix.indexOf(".");
  if (dot < 0 || dot === suffix.length - 1) return null;
  return { exact: new Set(), under: new Set([suffix.slice(dot + 1)]) };
}

function sizeOf(set: HostSet): number {
  // A suffix is likelier to match than a name: prefer names.
  return set.exact.size + 4 * set.under.size;
}

function smallest(sets: readonly (HostSet | null)[]): HostSet | null {
  let best: HostSet | null = null;
  for (const set of sets) {
    if (set !== null && (best === null || sizeOf(set) < sizeOf(best))) best = set;
  }
  return best;
}

function union(sets: readonly (HostSet | null)[]): HostSet | null {
  const exact = new Set<string>();
  const under = new Set<string>();
  for (const set of sets) {
    if (set === null) return null;
    for (const name of set.exact) exact.add(name);
    for (const name of set.under) under.add(name);
  }
  return { exact, under };
}

/**
 * The hosts for which the condition may count, or null when any host may. For every other host, or
 * none, the condition is false, or waits for a fact that never comes: both without a failure.
 */
export function hostsOf(expr: Expr): HostSet | null {
  switch (expr.op) {
    case "constant":
      return expr.value === false ? NO_HOST : null;
    case "and":
      return smallest(expr.items.map(hostsOf));
    case "or":
      return union(expr.items.map(hostsOf));
    case "==":
      return equalityHosts(expr.left, expr.right);
    case "in": {
      const texts = isHostFact(expr.left) ? textsIn(expr.right) : null;
      return texts === null ? null : exactly(texts);
    }
    case "under":
      return isHostFact(expr.item) ? { exact: new Set(), under: new Set(expr.parents) } : null;
    case "call": {
      const [item, suffix] = expr.items;
      if (expr.name !== "endsWith" || item === undefined || !isHostFact(item)) return null;
      return suffix?.op === "constant" && typeof suffix.value === "string"
        ? suffixHosts(suffix.value)
        : null;
    }
    default:
      return null;
  }
}

/** Positions of rules, ascending. */
type Positions = readonly number[];

function add(map: Map<string, number[]>, key: string, position: number): void {
  const positions = map.get(key);
  if (positions === undefined) map.set(key, [position]);
  else positions.push(position);
}

const MAX_HOST_CHARACTERS = FACTS["http.host"].characters;

/**
 * The distinct hosts that the facts name, or null when one is longer than a host can be: reading it is
 * a failure, which makes a rule about any other host count.
 */
function hostsIn(facts: Facts): string[] | null {
  const hosts: string[] = [];
  for (const host of [facts.network?.hostname, facts.http?.host, facts.dns?.query]) {
    if (host === undefined || hosts.includes(host)) continue;
    if (host.length > MAX_HOST_CHARACTERS) return null;
    hosts.push(host);
  }
  return hosts;
}

/** Positions of several ascending lists, ascending and each once. */
export class Candidates {
  readonly #lists: readonly Positions[];
  readonly #next: number[];
  #last = -1;

  constructor(lists: readonly Positions[]) {
    this.#lists = lists;
    this.#next = lists.map(() => 0);
  }

  /** The next position, or -1 when there is none. */
  next(): number {
    for (;;) {
      let least = -1;
      let from = -1;
      for (let i = 0; i < this.#lists.length; i++) {
        const position = this.#lists[i]?.[this.#next[i] ?? 0];
        if (position !== undefined && (least < 0 || position < least)) {
          least = position;
          from = i;
        }
      }
      if (from < 0) return -1;
      this.#next[from] = (this.#next[from] ?? 0) + 1;
      if (least === this.#last) continue;
      this.#last = least;
      return least;
    }
  }
}

/** Finds the rules that can matter for an attempt. */
export interface RuleIndex {
  /** The rules to evaluate for these facts, in evaluation order. */
  candidates(facts: Facts): Candidates;
}

/** Rules by the hosts that they can be about. */
export class HostIndex implements RuleIndex {
  readonly #all: Positions;
  readonly #any: number[] = [];
  readonly #exact = new Map<string, number[]>();
  readonly #under = new Map<string, number[]>();
  /** Most labels of a name in {@linkcode HostIndex.#under}: longer suffixes need no look-up. */
  #maxLabels = 0;

  /** @param conditions In evaluation order. */
  constructor(conditions: readonly Expr[]) {
    this.#all = conditions.map((_, position) => position);
    for (const [position, condition] of conditions.entries()) {
      this.#insert(hostsOf(condition), position);
    }
  }

  #insert(hosts: HostSet | null, position: number): void {
    if (hosts === null) {
      this.#any.push(position);
      return;
    }
    for (const name of hosts.exact) add(this.#exact, name, position);
    for (const name of hosts.under) {
      add(this.#under, name, position);
      this.#maxLabels = Math.max(this.#maxLabels, name.split(".").length);
    }
  }

  candidates(facts: Facts): Candidates {
    const hosts = hostsIn(facts);
    if (hosts === null) return new Candidates([this.#all]);
    const lists: Positions[] = [];
    if (this.#any.length > 0) lists.push(this.#any);
    for (const host of hosts) {
      const exact = this.#exact.get(host);
      if (exact !== undefined) lists.push(exact);
      this.#addSuffixes(host, lists);
    }
    return new Candidates(lists);
  }

  #addSuffixes(host: string, lists: Positions[]): void {
    let start = host.length;
    for (let labels = 0; labels < this.#maxLabels && start > 0; labels++) {
      const dot = host.lastIndexOf(".", start - 2);
      start = dot + 1;
      const under = this.#under.get(start === 0 ? host : host.slice(start));
      if (under !== undefined) lists.push(under);
    }
  }
}
