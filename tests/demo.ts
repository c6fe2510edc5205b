/**
 * The main job, shown: builds the closed lab, starts the real outcalld with the quickstart's rule,
 * lets real clients try what an agent may and may not do, and prints a row for each attempt. Exit
 * code 0 when every promise was kept, 1 otherwise. Nothing is left behind, whatever ends it: the
 * kernel takes the lab away with this process (see lab/machine.ts).
 */
import { messageOf } from "../lib/errors.ts";
import {
  ALLOWED,
  type Attempt,
  BLOCKED,
  blockedOnHost,
  DAEMON_BACK,
  DAEMON_DEAD,
  QUICKSTART_RULE,
} from "./demo/attempts.ts";
import { type Row, type Stage, tryPromise } from "./demo/promise.ts";
import { type Column, renderHead, renderRow } from "./demo/table.ts";
import { DEFAULT_PLACE } from "./lab/agent.ts";
import { HOST_ADDRESS, Lab, UNFILTERED_GATEWAY } from "./lab/lab.ts";
import { Listener } from "./lab/listener.ts";
import { setUp } from "./setup.ts";

/** Any port that is neither the DNS filter's nor the proxy's. */
const HOST_PORT = 2222;

const COLUMNS: readonly Column[] = [
  { title: "", width: 2 },
  { title: "The agent tries", width: 37 },
  { title: "Decided by", width: 21 },
  { title: "The client saw", width: 17 },
  { title: "The server saw", width: 15 },
];

/** Green and red, on a terminal that wants colours. */
function paint(text: string, colour: 31 | 32): string {
  return Deno.stdout.isTerminal() && !Deno.noColor ? `\x1b[${colour}m${text}\x1b[0m` : text;
}

function print(row: Row): void {
  const kept = row.broken.length === 0;
  const cells = [kept ? "ok" : "NO", row.title, row.decided, row.client, row.server];
  const text = renderRow(COLUMNS, cells);
  console.log(paint(text.slice(0, 2), kept ? 32 : 31) + text.slice(2));
  for (const reason of row.broken) console.log(paint(`    broken: ${reason}`, 31));
}

async function act(
  title: string,
  stage: Stage,
  attempts: readonly Attempt[],
): Promise<boolean[]> {
  console.log(`\n${title}`);
  const kept: boolean[] = [];
  for (const attempt of attempts) {
    const row = await tryPromise(stage, attempt);
    print(row);
    kept.push(row.broken.length === 0);
  }
  return kept;
}

async function show(): Promise<boolean> {
  const startedMs = performance.now();
  console.log("Building a closed world of network namespaces: an internet, a host, an agent …");
  await using lab = await Lab.create({ docker: false });
  console.log("Starting outcalld with the quickstart's rule: api.openai.com and nothing else …\n");
  const daemon = await lab.startDaemon({ rules: { "agent.yaml": QUICKSTART_RULE } });
  const { gateway, address } = DEFAULT_PLACE;
  const running: Stage = {
    lab,
    agent: await lab.agent(),
    address: address.slice(0, address.indexOf("/")),
    gateway,
    daemonRuns: true,
  };
  const listener = await Listener.start(lab.host, HOST_PORT);
  const host = { gateway, uplink: HOST_ADDRESS, control: UNFILTERED_GATEWAY };

  console.log(renderHead(COLUMNS));
  const kept = await act("What the rule allows", running, ALLOWED);
  kept.push(...await act("Everything else", running, BLOCKED));
  const onHost = blockedOnHost(host, HOST_PORT, listener);
  kept.push(...await act("The host itself", running, onHost));
  await daemon.kill();
  const dead = { ...running, daemonRuns: false };
  kept.push(...await act("After kill -9 of outcalld", dead, DAEMON_DEAD));
  await lab.startDaemon();
  kept.push(...await act("After its restart", running, DAEMON_BACK));

  const good = kept.filter(Boolean).length;
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  console.log(
    `\nEach blocked attempt was first made without outcall. It took ${seconds} s in all.`,
  );
  console.log(paint(`${good} of ${kept.length} as promised`, good === kept.length ? 32 : 31));
  return good === kept.length;
}

const missing = await setUp("demo");
if (missing !== null) {
  console.error(missing);
  Deno.exit(1);
}
try {
  Deno.exit(await show() ? 0 : 1);
} catch (thrown) {
  console.error(`The demo could not go on: ${messageOf(thrown)}`);
  Deno.exit(1);
}
