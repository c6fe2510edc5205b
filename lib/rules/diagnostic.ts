/** What is wrong with a rule file, where, and what to do about it. */
import type { Detail } from "../errors.ts";

/** Text of a file, and which of its characters are meant. */
export interface Excerpt {
  readonly text: string;
  /** Index of the first one. */
  readonly start: number;
  /** How many; at least 1. */
  readonly length: number;
}

/** One finding in a rule file. Lines and columns count from 1; columns in UTF-16 units. */
export interface Diagnostic extends Detail {
  readonly severity: "error" | "warning";
  /** Stable and dotted, such as `rules.unknown_field`. */
  readonly code: string;
  /** What to do next, one sentence. */
  readonly hint?: string;
  /** The offending line, or the part of a long one around it. */
  readonly excerpt?: Excerpt;
}

/** A stretch of a file's text: UTF-16 offsets, `end` exclusive. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** What a finding says, without the place. */
export interface Finding {
  readonly code: string;
  readonly message: string;
  readonly hint?: string | undefined;
}

/** Longest stretch of a line that is worth showing; a whole rule set can stand on one line. */
const MAX_EXCERPT_LENGTH = 160;
const CONTEXT_LENGTH = 80;

/** A rule file's text, with offsets turned into lines and columns. */
export class Source {
  readonly #lineStarts: number[] = [0];

  /**
   * @param path As shown to the operator.
   * @param text The whole file.
   */
  constructor(readonly path: string, readonly text: string) {
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) {
      this.#lineStarts.push(at + 1);
    }
  }

  /** Line and column, both from 1, of the UTF-16 unit at `offset`. */
  position(offset: number): { line: number; column: number } {
    let low = 0;
    let high = this.#lineStarts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((this.#lineStarts[middle] ?? 0) <= offset) low = middle;
      else high = middle;
    }
    return { line: low + 1, column: offset - (this.#lineStarts[low] ?? 0) + 1 };
  }

  /** A finding at `span`, with the line it is on. */
  diagnostic(severity: Diagnostic["severity"], span: Span, finding: Finding): Diagnostic {
    const { line, column } = this.position(span.start);
    return {
      severity,
      code: finding.code,
      file: this.path,
      line,
      column,
      message: finding.message,
      ...(finding.hint === undefined ? {} : { hint: finding.hint }),
      excerpt: this.#excerpt(span, line, column),
    };
  }

  #excerpt(span: Span, line: number, column: number): Excerpt {
    const lineStart = this.#lineStarts[line - 1] ?? 0;
    const lineEnd = (this.#lineStarts[line] ?? this.text.length + 1) - 1;
    const from = Math.max(lineStart, span.start - CONTEXT_LENGTH);
    const text = this.text.slice(from, Math.min(lineEnd, from + MAX_EXCERPT_LENGTH)).trimEnd();
    const start = lineStart + column - 1 - from;
    const length = Math.min(span.end - span.start, text.length - start);
    return { text, start, length: Math.max(1, length) };
  }
}

/** Operator files may hold anything: control characters must not reach a terminal (CWE-150). */
function printable(text: string): string {
  return text.replace(/\t/g, " ").replace(/\p{Cc}/gu, "\u{fffd}");
}

/** The excerpt, and a line with carets under what is meant. */
function caret({ text, start, length }: Excerpt): string {
  return `    ${printable(text)}\n    ${" ".repeat(start)}${"^".repeat(length)}`;
}

/** `path:line:column: message`, the line with a caret, and the hint. */
export function formatDiagnostic(diagnostic: Diagnostic): string {
  const { file, line, column, severity, hint, excerpt } = diagnostic;
  const kind = severity === "warning" ? "warning: " : "";
  const lines = [`${file}:${line}:${column}: ${kind}${printable(diagnostic.message)}`];
  if (excerpt !== undefined && excerpt.text !== "") lines.push(caret(excerpt));
  if (hint !== undefined) lines.push(`    hint: ${printable(hint)}`);
  return lines.join("\n");
}
