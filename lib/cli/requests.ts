/** `outcall requests …`: what agents ask for, and the operator's answers (S003-IF-010, S003-IF-011). */
import { type CommandUnknownOpts, InvalidArgumentError } from "@commander-js/extra-typings";
import {
  APPROVAL_DEFAULT_SECS,
  APPROVAL_MAX_SECS,
  type RuleRequestReply,
} from "../api/requests.ts";
import type { HostClient } from "../api/client.ts";
import { writeOut } from "./output.ts";
import { labels, plural, table } from "./render.ts";
import { printable } from "../printable.ts";
import type { Run } from "./run.ts";

const UNIT_SECS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/**
 * Seconds in a text such as `15m`, `1h` or `7d`; null for `forever`.
 * @throws InvalidArgumentError for anything else.
 */
export function duration(text: string): number | null {
  if (text === "forever") return null;
  const [, digits = "", unit = ""] = /^([0-9]{1,9})([smhd])$/.exec(text) ?? [];
  const seconds = Number(digits) * (UNIT_SECS[unit] ?? NaN);
  if (seconds >= 1 && seconds <= APPROVAL_MAX_SECS) return seconds;
  throw new InvalidArgumentError("It must be a time such as 15m, 1h, 24h, 7d, or forever.");
}

/** Adds the commands to `program`. */
export function addRequestsCommands(program: CommandUnknownOpts, run: Run): void {
  const requests = program.command("requests").description("what agents ask for, and your answers");

  requests.command("list")
    .description("list the requests that wait for an answer")
    .option("--all", "the answered ones too", false)
    .action(({ all }) =>
      run(async (client) => {
        const found = await client.ruleRequests(all);
        return { json: { requests: found }, lines: listLines(found) };
      })
    );

  requests.command("show <id>").description("show one request, what it opens and its history")
    .action((id) =>
      run(async (client) => {
        const request = await client.ruleRequest(id);
        return { json: request, lines: requestLines(request) };
      })
    );

  requests.command("approve <id>")
    .description("put a request's rules in force for a time")
    .option("--for <time>", "15m, 1h, 24h, 7d, forever …", duration, APPROVAL_DEFAULT_SECS)
    .option("--file <path>", "put the rules of this file in force instead: narrowed or edited")
    .option("--reason <text>", "for the agent and the history")
    .action((id, { for: seconds, file, reason }) =>
      run(async (client) => {
        const done = await client.approveRuleRequest(id, {
          for_secs: seconds,
          ...(file === undefined ? {} : { rule_file: await Deno.readTextFile(file) }),
          ...(reason === undefined ? {} : { reason }),
        });
        return { json: done, lines: [approvedLine(id, done.rules_loaded)] };
      })
    );

  requests.command("reject <id>")
    .description("answer a request with a no")
    .option("--reason <text>", "for the agent and the history")
    .action((id, { reason }) =>
      run(async (client) => {
        const done = await client.rejectRuleRequest(id, reason);
        return { json: done, lines: [rejectedLine(id)] };
      })
    );

  requests.command("watch")
    .description("show each new request and answer it with one key; ends with q")
    .action(() => run(watch));
}

function approvedLine(id: string, rulesLoaded: number): string {
  return `Rule request "${id}" approved; ${rulesLoaded} rule(s) loaded.`;
}

function rejectedLine(id: string): string {
  return `Rule request "${id}" rejected.`;
}

function listLines(requests: readonly RuleRequestReply[]): string[] {
  if (requests.length === 0) return ["No pending rule requests."];
  const columns = [
    { header: "ID", width: 18 },
    { header: "CONTAINER", width: 32 },
    { header: "STATUS", width: 8 },
    { header: "ASKED", width: 5 },
    { header: "OPENS", width: 0 },
  ];
  const rows = requests.map((request) => [
    request.id,
    whoOf(request),
    request.status,
    `${request.hits}x`,
    opens(request),
  ]);
  return table(columns, rows);
}

function whoOf({ agent, address }: RuleRequestReply): string {
  return agent === "" ? address : agent;
}

/** What becomes reachable, in a few words. */
function opens({ rules }: RuleRequestReply): string {
  const allowed = rules.filter(({ action }) => action === "allow");
  if (allowed.some(({ hosts }) => hosts === null)) return "any host";
  const hosts = allowed.flatMap(({ hosts }) => hosts ?? []);
  return hosts.length === 0 ? "-" : [...new Set(hosts)].join(", ");
}

function requestLines(request: RuleRequestReply): string[] {
  const optional = (label: string, value: string | null): (readonly [string, string])[] =>
    value === null ? [] : [[label, value]];
  return [
    ...labels(14, [
      ["Request", request.id],
      ["Status", request.status],
      ["Agent", `${whoOf(request)} (${request.address} on ${request.network})`],
      ...optional("Container", request.container_id),
      ["Asked", `${request.created_at}, ${plural(request.hits, "time")}`],
      ...optional("Why", request.reason),
      ...optional("Wanted for", request.for_secs === null ? null : `${request.for_secs} s`),
      ["Opens", opens(request)],
      ...optional("Answered", request.decided_at),
      ...optional("By", request.decided_by),
      ...optional("Answer", request.answer),
      ...optional("Until", request.expires_at),
      ...(request.edited ? [["Edited", "yes, by the operator"] as const] : []),
    ]),
    ...request.warnings.map((warning) => `warning: ${warning}`),
    "Rules:",
    ...request.rule_file.trimEnd().split("\n").map((line) => `  ${line}`),
  ];
}

const WATCH_POLL_MS = 500;
const KEYS = "[1] 15m  [2] 1h  [3] 24h  [f] forever  [r] reject  [s] skip  [q] quit";
const KEY_SECS: Readonly<Record<string, number | null>> = {
  "1": 900,
  "2": 3_600,
  "3": 86_400,
  f: null,
};

/** Shows requests as they come; with a terminal at the keys, asks for an answer to each. */
async function watch(client: HostClient): Promise<{ json: object; lines: readonly string[] }> {
  const seen = new Set<string>();
  const isInteractive = Deno.stdin.isTerminal();
  let answered = 0;
  for (;;) {
    for (const request of await client.ruleRequests(false)) {
      if (seen.has(request.id)) continue;
      seen.add(request.id);
      say(["", ...requestLines(request)]);
      if (!isInteractive) continue;
      say([KEYS]);
      const key = readKey();
      if (key === "q") return { json: { answered }, lines: [] };
      if (key === "s") continue;
      answered++;
      say([await answer(client, request.id, key)]);
    }
    await new Promise((resolve) => setTimeout(resolve, WATCH_POLL_MS));
  }
}

async function answer(client: HostClient, id: string, key: string): Promise<string> {
  if (key === "r") {
    await client.rejectRuleRequest(id);
    return rejectedLine(id);
  }
  const seconds = KEY_SECS[key] ?? null;
  const { rules_loaded } = await client.approveRuleRequest(id, { for_secs: seconds });
  return approvedLine(id, rules_loaded);
}

/** One of the keys offered; the end of input, Ctrl-C and Ctrl-D quit. */
function readKey(): string {
  Deno.stdin.setRaw(true);
  try {
    const byte = new Uint8Array(1);
    for (;;) {
      const read = Deno.stdin.readSync(byte);
      const code = byte[0] ?? 0;
      if (read === null || code === 3 || code === 4) return "q";
      const key = String.fromCharCode(code);
      if ("123frsq".includes(key)) return key;
    }
  } finally {
    Deno.stdin.setRaw(false);
  }
}

function say(lines: readonly string[]): void {
  writeOut(lines.map((line) => `${printable(line)}\n`).join(""));
}
