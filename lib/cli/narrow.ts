/** Narrower forms of what an agent asks for, to pick from. Pure. */
import { parseDocument } from "yaml";
import { checkProposal } from "../agent/candidate.ts";
import { OutcallError } from "../errors.ts";
import { compilePolicy } from "../rules/compile.ts";
import { mentions } from "../rules/ir.ts";
import type { FactName } from "../rules/language.ts";
import type { CompiledRule } from "../rules/policy.ts";

/** What the agent tried lately and was refused, as decision records have it. */
export interface Tried {
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  /** Known of plain HTTP only. */
  readonly method?: string | undefined;
  readonly path?: string | undefined;
}

/** One narrower form. */
export interface Narrowing {
  /** What is left, in a few words. */
  readonly label: string;
  readonly ruleFile: string;
}

/** More would not be read at a prompt. */
const MAX_EACH = 3;

/**
 * Narrower forms of `ruleFile`: for the agent that asks alone, for one host, port, method or path. Each
 * loads like any rule file; none are offered for what the rules say already.
 * @param agent Its name; empty for an agent without one.
 * @param tried Newest first.
 */
export function narrowings(
  ruleFile: string,
  agent: string,
  tried: readonly Tried[],
): readonly Narrowing[] {
  const compiled = compilePolicy([{ path: "request.yaml", text: ruleFile }], { generation: 0 });
  if (!compiled.ok) return [];
  const rules = compiled.policy.rules.filter(({ action }) => action === "allow");
  const says = (fact: FactName): boolean => rules.every(({ expr }) => mentions(expr, fact));
  const clauses: (readonly [label: string, clause: string])[] = [];
  if (!says("agent.name") && agent !== "") {
    clauses.push([`only the agent ${agent}`, `agent.name == ${celText(agent)}`]);
  }
  const hosts = hostsOf(rules, tried);
  if (hosts.length > 1 || rules.some(isWide)) {
    for (const host of hosts.slice(0, MAX_EACH)) {
      clauses.push([`only the host ${host}`, `http.host == ${celText(host)}`]);
    }
  }
  if (!says("network.port")) {
    for (const port of some(tried.map(({ port }) => port), 443)) {
      clauses.push([`only port ${port}`, `network.port == ${port}`]);
    }
  }
  const plain = tried.filter(({ method }) => method !== undefined && method !== "CONNECT");
  if (!says("http.method")) {
    for (const method of some(plain.map(({ method }) => method))) {
      clauses.push([`only ${method}, by plain HTTP`, `http.method == ${celText(method)}`]);
    }
  }
  if (!says("http.path")) {
    for (const path of some(plain.map(({ path }) => path))) {
      clauses.push([`only the path ${path}, by plain HTTP`, `http.path == ${celText(path)}`]);
    }
  }
  return clauses.flatMap(([label, clause]) => {
    const narrowed = withClause(ruleFile, clause);
    return narrowed === null ? [] : [{ label, ruleFile: narrowed }];
  });
}

function celText(text: string): string {
  return JSON.stringify(text);
}

/** The first few different ones; `fallback` when there are none. */
function some<T>(values: readonly (T | undefined)[], fallback?: T): T[] {
  const known = [...new Set(values.filter((value) => value !== undefined))].slice(0, MAX_EACH);
  return known.length === 0 && fallback !== undefined ? [fallback] : known;
}

function isWide({ hosts }: CompiledRule): boolean {
  return hosts === null || [...hosts.under].length > 0;
}

/** Hosts that the rules name, and those that were tried and that the rules open. */
function hostsOf(rules: readonly CompiledRule[], tried: readonly Tried[]): string[] {
  const named = rules.flatMap(({ hosts }) => hosts === null ? [] : [...hosts.exact]);
  const isOpened = (host: string): boolean =>
    rules.some(({ hosts }) =>
      hosts === null || [...hosts.under].some((suffix) => host.endsWith(`.${suffix}`))
    );
  return [...new Set([...named, ...some(tried.map(({ host }) => host)).filter(isOpened)])];
}

/** The file with every allow rule's condition narrowed by `clause`; null when that does not load. */
function withClause(ruleFile: string, clause: string): string | null {
  const document = parseDocument(ruleFile);
  const rules: unknown = document.toJS()?.["rules"];
  if (!Array.isArray(rules)) return null;
  for (const [i, rule] of rules.entries()) {
    const { action, condition } = rule;
    if (action === "allow") {
      document.setIn(["rules", i, "condition"], `(${condition}) && ${clause}`);
    }
  }
  const narrowed = document.toString({ lineWidth: 0 });
  try {
    checkProposal("request.yaml", narrowed);
    return narrowed;
  } catch (thrown) {
    if (thrown instanceof OutcallError) return null;
    throw thrown;
  }
}
