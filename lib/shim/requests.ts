/** `outcall-agent request` and `status`: asking the operator for access. */
import type { AgentClient, Fields } from "./client.ts";
import { Unreachable } from "./client.ts";
import { proposeRules } from "./propose.ts";

/** A `request` command line. */
export interface WantedRules {
  readonly url: string | null;
  readonly file: string | null;
  readonly method: string;
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
  const method = (options["--method"] ?? "GET").toUpperCase();
  return { url, file, method, reason: options["--reason"] ?? null, forSecs, wait };
}

function seconds(text: string): number {
  const [, digits = "", unit = ""] = /^([0-9]{1,6})([smhd])$/.exec(text) ?? [];
  return Number(digits) * (UNIT_SECS[unit] ?? NaN);
}

/** Submits a request; returns the exit code. */
export async function request(client: AgentClient, wanted: WantedRules): Promise<number> {
  const ruleFile = await ruleFileOf(client, wanted);
  if (ruleFile === null) return 2;
  if (wanted.url !== null) {
    const { allowed } = await client.ask("POST", "/v1/permissions/check", {
      action_type: "network_call",
      target: wanted.url,
      metadata: { method: wanted.method },
    });
    if (allowed === true) {
      console.log(`${wanted.url} is allowed already`);
      return 0;
    }
  }
  const answer = await client.ask("POST", "/v1/requests/rules", {
    rule_file: ruleFile,
    ...(wanted.reason === null ? {} : { reason: wanted.reason }),
    ...(wanted.forSecs === null ? {} : { for_secs: wanted.forSecs }),
  });
  const id = textIn(answer, "id");
  console.log(`${id} ${textIn(answer, "status")}`);
  return wanted.wait ? await status(client, id, true) : 0;
}

async function ruleFileOf(client: AgentClient, wanted: WantedRules): Promise<string | null> {
  if (wanted.file !== null) return await Deno.readTextFile(wanted.file);
  const name = textIn(await client.ask("GET", "/v1/whoami"), "name");
  const proposed = await proposeRules(name, wanted.url ?? "", wanted.method);
  if (proposed.ok) return proposed.ruleFile;
  console.error(`error: ${proposed.message}`);
  return null;
}

/** Tells what became of a request: 0 unless the operator said no, or the access is over. */
export async function status(client: AgentClient, id: string, wait: boolean): Promise<number> {
  const path = `/v1/requests/rules/${encodeURIComponent(id)}`;
  for (;;) {
    const answer = wait
      ? await client.ask("GET", `${path}?wait=${WAIT_SECS}`, undefined, WAIT_SECS * 1_000)
      : await client.ask("GET", path);
    const state = textIn(answer, "status");
    if (state === "pending" && wait) continue;
    const { reason, expires_at: until } = answer;
    const details = [
      ...(typeof reason === "string" ? [reason] : []),
      ...(typeof until === "string" ? [`until ${until}`] : []),
    ];
    console.log([`${id} ${state}`, ...details].join(", "));
    return state === "approved" || state === "pending" ? 0 : 1;
  }
}

function textIn(fields: Fields, name: string): string {
  const value = fields[name];
  if (typeof value !== "string") throw new Unreachable("the answer is malformed");
  return value;
}
