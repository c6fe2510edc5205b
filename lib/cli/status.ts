/** `outcall status`: the daemon on one screen. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { DaemonStatus } from "../api/status.ts";
import { terminalColumns } from "./output.ts";
import { labels, plural, table } from "./render.ts";
import { EXIT, type Run } from "./run.ts";

/** Agents that are named; the others are a number. */
const NAMED_AGENTS = 10;

function agentsText(agents: DaemonStatus["agents"]): string {
  if (agents.length === 0) return "none";
  const named = agents.slice(0, NAMED_AGENTS)
    .map(({ name, address }) => name === "" ? address : `${name} ${address}`);
  const others = agents.length - named.length;
  return `${agents.length}: ${named.join(", ")}${others > 0 ? `, and ${others} more` : ""}`;
}

function rulesText({ rules, files, generation, loaded_at: at }: DaemonStatus["policy"]): string {
  return at === null
    ? "none loaded"
    : `${rules} from ${plural(files, "file")}, generation ${generation}, loaded ${at}`;
}

function blockedLines({ attempts, top, incomplete }: DaemonStatus["blocked"]): string[] {
  const gap = incomplete === null ? [] : [`  older decisions are missing: ${incomplete}`];
  if (attempts === 0) return ["Nothing was blocked in the last hour.", ...gap];
  const rows = table(
    [
      { header: "ATTEMPTS", width: 8 },
      { header: "AGENT", width: 16 },
      { header: "LAYER", width: 7 },
      { header: "WHAT", width: 28 },
      { header: "REASON", width: 15 },
      { header: "DECISION", width: 17 },
    ],
    top.map((one) => [one.attempts, one.agent, one.layer, one.what, one.reason, one.last_id]),
    terminalColumns(),
  );
  return [`Blocked in the last hour: ${plural(attempts, "attempt")}`, ...rows, ...gap];
}

function attentionLines(attention: DaemonStatus["attention"]): string[] {
  if (attention.length === 0) return ["Nothing needs you."];
  return [
    "Needs you:",
    ...attention.flatMap(({ what, command }) => [
      `  ${what}`,
      ...(command === null ? [] : [`    ${command}`]),
    ]),
  ];
}

/** The screen. */
export function statusLines(status: DaemonStatus): string[] {
  const { version, ready, parts, policy, agents, grants, tunnels } = status;
  const well = status.status === "ok" ? "all parts ok" : status.status;
  return [
    `outcalld ${version}: ${ready ? "ready" : "NOT READY"}, ${well}, up since ${status.started_at}`,
    "",
    ...table(
      [{ header: "PART", width: 12 }, { header: "STATE", width: 8 }, { header: "", width: 0 }],
      parts.map(({ name, state, detail }) => [name, state, detail]),
      terminalColumns(),
    ),
    "",
    ...labels(10, [
      ["Rules", rulesText(policy)],
      ["Agents", agentsText(agents)],
      ["Grants", grants],
      ["Tunnels", tunnels],
    ]),
    "",
    ...blockedLines(status.blocked),
    "",
    ...attentionLines(status.attention),
  ];
}

/** Adds the command to `program`. */
export function addStatusCommand(program: CommandUnknownOpts, run: Run): void {
  program.command("status")
    .description("show what is up, loaded and blocked, and what needs you; exit code 1: not ready")
    .action(() =>
      run(async (client) => {
        const status = await client.status();
        return {
          json: status,
          lines: statusLines(status),
          exitCode: status.ready ? EXIT.ok : EXIT.failed,
        };
      })
    );
}
