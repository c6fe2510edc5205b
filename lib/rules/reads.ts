/**
 * What the rules of a policy look at in a plain request. Requests that differ in nothing else get the
 * same verdict, so that only one of them needs to be judged.
 */
import { isTooLarge } from "./facts.ts";
import { type Expr, mentions, parts } from "./ir.ts";
import type { Facts } from "./types.ts";

type Headers = NonNullable<Facts["http"]>["headers"];

/** The one header that an expression looks up by its name; null: it is no such look-up. */
function headerNamed(expr: Expr): string | null {
  const isHeaders = (each: Expr): boolean => each.op === "fact" && each.name === "http.headers";
  const textOf = (each: Expr): string | null =>
    each.op === "constant" && typeof each.value === "string" ? each.value : null;
  if (expr.op === "has") return isHeaders(expr.item) ? expr.key : null;
  if (expr.op === "index") return isHeaders(expr.item) ? textOf(expr.key) : null;
  if (expr.op === "in") return isHeaders(expr.right) ? textOf(expr.left) : null;
  return null;
}

/** Adds the names of the headers that `expr` looks up; false when it reads all of them. */
function addHeaders(expr: Expr, names: Set<string>): boolean {
  const name = headerNamed(expr);
  if (name !== null) {
    names.add(name);
    return true;
  }
  if (expr.op === "fact") return expr.name !== "http.headers";
  return parts(expr).every((part) => addHeaders(part, names));
}

/** What rules look at in a request. */
export class RequestReads {
  readonly #path: boolean;
  readonly #bodySize: boolean;
  /** Null: every header. */
  readonly #headers: ReadonlySet<string> | null;

  /** @param conditions Of all rules. */
  constructor(conditions: readonly Expr[]) {
    this.#path = conditions.some((each) => mentions(each, "http.path"));
    this.#bodySize = conditions.some((each) => mentions(each, "http.body_size"));
    const names = new Set<string>();
    this.#headers = conditions.every((each) => addHeaders(each, names)) ? names : null;
  }

  /**
   * The first of each kind, in their order, of several `requests` that are alike but for path, headers
   * and the length of the body.
   */
  distinct<Request extends { readonly facts: Facts }>(
    requests: readonly Request[],
  ): readonly Request[] {
    if (requests.length === 1) return requests;
    const kinds = new Map<Headers, string>();
    const seen = new Set<string>();
    return requests.filter(({ facts: { http } }) => {
      const headers = kinds.get(http?.headers) ?? this.#kindOf(http?.headers, kinds.size);
      kinds.set(http?.headers, headers);
      const path = this.#path ? http?.path : null;
      const bodySize = this.#bodySize ? http?.body_size : null;
      const kind = JSON.stringify([path, bodySize, headers]);
      const isFirst = !seen.has(kind);
      seen.add(kind);
      return isFirst;
    });
  }

  /** Equal for headers in which the rules see the same. @param number Unlike that of any others. */
  #kindOf(headers: Headers, number: number): string {
    const names = this.#headers;
    // In all of them, even their order can be seen.
    if (names === null || headers === undefined) return String(number);
    if (names.size === 0) return "";
    const read = Object.entries(headers).filter(([name]) => names.has(name));
    // Names are unique: that is an order.
    read.sort(([a], [b]) => a < b ? -1 : 1);
    return JSON.stringify([isTooLarge("http.headers", headers), read]);
  }
}
