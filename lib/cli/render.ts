/** The two shapes of output: a block of labels, and a table. Both are lists of lines. */
import { printable } from "../printable.ts";

/** `Label:    value` lines, every value starting in the same column. */
export function labels(
  column: number,
  fields: readonly (readonly [label: string, value: string | number])[],
): string[] {
  return fields.map(([label, value]) => `${label}:`.padEnd(column) + value);
}

/** A column of a table. */
export interface Column {
  readonly header: string;
  /** Columns of text it takes at least; longer content widens it. */
  readonly width: number;
}

/**
 * A header and one line for each row, columns separated by a space, the last one unpadded.
 * @param fit Columns of the terminal: longer lines are cut, with `…`. Null leaves them whole.
 */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly (string | number)[])[],
  fit: number | null = null,
): string[] {
  // Escaped before measuring: an escaped control character is six columns wide.
  const cells = rows.map((row) => row.map((cell) => printable(String(cell))));
  const widths = columns.map((column, i) =>
    cells.reduce((width, row) => Math.max(width, (row[i] ?? "").length), column.width)
  );
  return [columns.map((column) => column.header), ...cells].map((row) => {
    const line = row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" ").trimEnd();
    return fit === null ? line : cut(line, fit);
  });
}

function cut(line: string, columns: number): string {
  const characters = [...line];
  return characters.length <= columns ? line : `${characters.slice(0, columns - 1).join("")}…`;
}

/** `1 rule`, `2 rules`. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Text on one line, its white space as single spaces. */
export function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}
