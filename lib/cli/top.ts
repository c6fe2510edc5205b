/** `outcall top`: a live view of what agents do, redrawn every second. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { HostClient } from "../api/client.ts";
import { MAX_DECISIONS } from "../api/decisions.ts";
import { OutcallError } from "../errors.ts";
import { pause } from "../pause.ts";
import { printable } from "../printable.ts";
import { decisionSchema } from "../record/schema.ts";
import { bytesText } from "../record/text.ts";
import { COUNT_SECS, Top, type TopRow, type TopView } from "../record/top.ts";
import { Keys, LEAVE, orAfter } from "./keys.ts";
import { writeOut } from "./output.ts";
import { table } from "./render.ts";
import type { Report, Run } from "./run.ts";
import { stdoutStyle, type Style } from "./style.ts";

const REDRAW_MS = 1_000;

/** Pause before a daemon that is gone is looked for again. */
const RECONNECT_MS = 1_000;

/** The other screen, without a cursor, so that what was on the first one is there again afterwards. */
const ENTER = "\x1b[?1049h\x1b[?25l";
const RESTORE = "\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
/** Rest of the line, rest of the screen. */
const CLEAR_LINE = "\x1b[K";
const CLEAR_REST = "\x1b[J";

/** Of a table on paper: an agent can bring about thousands of hosts, and the busiest come first. */
const MAX_PLAIN_ROWS = 50;

/** Size of a terminal that does not tell. */
const USUAL = { columns: 80, rows: 24 };

/** Adds the command to `program`. */
export function addTopCommand(program: CommandUnknownOpts, run: Run): void {
  program.command("top")
    .description("show live what agents do, by agent and by host; q leaves")
    .option("--once", "print the last minute once, and end; so does --json", false)
    .action(({ once }) =>
      run(async (client, { json }): Promise<Report> => {
        const { top, from } = await lastMinute(client);
        if (!once && !json) {
          await live(client, top, from);
          return { json: {}, lines: [], isPrinted: true };
        }
        const view = top.view(Date.now());
        return { json: { seconds: COUNT_SECS, ...view }, lines: plainLines(view) };
      })
    );
}

/** What happened so far, and where the stream goes on from there. */
async function lastMinute(
  client: HostClient,
): Promise<{ readonly top: Top; readonly from: string }> {
  const since = new Date(Date.now() - COUNT_SECS * 1_000).toISOString();
  const list = await client.decisions({ since, limit: MAX_DECISIONS });
  const top = new Top();
  for (const decision of list.decisions) top.add(decision);
  return { top, from: list.last_event_id };
}

/** What is told above the tables. */
interface State {
  /** Why what is shown may be out of date; null: it is not. */
  trouble: string | null;
}

/** Takes events in until the program ends; a daemon that goes away is waited for. */
async function follow(client: HostClient, top: Top, from: string, state: State): Promise<void> {
  for (let lastEventId = from;;) {
    try {
      for await (const { id, event, data } of client.events({}, lastEventId)) {
        lastEventId = id ?? lastEventId;
        if (event === "decision" || event === "update") {
          top.add(decisionSchema.parse(JSON.parse(data)));
        }
        state.trouble = event === "lost" ? "some events were lost" : null;
      }
    } catch (thrown) {
      if (!(thrown instanceof OutcallError) || thrown.code !== "daemon.unreachable") throw thrown;
    }
    state.trouble = "outcalld is away; waiting for it";
    await pause(RECONNECT_MS);
  }
}

/**
 * Shows until `q`, Ctrl-C or a signal; the terminal is as before then, however this ends.
 * @throws OutcallError `top.terminal` (400) when there is none.
 */
async function live(client: HostClient, top: Top, from: string): Promise<void> {
  if (!Deno.stdin.isTerminal() || !Deno.stdout.isTerminal()) {
    throw new OutcallError(400, "top.terminal", "there is no terminal to show it on", {
      hint: "Use --once, or --json.",
    });
  }
  const keys = new Keys();
  const restore = (): void => {
    keys[Symbol.dispose]();
    writeOut(RESTORE);
  };
  const leave = (): void => {
    restore();
    Deno.exit(0);
  };
  const state: State = { trouble: null };
  const draw = (): boolean => writeOut(screen(top.view(Date.now()), state, size(), stdoutStyle()));
  const redraw = (): void => void draw();
  for (const signal of ENDING) Deno.addSignalListener(signal, leave);
  Deno.addSignalListener("SIGWINCH", redraw);
  writeOut(ENTER);
  try {
    await Promise.race([follow(client, top, from, state), show(keys, draw)]);
  } finally {
    restore();
    Deno.removeSignalListener("SIGWINCH", redraw);
    for (const signal of ENDING) Deno.removeSignalListener(signal, leave);
  }
}

const ENDING = ["SIGTERM", "SIGHUP", "SIGINT"] as const;

/** Draws once a second until somebody leaves, or nobody reads any more. */
async function show(keys: Keys, draw: () => boolean): Promise<void> {
  while (draw()) {
    const key = await orAfter(REDRAW_MS, keys.next());
    if (key !== null && (key.includes(LEAVE) || key.includes("q"))) return;
  }
}

function size(): { readonly columns: number; readonly rows: number } {
  try {
    return Deno.consoleSize();
  } catch {
    return USUAL;
  }
}

const COLUMNS = ["ALLOW/S", "BLOCK/S", "ALLOWED", "BLOCKED", "UP", "DOWN", "NEWEST BLOCK"];

function cells({ name, newest, ...row }: TopRow): (string | number)[] {
  return [
    name,
    row.allow_rate.toFixed(1),
    row.block_rate.toFixed(1),
    row.allowed,
    row.blocked,
    row.up_bytes === 0 ? "-" : bytesText(row.up_bytes),
    row.down_bytes === 0 ? "-" : bytesText(row.down_bytes),
    newest === null ? "-" : `${newest.reason}: ${newest.what}`,
  ];
}

function tableOf(header: string, rows: readonly TopRow[], fit: number | null): string[] {
  const width = header === "HOST" ? 32 : 16;
  const columns = [
    { header, width },
    ...COLUMNS.map((header) => ({ header, width: header === "NEWEST BLOCK" ? 0 : 10 })),
  ];
  return table(columns, rows.map(cells), fit);
}

/** The view for a reader who scrolls: the busiest agents and hosts, and how many others there are. */
export function plainLines({ all, agents, hosts }: TopView): string[] {
  return [summary(all), "", ...plainTable("AGENT", agents), "", ...plainTable("HOST", hosts)];
}

function plainTable(header: string, rows: readonly TopRow[]): string[] {
  const others = rows.length - MAX_PLAIN_ROWS;
  return [
    ...tableOf(header, rows.slice(0, MAX_PLAIN_ROWS), null),
    ...(others > 0 ? [`  and ${others} more: outcall --json top`] : []),
  ];
}

function summary({ allow_rate: allow, block_rate: block, allowed, blocked }: TopRow): string {
  return `${allow.toFixed(1)} allowed and ${block.toFixed(1)} blocked a second; ` +
    `in the last minute ${allowed} and ${blocked}`;
}

/** One whole screen, with what moves the cursor: never more lines or columns than there are. */
export function screen(
  { all, agents, hosts }: TopView,
  { trouble }: { readonly trouble: string | null },
  { columns, rows }: { readonly columns: number; readonly rows: number },
  style: Style,
): string {
  const title = ["outcall top", summary(all), ...(trouble === null ? [] : [trouble]), "q leaves"]
    .map(printable).join(" | ");
  const cut = (line: string): string => line.slice(0, columns);
  // Agents first; hosts take what is left. Each table has a heading, and a blank line in front.
  const room = Math.max(0, rows - 5);
  const shownAgents = agents.slice(0, Math.max(Math.floor(room / 2), room - hosts.length));
  const shownHosts = hosts.slice(0, room - shownAgents.length);
  const [agentHead = "", ...agentLines] = tableOf("AGENT", shownAgents, columns);
  const [hostHead = "", ...hostLines] = tableOf("HOST", shownHosts, columns);
  const lines = [
    style(trouble === null ? "dim" : "yellow", cut(title)),
    "",
    style("dim", agentHead),
    ...agentLines,
    "",
    style("dim", hostHead),
    ...hostLines,
  ];
  const text = lines.slice(0, rows).map((line) => `${line}${CLEAR_LINE}`).join("\r\n");
  return `${HOME}${text}${CLEAR_REST}`;
}
