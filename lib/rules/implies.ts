/** Whether one condition holds whenever another does, as far as their shape tells. Never a wrong yes. */
import { isUnder } from "../net/host.ts";
import type { Expr } from "./ir.ts";

/** The same expression, wherever it is written. */
function same(a: Expr, b: Expr): boolean {
  return shape(a) === shape(b);
}

function shape(expr: Expr): string {
  return JSON.stringify(expr, (key, value: unknown) => key === "at" ? undefined : value);
}

/** A fact and the texts that it may have for the condition to hold. */
function textsOf(expr: Expr): { readonly fact: string; readonly texts: readonly string[] } | null {
  if (expr.op === "==") {
    const [fact, constant] = expr.left.op === "fact"
      ? [expr.left, expr.right]
      : [expr.right, expr.left];
    if (fact.op !== "fact" || constant.op !== "constant") return null;
    return typeof constant.value === "string" ? { fact: fact.name, texts: [constant.value] } : null;
  }
  if (expr.op !== "in" || expr.left.op !== "fact" || expr.right.op !== "constant") return null;
  const { value } = expr.right;
  if (!Array.isArray(value)) return null;
  const items: readonly unknown[] = value;
  const texts = items.filter((item) => typeof item === "string");
  return texts.length === items.length ? { fact: expr.left.name, texts } : null;
}

/** A fact and the domains that it may be under for the condition to hold. */
function domainsOf(
  expr: Expr,
): { readonly fact: string; readonly parents: readonly string[] } | null {
  return expr.op === "under" && expr.item.op === "fact"
    ? { fact: expr.item.name, parents: expr.parents }
    : null;
}

function impliesClause(a: Expr, b: Expr): boolean {
  const wide = textsOf(b);
  const narrow = textsOf(a);
  if (wide !== null && narrow !== null) {
    return wide.fact === narrow.fact && narrow.texts.every((text) => wide.texts.includes(text));
  }
  const domains = domainsOf(b);
  if (domains === null) return false;
  const covered = (name: string): boolean =>
    domains.parents.some((parent) => isUnder(name, parent));
  if (narrow !== null) return narrow.fact === domains.fact && narrow.texts.every(covered);
  const inner = domainsOf(a);
  return inner !== null && inner.fact === domains.fact && inner.parents.every(covered);
}

/** Whether `b` holds whenever `a` does. */
export function implies(a: Expr, b: Expr): boolean {
  if (b.op === "constant" && b.value === true) return true;
  if (same(a, b)) return true;
  if (a.op === "or") return a.items.every((item) => implies(item, b));
  if (b.op === "and") return b.items.every((item) => implies(a, item));
  if (b.op === "or" && b.items.some((item) => implies(a, item))) return true;
  if (a.op === "and") return a.items.some((item) => implies(item, b));
  return impliesClause(a, b);
}
