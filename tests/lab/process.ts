/** Running programs: to their end, or in the background with their lines at hand. */

/** Settings of one run. */
export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Text for standard input; nothing when absent. */
  readonly input?: string;
  readonly timeoutMs?: number;
}

/** What a program left behind. */
export interface Finished {
  /** Exit code; 128 + signal number when killed, 124 when its time was up. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `argv` in exactly the environment given. */
export async function run(argv: readonly string[], options: RunOptions): Promise<Finished> {
  const [program = "", ...args] = argv;
  const child = new Deno.Command(program, {
    args,
    clearEnv: true,
    env: { ...options.env },
    cwd: "/",
    stdin: options.input === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const output = child.output();
  if (options.input !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(options.input));
    await writer.close();
  }
  const { code, stdout, stderr } = await output;
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** What a program printed that had to succeed. @param what It was, for the error. */
export function outputOf(what: string, { code, stdout, stderr }: Finished): string {
  if (code !== 0) throw new Error(`${what} ended with ${code}: ${stderr}`);
  return stdout;
}

type Stream = "stdout" | "stderr";

/** A program in the background. */
export class Process {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: Record<Stream, string[]> = { stdout: [], stderr: [] };
  readonly #waiting = new Set<() => void>();
  readonly #read: Promise<unknown>;
  #open = true;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#input = child.stdin.getWriter();
    this.#read = Promise.all([this.#collect("stdout"), this.#collect("stderr")]).then(() => {
      this.#open = false;
      this.#wake();
    });
  }

  /** Starts `argv` in exactly the environment given. */
  static start(
    argv: readonly string[],
    options: { readonly env: Readonly<Record<string, string>> },
  ): Process {
    const [program = "", ...args] = argv;
    return new Process(
      new Deno.Command(program, {
        args,
        clearEnv: true,
        env: { ...options.env },
        cwd: "/",
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    );
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Lines printed so far. */
  get stdout(): readonly string[] {
    return this.#lines.stdout;
  }

  /** Lines of standard error so far. */
  get stderr(): readonly string[] {
    return this.#lines.stderr;
  }

  /** Resolves with the exit code when the program has ended and all of its output was read. */
  get ended(): Promise<number> {
    return this.#read.then(async () => {
      await this.#input.abort().catch(() => {});
      return (await this.#child.status).code;
    });
  }

  /** The next line (from number `from` on) that fits, waiting for it; rejects when output ends. */
  async line(stream: Stream, fits: (line: string) => boolean, from = 0): Promise<string> {
    for (let next = from;;) {
      const lines = this.#lines[stream];
      for (; next < lines.length; next++) {
        const line = lines[next] ?? "";
        if (fits(line)) return line;
      }
      if (!this.#open) throw new Error(`the program ended:\n${this.stderr.join("\n")}`);
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  /** Writes one line to standard input. */
  tell(line: string): Promise<void> {
    return this.type(`${line}\n`);
  }

  /** Writes exactly `text` to standard input. */
  async type(text: string): Promise<void> {
    await this.#input.write(new TextEncoder().encode(text));
  }

  kill(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch (thrown) {
      if (!(thrown instanceof TypeError)) throw thrown; // "already terminated" is what we want
    }
  }

  async #collect(stream: Stream): Promise<void> {
    let rest = "";
    for await (const text of this.#child[stream].pipeThrough(new TextDecoderStream())) {
      const parts = (rest + text).split("\n");
      rest = parts.pop() ?? "";
      this.#lines[stream].push(...parts);
      this.#wake();
    }
    if (rest !== "") this.#lines[stream].push(rest);
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const resolve of waiting) resolve();
  }
}
