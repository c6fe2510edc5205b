/** How rule requests and the answers to them are shown. */
import type { RuleRequestReply } from "../api/requests.ts";
import { labels, plural } from "./render.ts";

/** After an approval. */
export function approvedLine(id: string, rulesLoaded: number): string {
  return `Rule request "${id}" approved; ${rulesLoaded} rule(s) loaded.`;
}

/** After a rejection. */
export function rejectedLine(id: string): string {
  return `Rule request "${id}" rejected.`;
}

/** The agent's name, or where it is when it has none. */
export function whoOf({ agent, address }: RuleRequestReply): string {
  return agent === "" ? address : agent;
}

/** What becomes reachable, in a few words. */
export function opens({ rules }: RuleRequestReply): string {
  const allowed = rules.filter(({ action }) => action === "allow");
  if (allowed.some(({ hosts }) => hosts === null)) return "any host";
  const hosts = allowed.flatMap(({ hosts }) => hosts ?? []);
  return hosts.length === 0 ? "-" : [...new Set(hosts)].join(", ");
}

/** All there is to know of a request. */
export function requestLines(request: RuleRequestReply): string[] {
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
      ...optional("Wanted for", request.for_secs === null ? null : durationText(request.for_secs)),
      ["Opens", opens(request)],
      ...optional("Answered", request.decided_at),
      ...optional("By", request.decided_by),
      ...optional("Answer", request.answer),
      ...optional("Until", request.expires_at),
      ...(request.edited ? [["Edited", "yes, by the operator"] as const] : []),
    ]),
    ...request.warnings.map((warning) => `warning: ${warning}`),
    "Rules:",
    ...ruleLines(request.rule_file),
    ...(request.history.length > 1 ? ["History:", ...request.history.map(eventLine)] : []),
  ];
}

function eventLine({ at, event, by, until, note }: RuleRequestReply["history"][number]): string {
  const holds = event === "approved" || event === "extended";
  return [
    `  ${at} ${event}`,
    ...(by === null || by === "" ? [] : [`by ${by}`]),
    ...(holds ? [until === null ? "for ever" : `until ${until}`] : []),
  ].join(" ") + (note === null ? "" : `: ${note}`);
}

/** A rule file, set in. */
export function ruleLines(ruleFile: string): string[] {
  return ruleFile.trimEnd().split("\n").map((line) => `  ${line}`);
}

const UNITS = [["d", 86_400], ["h", 3_600], ["m", 60]] as const;

/** Seconds as `15m`, `24h` or `90s`: in the largest unit that they are a multiple of. */
export function durationText(seconds: number): string {
  const [unit, size] = UNITS.find(([, size]) => seconds % size === 0) ?? ["s", 1];
  return seconds === 86_400 ? "24h" : `${seconds / size}${unit}`;
}
