/** The demo's table: fixed columns that wrap, so that rows can be printed as they happen. */

/** One column. */
export interface Column {
  readonly title: string;
  /** In characters. */
  readonly width: number;
}

/** Breaks text into lines of at most `width`, between words where it can. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (let word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = "";
    }
    for (; word.length > width; word = word.slice(width)) {
      if (line !== "") lines.push(line);
      lines.push(word.slice(0, width));
      line = "";
    }
    line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** One row, as tall as its longest cell; no spaces at line ends. */
export function renderRow(columns: readonly Column[], cells: readonly string[]): string {
  const wrapped = columns.map(({ width }, i) => wrap(cells[i] ?? "", width));
  const height = Math.max(...wrapped.map((lines) => lines.length));
  return Array.from(
    { length: height },
    (_, y) =>
      wrapped.map((lines, i) => (lines[y] ?? "").padEnd(columns[i]?.width ?? 0)).join("  ")
        .trimEnd(),
  ).join("\n");
}

/** The titles and a line under each. */
export function renderHead(columns: readonly Column[]): string {
  const titles = renderRow(columns, columns.map(({ title }) => title));
  return `${titles}\n${columns.map(({ width }) => "─".repeat(width)).join("  ")}`;
}
