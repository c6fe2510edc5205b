/** What a command line of the shim means: an action to ask about, and whether to carry it out. */

/** One action and what is done when it is allowed. */
export interface Action {
  readonly action_type: "tool_exec" | "network_call" | "file_access" | "shell_exec";
  readonly target: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** The program and its arguments to run; null: only the verdict is wanted. */
  readonly run: readonly string[] | null;
}

const SHELLS = ["bash", "sh", "shell"];
const FETCHERS = ["fetch", "http", "https"];

/** The action of a command line, or null when it says too little. */
export function actionOf(args: readonly string[]): Action | null {
  const [word = "", ...rest] = args;
  if (word === "") return null;
  if (word === "check") return probeOf(rest);
  if (word === "exec") return run("tool_exec", rest);
  if (SHELLS.includes(word)) return run("shell_exec", rest);
  if (FETCHERS.includes(word)) return fetchProbe(rest);
  if (word === "file" || word === "read") return fileProbe(rest, "read");
  if (word === "write") return fileProbe(rest, "write");
  return run("tool_exec", args);
}

function run(action_type: "tool_exec" | "shell_exec", argv: readonly string[]): Action | null {
  const [program, ...args] = argv;
  if (program === undefined || program === "") return null;
  const metadata = argumentsOf(args);
  return { action_type, target: program, metadata, run: argv };
}

function argumentsOf(args: readonly string[]): Record<string, string> {
  return args.length === 0 ? {} : { args: args.join(" "), args_json: JSON.stringify(args) };
}

function fetchProbe(args: readonly string[]): Action | null {
  const [target, method, ...more] = args;
  if (target === undefined || target === "" || more.length > 0) return null;
  return {
    action_type: "network_call",
    target,
    metadata: { method: method ?? "GET" },
    run: null,
  };
}

function fileProbe(args: readonly string[], mode: string): Action | null {
  const [target, ...more] = args;
  if (target === undefined || target === "" || more.length > 0) return null;
  return { action_type: "file_access", target, metadata: { mode }, run: null };
}

/** `check network|tool|file|shell …`: the same questions, and nothing is run. */
function probeOf([kind, ...rest]: readonly string[]): Action | null {
  if (kind === "network") return fetchProbe(rest);
  if (kind === "file") return fileProbe(rest.slice(0, 1), rest[1] === "write" ? "write" : "read");
  if (kind !== "tool" && kind !== "shell") return null;
  const action = run(kind === "tool" ? "tool_exec" : "shell_exec", rest);
  return action === null ? null : { ...action, run: null };
}
