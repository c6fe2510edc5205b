/** A person at a terminal: types commands into an interactive shell and reads what it prints. */
import type { Machine } from "./machine.ts";
import type { Process } from "./process.ts";

/** What one typed command came to. */
export interface Typed {
  readonly code: number;
  /** Both streams, as they appear on a terminal, without the last line end. */
  readonly output: string;
}

/** Removes what a terminal would swallow: escape sequences and carriage returns. */
function plain(text: string): string {
  // deno-lint-ignore no-control-regex -- control characters are what this is about
  return text.replace(/\x1b\[[0-9;?]*[A-Za-z]|\r/g, "");
}

/** An interactive shell on a pseudo-terminal. */
export class Terminal {
  private constructor(readonly process: Process) {}

  /** Runs `command`, which must end up in a bash that reads from the terminal. */
  static async open(machine: Machine, command: string): Promise<Terminal> {
    const terminal = new Terminal(
      machine.spawn([
        "script",
        "--quiet",
        "--flush",
        "--return",
        "--command",
        command,
        "/dev/null",
      ]),
    );
    // Without echo and prompt, everything that is printed comes from a command.
    await terminal.type("stty -echo; bind 'set enable-bracketed-paste off'; PS1= PS2=");
    return terminal;
  }

  /** Types one line and waits for its end. */
  async type(line: string): Promise<Typed> {
    const mark = crypto.randomUUID();
    const from = this.process.stdout.length;
    // Quoted in two pieces, so that an echo of the line is not taken for its result.
    await this.process.tell(`${line}\necho "[${mark}"":$?]"`);
    const end = new RegExp(`\\[${mark}:(\\d+)\\]`);
    const last = await this.process.line("stdout", (printed) => end.test(printed), from);
    const printed = this.process.stdout.slice(from, this.process.stdout.indexOf(last, from));
    // What a command prints last may lack a line end and share its line with the mark.
    const rest = last.slice(0, last.search(end));
    const output = [...printed, rest].map(plain).join("\n").replace(/\n$/, "");
    return { code: Number(end.exec(last)?.[1]), output };
  }

  /** Leaves the shell; returns its exit code. */
  async close(): Promise<number> {
    await this.process.tell("exit");
    return await this.process.ended;
  }
}
