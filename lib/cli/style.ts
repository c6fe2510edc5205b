/** Colours on a terminal that has not been told to do without (https://no-color.org). */

const CODES = { red: 31, green: 32, yellow: 33, dim: 2 } as const;

/** A way to draw attention to text. */
export type Style = (style: keyof typeof CODES, text: string) => string;

/** The style of stdout. What it is given must be printable already. */
export function stdoutStyle(): Style {
  const isColoured = Deno.stdout.isTerminal() && (Deno.env.get("NO_COLOR") ?? "") === "";
  return (style, text) => isColoured ? `\x1b[${CODES[style]}m${text}\x1b[0m` : text;
}
