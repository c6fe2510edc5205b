/**
 * `$name`: named fragments of conditions, scoped to their file (S003-FR-006).
 *
 * A fragment is put in parentheses where it is used. It must also be a whole expression by itself,
 * which the compiler checks: otherwise `a) || (b` would escape from them.
 */
import type { Diagnostic, Finding, Source, Span } from "./diagnostic.ts";
import { LIMITS } from "./limits.ts";
import type { ScalarText } from "./scalar.ts";
import { nearest } from "./suggest.ts";

/** A condition ready for the CEL parser, which knows where its characters stand in the file. */
export interface Expression {
  readonly text: string;
  /** The place in the file of the characters from `start` to `end`. */
  locate(start: number, end: number): Span;
}

/** A piece of an expression's text and the piece of its scalar that it comes from. */
interface Piece {
  readonly text: string;
  /** Index in the scalar's value. */
  readonly index: number;
  /** Length in the scalar's value; differs from the text's for `$name`. */
  readonly length: number;
}

const NAME = /\$([A-Za-z_][A-Za-z0-9_]*)/y;

/**
 * Index after the text literal that starts at `start`, closed or not. As the CEL parser reads it: a
 * backslash always takes the next character along, in raw literals too.
 */
function endOfLiteral(value: string, start: number): number {
  const quote = value[start] ?? "";
  const delimiter = value.startsWith(quote.repeat(3), start) ? quote.repeat(3) : quote;
  for (let at = start + delimiter.length; at < value.length; at++) {
    if (value[at] === "\\") at++;
    else if (value.startsWith(delimiter, at)) return at + delimiter.length;
  }
  return value.length;
}

/** Cuts a condition into plain text and `$name`; what looks like one in a literal is plain text. */
function pieces(value: string): (Piece & { readonly name?: string })[] {
  const result: (Piece & { readonly name?: string })[] = [];
  let from = 0;
  const push = (to: number): void => {
    if (to > from) result.push({ text: value.slice(from, to), index: from, length: to - from });
  };
  let at = 0;
  while (at < value.length) {
    NAME.lastIndex = at;
    const use = value[at] === "$" ? NAME.exec(value) : null;
    if (use !== null) {
      const [text, name = ""] = use;
      push(at);
      result.push({ text, index: at, length: text.length, name });
      from = at += text.length;
    } else if (value.startsWith("//", at)) {
      // Comments are dropped: one would swallow the parenthesis that is put after a fragment.
      push(at);
      const newline = value.indexOf("\n", at);
      from = at = newline < 0 ? value.length : newline;
    } else if (value[at] === '"' || value[at] === "'") {
      at = endOfLiteral(value, at);
    } else {
      at++;
    }
  }
  push(value.length);
  return result;
}

/** Joins pieces into an expression over `scalar`. */
function expression(scalar: ScalarText, parts: readonly Piece[]): Expression {
  const starts: number[] = [];
  let length = 0;
  for (const part of parts) {
    starts.push(length);
    length += part.text.length;
  }
  const offset = (at: number, isEnd: boolean): number => {
    let i = starts.findLastIndex((start) => isEnd ? start < at : start <= at);
    i = Math.max(0, i);
    const part = parts[i];
    if (part === undefined) return scalar.span.start;
    const into = part.text.length === part.length ? at - (starts[i] ?? 0) : isEnd ? part.length : 0;
    return scalar.offsetOf(part.index + Math.min(into, part.length));
  };
  return {
    text: parts.map((part) => part.text).join(""),
    locate: (start, end) => ({ start: offset(start, false), end: offset(end, true) }),
  };
}

/** What became of a condition or definition. */
export type Expanded =
  | { readonly ok: true; readonly expression: Expression }
  /** What is wrong was reported here, or where the definition stands. */
  | { readonly ok: false };

const REFUSED: Expanded = { ok: false };

/** The definitions of one file. */
export class Definitions {
  readonly #expanded = new Map<string, Expanded>();
  readonly #used = new Set<string>();
  readonly #stack: string[] = [];
  /** What expansions may still add up to: a small file must not become a long job. */
  #allowance: number;

  /**
   * @param source The file.
   * @param scalars Its definitions by name.
   * @param report Receives everything that is wrong, each thing once.
   */
  constructor(
    readonly source: Source,
    readonly scalars: ReadonlyMap<string, ScalarText>,
    readonly report: (diagnostic: Diagnostic) => void,
  ) {
    this.#allowance = LIMITS.conditionLength + LIMITS.expansionFactor * source.text.length;
  }

  /** Every definition with what it expands to; reports cycles and unknown names. */
  expandAll(): ReadonlyMap<string, Expanded> {
    for (const name of this.scalars.keys()) this.#expandDefinition(name);
    return this.#expanded;
  }

  /** Marks a definition as broken for reasons found by the CEL checker. */
  refuse(name: string): void {
    this.#expanded.set(name, REFUSED);
  }

  /** Whether a definition is broken. */
  isRefused(name: string): boolean {
    return this.#expanded.get(name)?.ok === false;
  }

  /** The definitions that `name` uses directly. */
  usesOf(name: string): string[] {
    return pieces(this.scalars.get(name)?.value ?? "").flatMap((piece) => piece.name ?? []);
  }

  /** A rule's condition with every `$name` replaced. */
  expandCondition(scalar: ScalarText): Expanded {
    return this.#expand(scalar, (name) => this.#used.add(name));
  }

  /** Definitions that no rule uses, directly or through another definition. */
  unused(): string[] {
    const reached = new Set(this.#used);
    // A set hands out what is added while it is walked.
    for (const name of reached) for (const used of this.usesOf(name)) reached.add(used);
    return [...this.scalars.keys()].filter((name) => !reached.has(name));
  }

  #expandDefinition(name: string): Expanded {
    const known = this.#expanded.get(name);
    if (known !== undefined) return known;
    const scalar = this.scalars.get(name);
    if (scalar === undefined) return REFUSED;
    this.#stack.push(name);
    const expanded = this.#expand(scalar, () => {});
    this.#stack.pop();
    this.#expanded.set(name, expanded);
    return expanded;
  }

  #expand(scalar: ScalarText, onUse: (name: string) => void): Expanded {
    const parts: Piece[] = [];
    let length = 0;
    let sound = true;
    for (const piece of pieces(scalar.value)) {
      let text = piece.text;
      if (piece.name !== undefined) {
        onUse(piece.name);
        const inner = this.#use(piece.name, scalar, piece);
        if (inner === null) {
          sound = false;
          continue;
        }
        text = `(${inner})`;
      }
      length += text.length;
      this.#allowance -= text.length;
      if (length > LIMITS.conditionLength || this.#allowance < 0) {
        this.#error(scalar.span, {
          code: "rules.condition_too_long",
          message: length > LIMITS.conditionLength
            ? `with its definitions this is longer than ${LIMITS.conditionLength} characters`
            : "the definitions of this file are used too often for their length",
          hint: "Put many hosts into one list, or split the rule.",
        });
        return REFUSED;
      }
      const leading = parts.length > 0 ? 0 : text.length - text.trimStart().length;
      if (leading === text.length) continue;
      parts.push({
        text: text.slice(leading),
        index: piece.index + leading,
        length: piece.length - leading,
      });
    }
    return sound ? { ok: true, expression: expression(scalar, parts) } : REFUSED;
  }

  /** The text that `$name` stands for, or null after reporting why there is none. */
  #use(name: string, scalar: ScalarText, piece: Piece): string | null {
    const span = {
      start: scalar.offsetOf(piece.index),
      end: scalar.offsetOf(piece.index + piece.length),
    };
    if (!this.scalars.has(name)) {
      const meant = nearest(name, [...this.scalars.keys()]);
      this.#error(span, {
        code: "rules.undefined_definition",
        message: `there is no definition '${name}' in this file`,
        hint: meant === null
          ? "Add it under 'definitions'; definitions of other files are not visible here."
          : `Did you mean $${meant}?`,
      });
      return null;
    }
    const cycleStart = this.#stack.indexOf(name);
    if (cycleStart >= 0) {
      const chain = [...this.#stack.slice(cycleStart), name].map((each) => `$${each}`);
      this.#error(span, {
        code: "rules.circular_definition",
        message: `definitions go round in a circle: ${chain.join(" -> ")}`,
        hint: "Write one of them without the others.",
      });
      return null;
    }
    if (this.#stack.length >= LIMITS.definitionDepth) {
      this.#error(span, {
        code: "rules.definition_depth",
        message: `definitions are nested more than ${LIMITS.definitionDepth} deep`,
        hint: "Write some of them out.",
      });
      return null;
    }
    const expanded = this.#expandDefinition(name);
    return expanded.ok ? expanded.expression.text : null;
  }

  #error(span: Span, finding: Finding): void {
    this.report(this.source.diagnostic("error", span, finding));
  }
}
