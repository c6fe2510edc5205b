/** A pull as somebody watches it: one line that is drawn anew, or a few lines in a log. */
import type { PullProgress } from "../api/services.ts";
import { printable } from "../printable.ts";

/** Where it is shown. */
export interface PullScreen {
  readonly write: (text: string) => void;
  /** Columns of the terminal, or null for a pipe or a file. */
  readonly columns: number | null;
}

const BAR_CHARACTERS = 20;
/** In a log: a line for each of these parts of the whole. */
const LOG_STEPS = 4;
const ERASE_LINE = "\r\x1b[K";

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

/** Shows one pull. */
export class PullDisplay {
  readonly #image: string;
  readonly #screen: PullScreen;
  #stepsLogged = 0;
  #drawn = "";

  constructor(image: string, screen: PullScreen) {
    this.#image = printable(image);
    this.#screen = screen;
  }

  /** Shows how far it is. */
  show(progress: PullProgress): void {
    if (this.#screen.columns === null) this.#log(progress);
    else this.#draw(progress, this.#screen.columns);
  }

  /** Takes the line away: what comes next is the outcome. */
  end(): void {
    if (this.#drawn !== "") this.#screen.write(ERASE_LINE);
    this.#drawn = "";
  }

  #draw({ text, layers, layers_done, bytes, bytes_total }: PullProgress, columns: number): void {
    const part = bytes_total === 0 ? 0 : bytes / bytes_total;
    const full = Math.floor(part * BAR_CHARACTERS);
    const bar = "#".repeat(full) + "-".repeat(BAR_CHARACTERS - full);
    const line = bytes_total === 0 ? `${this.#image}  ${printable(text)}` : [
      `${this.#image}  [${bar}] ${`${Math.floor(part * 100)}`.padStart(3)}%`,
      `${megabytes(bytes)}/${megabytes(bytes_total)} MB`,
      `${layers_done}/${layers} layers`,
    ].join("  ");
    // A line that wraps could not be erased again.
    const shown = line.slice(0, Math.max(0, columns - 1));
    if (shown === this.#drawn) return;
    this.#drawn = shown;
    this.#screen.write(`${ERASE_LINE}${shown}`);
  }

  #log({ layers, layers_done, bytes, bytes_total }: PullProgress): void {
    const steps = bytes_total === 0 ? 0 : Math.floor(bytes / bytes_total * LOG_STEPS);
    // The whole grows with each layer that begins, so the part may shrink again.
    if (steps <= this.#stepsLogged) return;
    this.#stepsLogged = steps;
    this.#screen.write(
      `pulling ${this.#image}: ${steps * 100 / LOG_STEPS}% of ${megabytes(bytes_total)} MB, ` +
        `${layers_done} of ${layers} layers complete\n`,
    );
  }
}
