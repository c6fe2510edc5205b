/** `outcall-agent request` and `status`: asking the operator for access. */
import type { AgentClient, Fields } from "./client.ts";
import { Unreachable } from "./client.ts";
import { proposeRules } from "./propose.ts";

/** What was asked for cannot be meant, or cannot be read: exit code 2. */
export class WrongUsage extends Error {
  override readonly name = "WrongUsage";
}

/** A `request` command line. */
export interface WantedRules {
  readonly url: string | null;
  /** Path of a rule file. */
  readonly file: string | null;
  /** Null: none was named. */
  readonly method: string | null;
  readonly reason: string | null;
  readonly forSecs: number | null;
  readonly wait: boolean;
}

const UNIT_SECS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** What one call waits at most; the daemon takes no more. */
const WAIT_SECS = 60;

/** Takes a `request` command line apart; null when it is not understood. */
export function parseRequest(args: readonly string[]): WantedRules | null {
  const options: Record<string, string> = {};
  const operands: string[] = [];
  let wait = false;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? "";
    if (arg === "--wait") wait = true;
    else if (["--method", "--reason", "--for", "--file"].includes(arg)) {
      const value = args[++i];
      if (value === undefined) return null;
      options[arg] = value;
    } else if (arg.startsWith("-")) return null;
    else operands.push(arg);
  }
  const [url = null, ...more] = operands;
  const file = options["--file"] ?? null;
  const forSecs = options["--for"] === undefined ? null : seconds(options["--for"]);
  if (more.length > 0 || (url === null) === (file === null)) return null;
  if (forSecs !== null && Number.isNaN(forSecs)) return null;
  const method = options["--method"]?.toUpperCase() ?? null;
  return {
    url: url === null || url.includes("://") ? url : `https://${url}`,
    file,
    method,
    reason: options["--reason"] ?? null,
    forSecs,
    wait,
  };
}

function seconds(text: string): number {
  const [, digits = "", unit = ""] = /^([0-9]{1,6})([smhd])$/.exec(text) ?? [];
  return Number(digits) * (UNIT_SECS[unit] ?? NaN);
}

/**
 * The rule file that a command line names, read before the daemon is asked anything.
 * @throws WrongUsage when it cannot be read.
 */
export async function readRuleFile({ file }: WantedRules): Promise<string | null> {
  if (file === null) return null;
  try {
    return await Deno.readTextFile(file);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new WrongUsage(`cannot read ${file}: ${reason.replace(/: readfile .*/, "")}`);
  }
}

/**
 * Submits a request; returns the exit code.
 * @param ruleFile See {@linkcode readRuleFile}.
 * @throws WrongUsage, Refused, Unreachable
 */
export async function request(
  client: AgentClient,
  wanted: WantedRules,
  ruleFile: string | null,
): Promise<number> {
  const proposed = ruleFile ?? await proposedRules(client, wanted);
  if (wanted.url !== null) {
    const { allowed } = await client.ask("POST", "/v1/permissions/check", {
      action_type: "network_call",
      target: wanted.url,
      metadata: { method: wanted.method ?? "GET" },
    });
    if (allowed === true) {
      console.log(`${wanted.url} is allowed already`);
      return 0;
    }
  }
  const answer = await client.ask("POST", "/v1/requests/rules", {
    rule_file: proposed,
    ...(wanted.reason === null ? {} : { reason: wanted.reason }),
    ...(wanted.forSecs === null ? {} : { for_secs: wanted.forSecs }),
  });
  const id = textIn(answer, "id");
  console.log(`${id} ${textIn(answer, "status")}`);
  return wanted.wait ? await status(client, id, true) : 0;
}

async function proposedRules(client: AgentClient, wanted: WantedRules): Promise<string> {
  const name = textIn(await client.ask("GET", "/v1/whoami"), "name");
  const proposed = await proposeRules(name, wanted.url ?? "", wanted.method);
  if (!proposed.ok) throw new WrongUsage(proposed.message);
  return proposed.ruleFile;
}

/** Tells what became of a request: 0 unless the operator said no, or the access is over. */
export async function status(client: AgentClient, id: string, wait: boolean): Promise<number> {
  const path = `/v1/requests/rules/${encodeURIComponent(id)}`;
  for (;;) {
    const answer = wait ? await waited(client, id, path) : await client.ask("GET", path);
    const state = textIn(answer, "status");
    if (state === "pending" && wait) continue;
    const { reason, expires_at: until, edited } = answer;
    const details = [
      ...(edited === true ? ["not all that was asked for"] : []),
      ...(typeof reason === "string" ? [reason] : []),
      ...(typeof until === "string" ? [`until ${until}`] : []),
    ];
    console.log([`${id} ${state}`, ...details].join(", "));
    return state === "approved" || state === "pending" ? 0 : 1;
  }
}

/** A daemon that restarts ends the waiting, but not what is waited for. */
async function waited(client: AgentClient, id: string, path: string): Promise<Fields> {
  try {
    return await client.ask("GET", `${path}?wait=${WAIT_SECS}`, undefined, WAIT_SECS * 1_000);
  } catch (thrown) {
    if (!(thrown instanceof Unreachable)) throw thrown;
    throw new Unreachable(
      `${thrown.message}; the request is kept, look later: outcall-agent status ${id} --wait`,
    );
  }
}

function textIn(fields: Fields, name: string): string {
  const value = fields[name];
  if (typeof value !== "string") throw new Unreachable("the answer is malformed");
  return value;
}
