/** `outcall-agent`: arguments in, exit code out. It fails closed: without a verdict nothing runs. */
import { VERSION } from "../version.ts";
import { type Action, actionOf } from "./actions.ts";
import { AGENT_SOCKET, AgentClient, Refused, Unreachable } from "./client.ts";
import { parseRequest, request, status } from "./requests.ts";
import { runChild } from "./run.ts";
import { GUIDE, USAGE } from "./text.ts";

/** Exit codes; a program that ran gives its own. */
export const EXIT = { ok: 0, refused: 1, usage: 2, unreachable: 5 } as const;

const DEFAULT_TIMEOUT_SECS = 30;
const MAX_TIMEOUT_SECS = 300;

/**
 * Carries out one command line.
 * @param socketPath Of the daemon.
 * @returns the exit code.
 */
export async function main(
  args: readonly string[],
  socketPath: string = AGENT_SOCKET,
): Promise<number> {
  // Only the first argument is ours: `outcall-agent git --version` asks about git.
  switch (args[0]) {
    case "--help":
    case "-h":
      return print(USAGE);
    case "--version":
    case "-V":
      return print(`outcall-agent ${VERSION}\n`);
    case "help":
      return print(args[1] === "agents" ? GUIDE : USAGE);
  }
  try {
    return await ask(args, socketPath, timeoutMs());
  } catch (thrown) {
    return failed(thrown);
  }
}

async function ask(args: readonly string[], path: string, timeoutMs: number): Promise<number> {
  const [word, ...rest] = args;
  const wanted = word === "request" ? parseRequest(rest) : null;
  const isOurs = word === "request" || word === "status" || word === "whoami";
  const action = isOurs ? null : actionOf(args);
  const isUsable = word === "request"
    ? wanted !== null
    : word === "status"
    ? rest.length === 1 || (rest.length === 2 && rest[1] === "--wait")
    : word === "whoami" || action !== null;
  if (!isUsable) {
    complain(USAGE.trimEnd());
    return EXIT.usage;
  }
  const client = await AgentClient.connect(path, timeoutMs);
  try {
    const container = await client.checkIn();
    log(`registered with outcalld as ${container ?? "an agent without a container"}`);
    if (wanted !== null) return await request(client, wanted);
    if (word === "status") return await status(client, rest[0] ?? "", rest[1] === "--wait");
    if (word === "whoami") {
      return print(JSON.stringify(await client.ask("GET", "/v1/whoami")) + "\n");
    }
    return action === null ? EXIT.usage : await act(client, action);
  } finally {
    client.close();
  }
}

async function act(client: AgentClient, { run, ...question }: Action): Promise<number> {
  let isCancelled = false;
  // The request in flight may finish, and nothing is started after it (S005-EC-012).
  const cancel = (): void => void (isCancelled = true);
  Deno.addSignalListener("SIGTERM", cancel);
  try {
    const { allowed, reason, matched_rule: rule, decision } = await client.ask(
      "POST",
      "/v1/permissions/check",
      question,
    );
    if (typeof allowed !== "boolean" || typeof decision !== "string") {
      throw new Unreachable("the verdict is malformed");
    }
    if (!allowed) {
      const named = typeof rule === "string" ? `, rule ${rule}` : "";
      complain(
        `denied: ${typeof reason === "string" ? reason : "by policy"} (${decision}${named})`,
      );
      return EXIT.refused;
    }
    if (isCancelled) return 143;
  } finally {
    Deno.removeSignalListener("SIGTERM", cancel);
  }
  if (run === null) return print(`allowed: ${question.action_type} ${question.target}\n`);
  try {
    return (await runChild(client.path, run)).code;
  } catch (thrown) {
    if (thrown instanceof Unreachable) throw thrown;
    complain(`cannot run ${run[0]}: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
    return EXIT.refused;
  }
}

/** S005-EC-004: a value that is not understood must not become another one. */
function timeoutMs(): number {
  const text = Deno.env.get("OUTCALL_TIMEOUT_SECS");
  if (text === undefined) return DEFAULT_TIMEOUT_SECS * 1_000;
  const seconds = Number(text);
  if (/^[0-9]+$/.test(text) && seconds >= 1 && seconds <= MAX_TIMEOUT_SECS) return seconds * 1_000;
  throw new Unreachable(
    `OUTCALL_TIMEOUT_SECS must be a whole number from 1 to ${MAX_TIMEOUT_SECS}`,
  );
}

/** What no verdict came of. Every unforeseen failure ends here, and none as a yes. */
function failed(thrown: unknown): number {
  if (thrown instanceof Refused && [404, 409, 422].includes(thrown.status)) {
    complain(`error: ${thrown.message}`);
    if (thrown.hint !== null) complain(`hint: ${thrown.hint}`);
    return EXIT.refused;
  }
  complain(`error: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  if (thrown instanceof Refused && thrown.hint !== null) complain(`hint: ${thrown.hint}`);
  complain("no verdict from outcalld: exiting (fail closed)");
  return EXIT.unreachable;
}

function print(text: string): number {
  write(Deno.stdout, text);
  return EXIT.ok;
}

/** Diagnostics go to stderr only: stdout is the program's (S005-FR-016). */
function complain(line: string): void {
  write(Deno.stderr, `${line}\n`);
}

function log(line: string): void {
  if (Deno.env.get("OUTCALL_LOG") === "debug") complain(`component=shim ${line}`);
}

function write(stream: typeof Deno.stdout, text: string): void {
  let rest = new TextEncoder().encode(text);
  while (rest.length > 0) rest = rest.subarray(stream.writeSync(rest));
}
