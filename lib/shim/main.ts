/** `outcall-agent`: arguments in, exit code out. It fails closed: without a verdict nothing runs. */
import { VERSION } from "../version.ts";
import { type Action, actionOf } from "./actions.ts";
import { AGENT_SOCKET, AgentClient, Refused, Unreachable } from "./client.ts";
import { parseRequest, readRuleFile, request, status, WrongUsage } from "./requests.ts";
import { runChild } from "./run.ts";
import { GUIDE, USAGE } from "./text.ts";

/** Exit codes; a program that ran gives its own. `terminated` is a shell's for SIGTERM. */
const EXIT = { ok: 0, refused: 1, usage: 2, unreachable: 5, terminated: 143 } as const;

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
  const ruleFile = wanted === null ? null : await readRuleFile(wanted);
  const client = await AgentClient.connect(path, timeoutMs);
  try {
    const container = await client.checkIn();
    log(`registered with outcalld as ${container ?? "an agent without a container"}`);
    if (wanted !== null) return await request(client, wanted, ruleFile);
    if (word === "status") return await status(client, rest[0] ?? "", rest[1] === "--wait");
    if (word === "whoami") {
      return print(JSON.stringify(await client.ask("GET", "/v1/whoami")) + "\n");
    }
    return action === null ? EXIT.usage : await act(client, action);
  } finally {
    client.close();
  }
}

async function act(client: AgentClient, action: Action): Promise<number> {
  let isCancelled = false;
  // The request in flight may finish, and nothing is started after it (S005-EC-012).
  const cancel = (): void => {
    isCancelled = true;
    log("SIGTERM: nothing is started any more");
  };
  Deno.addSignalListener("SIGTERM", cancel);
  try {
    const denial = await denialOf(client, action);
    if (denial !== null) {
      complain(`denied: ${denial}`);
      if (action.action_type === "network_call") {
        complain(
          `hint: outcall-agent request ${action.target} --reason "<why you need it>" --wait`,
        );
      }
      return EXIT.refused;
    }
    if (isCancelled) return EXIT.terminated;
    const { run, action_type, target } = action;
    return run === null
      ? print(`allowed: ${action_type} ${target}\n`)
      : await carryOut(client.path, run);
  } finally {
    Deno.removeSignalListener("SIGTERM", cancel);
  }
}

/** Why the daemon says no; null: it says yes. */
async function denialOf(
  client: AgentClient,
  { action_type, target, metadata }: Action,
): Promise<string | null> {
  const verdict = await client.ask("POST", "/v1/permissions/check", {
    action_type,
    target,
    metadata,
  });
  const { allowed, reason, matched_rule: rule, decision } = verdict;
  if (typeof allowed !== "boolean" || typeof decision !== "string") {
    throw new Unreachable("the verdict is malformed");
  }
  if (allowed) return null;
  const named = typeof rule === "string" ? `, rule ${rule}` : "";
  return `${typeof reason === "string" ? reason : "by policy"} (${decision}${named})`;
}

async function carryOut(socketPath: string, argv: readonly string[]): Promise<number> {
  try {
    return (await runChild(socketPath, argv)).code;
  } catch (thrown) {
    if (thrown instanceof Unreachable) throw thrown;
    complain(`cannot run ${argv[0]}: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
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

/** Statuses by which the daemon says no to what was asked; any other one is no answer to it. */
const ANSWERS: readonly number[] = [404, 409, 413, 422];

/** What no verdict came of. Every unforeseen failure ends here, and none as a yes. */
function failed(thrown: unknown): number {
  if (thrown instanceof WrongUsage) {
    complain(`error: ${thrown.message}`);
    return EXIT.usage;
  }
  const isAnswer = thrown instanceof Refused &&
    (ANSWERS.includes(thrown.status) || thrown.code === "requests.too_many");
  if (isAnswer) {
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
