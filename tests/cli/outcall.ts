/** Runs the real command line as its own process. */

/** How a run ended. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

const CLI = new URL("../../cli.ts", import.meta.url).pathname;

/** Runs `outcall` with exactly these arguments. */
export async function outcall(...args: readonly string[]): Promise<Outcome> {
  return await program(CLI, args);
}

/** Runs a program of this repository. */
export async function program(path: string, args: readonly string[]): Promise<Outcome> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-check", "-A", path, ...args],
    env: { NO_COLOR: "1" },
  });
  const { code, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}
