/**
 * Where each character of a YAML scalar's value stands in the file, so that an error inside a
 * condition points at the condition's text whatever quoting the operator chose.
 */
import { Scalar } from "yaml";
import type { Span } from "./diagnostic.ts";

/** A text value from a rule file that knows where its characters stand. */
export interface ScalarText {
  readonly value: string;
  /** The whole scalar in the file, quotes included. */
  readonly span: Span;
  /** File offset of the value's character `index`; `value.length` gives the end. */
  offsetOf(index: number): number;
}

const ESCAPE_LENGTHS: Readonly<Record<string, number>> = { x: 4, u: 6, U: 10 };

function isSpace(char: string | undefined): boolean {
  return char === " " || char === "\t" || char === "\n" || char === "\r";
}

/** Where the content starts: after the quote, or on the line after a block scalar's header. */
function contentStart(raw: string, type: string | undefined): number {
  if (type === Scalar.QUOTE_DOUBLE || type === Scalar.QUOTE_SINGLE) return 1;
  if (type === Scalar.BLOCK_FOLDED || type === Scalar.BLOCK_LITERAL) return raw.indexOf("\n") + 1;
  return 0;
}

/**
 * Index in `raw` for every index of `value`. Folding and indentation only ever drop or replace white
 * space, so walking both texts and skipping white space that is not in the value is enough.
 */
function align(raw: string, value: string, type: string | undefined): number[] {
  const map: number[] = [];
  let at = contentStart(raw, type);
  for (const char of value.split("")) {
    if (type === Scalar.QUOTE_DOUBLE) { while (raw.startsWith("\\\n", at)) at += 2; }
    if (type === Scalar.QUOTE_DOUBLE && raw[at] === "\\") {
      map.push(at);
      at += ESCAPE_LENGTHS[raw[at + 1] ?? ""] ?? 2;
      continue;
    }
    while (raw[at] !== char && isSpace(raw[at])) at++;
    map.push(Math.min(at, raw.length));
    if (raw[at] !== char) continue; // a space that stands for a folded line break
    at += type === Scalar.QUOTE_SINGLE && char === "'" ? 2 : 1;
  }
  map.push(Math.min(at, raw.length));
  return map;
}

/** The text scalar `node` of the file `text`. `value` is the node's text value. */
export function scalarText(node: Scalar, value: string, text: string): ScalarText {
  const [start = 0, end = start] = node.range ?? [];
  let map: number[] | undefined;
  return {
    value,
    span: { start, end },
    offsetOf(index): number {
      map ??= align(text.slice(start, end), value, node.type);
      return start + (map[index] ?? end - start);
    },
  };
}
