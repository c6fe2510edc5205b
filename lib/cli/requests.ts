/** `outcall requests …`: what agents ask for, and the operator's answers (S003-IF-010, S003-IF-011). */
import { type CommandUnknownOpts, InvalidArgumentError } from "@commander-js/extra-typings";
import {
  APPROVAL_DEFAULT_SECS,
  APPROVAL_MAX_SECS,
  type RuleRequestReply,
} from "../api/requests.ts";
import { table } from "./render.ts";
import { approvedLine, opens, rejectedLine, requestLines, whoOf } from "./request_lines.ts";
import type { Run } from "./run.ts";
import { watch } from "./watch.ts";

const UNIT_SECS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/**
 * Seconds in a text such as `15m`, `1h` or `7d`; null for `forever`.
 * @throws InvalidArgumentError for anything else.
 */
function duration(text: string): number | null {
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

  requests.command("extend <id>")
    .description("give what is in force another end, counted from now")
    .option("--for <time>", "15m, 1h, 24h, 7d, forever …", duration, APPROVAL_DEFAULT_SECS)
    .option("--reason <text>", "for the history")
    .action((id, { for: seconds, reason }) =>
      run(async (client) => {
        const done = await client.extendRuleRequest(id, {
          for_secs: seconds,
          ...(reason === undefined ? {} : { reason }),
        });
        const end = done.expires_at === null ? "for ever" : `until ${done.expires_at}`;
        return { json: done, lines: [`Rule request "${id}" is approved ${end}.`] };
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
    .action(() =>
      run(async (client) => {
        const json = await watch(client);
        return { json, lines: [] };
      })
    );
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
