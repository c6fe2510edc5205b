/** `outcall logs …`: what was decided, as it was, as it comes, and counted. */
import { type CommandUnknownOpts, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import type { HostClient } from "../api/client.ts";
import { lostEvent, MAX_DECISIONS } from "../api/decisions.ts";
import { type Decision, DECISION_LAYERS } from "../decision.ts";
import { OutcallError } from "../errors.ts";
import { wholeNumber } from "../options.ts";
import { pause } from "../pause.ts";
import { printable } from "../printable.ts";
import type { DecisionFilter } from "../record/filter.ts";
import { decisionSchema } from "../record/schema.ts";
import type { DecisionStats, Tally } from "../record/table.ts";
import { bytesText, durationText } from "../record/text.ts";
import { whatText } from "../rules/words.ts";
import { writeErr, writeOut } from "./output.ts";
import { plural, table } from "./render.ts";
import type { Report, Run } from "./run.ts";
import { stdoutStyle, type Style } from "./style.ts";

/** Decisions that are shown unless told otherwise: a few screens. */
const DEFAULT_LIMIT = 50;

/** Pause before a daemon that is gone is looked for again. */
const RECONNECT_MS = 1_000;

const UNIT_MS: Readonly<Record<string, number>> = {
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** A moment, as a time before now (`15m`, `24h`, `7d`) or as ISO 8601. */
export function moment(text: string): string {
  const [, digits, unit] = /^([0-9]{1,6})([smhd])$/.exec(text) ?? [];
  const agoMs = Number(digits) * (UNIT_MS[unit ?? ""] ?? NaN);
  const ms = Number.isNaN(agoMs) ? Date.parse(text) : Date.now() - agoMs;
  if (Number.isNaN(ms) || ms < 0) {
    throw new InvalidArgumentError(
      "It must be a time such as 15m, 24h, 7d or 2026-05-04T09:30:00Z.",
    );
  }
  return new Date(ms).toISOString();
}

/** Adds the commands to `program`. */
export function addLogsCommands(program: CommandUnknownOpts, run: Run): void {
  // Its options are those of `stats`, too.
  const logs = program.command("logs")
    .description("show what was decided, oldest first")
    .option("-f, --follow", "go on with what is decided from now on, over restarts too", false)
    .option("--agent <name>", "of the agent of this name")
    .addOption(
      new Option("--verdict <verdict>", "allow or block").choices(["allow", "block"] as const),
    )
    .addOption(new Option("--layer <layer>", "of one layer").choices(DECISION_LAYERS))
    .option("--host <host>", "about a host or address; .example.com: it and all below")
    .option("--since <time>", "such as 15m, 24h, 7d, or ISO 8601", moment)
    .option(
      "--limit <n>",
      "at most so many of the newest",
      wholeNumber(1, MAX_DECISIONS),
      DEFAULT_LIMIT,
    )
    .action(({ follow, since, limit, ...filter }) =>
      run(async (client, { json }) => {
        const show = json ? showJson : lineWriter(stdoutStyle());
        const list = await client.decisions({ ...filter, since, limit });
        if (list.incomplete !== null) warn(`older decisions are missing: ${list.incomplete}`);
        if (json && !follow) return { json: list, lines: [] };
        for (const decision of list.decisions) show.decision(decision, false);
        if (follow) await followFrom(client, filter, list.last_event_id, show);
        return { json: list, lines: [], isPrinted: true };
      })
    );

  logs.command("stats")
    .description("count what was decided: top hosts, and by agent, rule and layer")
    .action(() =>
      run(async (client): Promise<Report> => {
        const { agent, verdict, layer, host, since = moment("24h") } = logs.opts();
        const stats = await client.decisionStats({ agent, verdict, layer, host, since });
        return { json: { since, ...stats }, lines: statsLines(since, stats) };
      })
    );
}

/** Prints what a stream brings. Both say false when nobody reads any more. */
interface Show {
  readonly decision: (decision: Decision, isUpdate: boolean) => boolean;
  readonly lost: (count: number | null, why: string) => boolean;
}

const showJson: Show = {
  decision: (decision) => writeOut(`${printable(JSON.stringify(decision))}\n`),
  lost: (count, why) => writeOut(`${printable(JSON.stringify({ lost: { count, why } }))}\n`),
};

function lineWriter(style: Style): Show {
  return {
    decision: (decision, isUpdate) => writeOut(`${decisionLine(decision, isUpdate, style)}\n`),
    lost: (count, why) => {
      const what = count === null ? "some decisions" : plural(count, "decision");
      return writeOut(`${style("yellow", printable(`-- lost ${what}: ${why} --`))}\n`);
    },
  };
}

function warn(text: string): void {
  writeErr(`${printable(`warning: ${text}`)}\n`);
}

/** One decision as a line; columns are as wide as they mostly need to be. */
function decisionLine(decision: Decision, isUpdate: boolean, style: Style): string {
  const { id, time, verdict, layer, agent, source, reason, rule } = decision;
  const cell = (text: string, width: number): string => printable(text).padEnd(width);
  const shown = isUpdate ? "...".padEnd(5) : verdict.padEnd(5);
  return [
    style("dim", cell(time, 24)),
    style(verdict === "block" ? "red" : "green", shown),
    cell(layer, 9),
    cell(agent === null || agent.name === "" ? source : agent.name, 16),
    cell([whatText(decision), ...growth(decision)].join(", "), 44),
    cell(rule === null ? reason : `${reason} ${rule.id}`, 24),
    style("dim", printable(id)),
  ].join(" ");
}

/** What came to be known after the decision. */
function growth({ count, targets, durationMs, tunnel }: Decision): string[] {
  return [
    ...(count === undefined ? [] : [plural(count, "time")]),
    ...(targets === undefined ? [] : [plural(targets.distinct, "target")]),
    ...(durationMs === undefined ? [] : [durationText(durationMs)]),
    ...(tunnel === undefined ? [] : [
      `${bytesText(tunnel.upBytes)} up`,
      `${bytesText(tunnel.downBytes)} down`,
      tunnel.end,
    ]),
  ];
}

/** Shows events until nobody reads them; a daemon that goes away is waited for. */
async function followFrom(
  client: HostClient,
  filter: DecisionFilter,
  from: string,
  show: Show,
): Promise<void> {
  let lastEventId = from;
  let isAway = false;
  for (;;) {
    try {
      for await (const { id, event, data } of client.events(filter, lastEventId)) {
        lastEventId = id ?? lastEventId;
        if (!showEvent(event, data, show)) return;
      }
    } catch (thrown) {
      if (!(thrown instanceof OutcallError) || thrown.code !== "daemon.unreachable") throw thrown;
    }
    // Whoever answers from now on begins where the last one ended.
    if (!isAway) warn("outcalld ended the stream; waiting for it to come back");
    isAway = true;
    await pause(RECONNECT_MS);
    if (await isThere(client)) {
      warn("outcalld is back");
      isAway = false;
    }
  }
}

async function isThere(client: HostClient): Promise<boolean> {
  try {
    await client.decisions({ limit: 1 });
    return true;
  } catch (thrown) {
    if (thrown instanceof OutcallError && thrown.code === "daemon.unreachable") return false;
    throw thrown;
  }
}

function showEvent(event: string | undefined, data: string, show: Show): boolean {
  const value: unknown = JSON.parse(data);
  if (event === "lost") {
    const { count, why } = lostEvent.parse(value);
    return show.lost(count, why);
  }
  return show.decision(decisionSchema.parse(value), event === "update");
}

function statsLines(since: string, stats: DecisionStats): string[] {
  const { allowed, blocked, hosts, agents, rules, layers } = stats;
  return [
    `Since ${since}: ${
      plural(allowed + blocked, "attempt")
    }, ${allowed} allowed, ${blocked} blocked`,
    ...tallyLines("HOST", hosts, "-"),
    ...tallyLines("AGENT", agents, "(unknown)"),
    ...tallyLines("RULE", rules, "(no rule)"),
    ...tallyLines("LAYER", layers, "-"),
  ];
}

function tallyLines(header: string, tallies: readonly Tally[], nameless: string): string[] {
  if (tallies.length === 0) return [];
  const columns = [
    { header, width: 40 },
    { header: "BLOCKED", width: 8 },
    { header: "ALLOWED", width: 0 },
  ];
  const rows = tallies.map(({ name, allowed, blocked }) => [name || nameless, blocked, allowed]);
  return ["", ...table(columns, rows)];
}
