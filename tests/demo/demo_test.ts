import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { eventually } from "../eventually.ts";
import { DEFAULT_PLACE } from "../lab/agent.ts";
import { Lab } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";
import { ALLOWED, type Attempt, BLOCKED, QUICKSTART_RULE } from "./attempts.ts";
import { type Row, type Stage, tryPromise } from "./promise.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl", "dig", "nc.openbsd", "ping"];
const DEMO = fileURLToPath(new URL("../demo.ts", import.meta.url));

function startDemo(): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", DEMO],
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Every process that runs, with its parent. */
async function processes(): Promise<{ pid: number; parent: number }[]> {
  const found = [];
  for await (const { name } of Deno.readDir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await Deno.readTextFile(`/proc/${name}/stat`).catch(() => null);
    if (stat === null) continue; // it has just ended
    const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // Ended, but process 1 has not taken notice, which in some containers it never does.
    if (state !== "Z") found.push({ pid: Number(name), parent: Number(parent) });
  }
  return found;
}

async function descendants(root: number): Promise<number[]> {
  const all = await processes();
  const below = (pid: number): number[] =>
    all.filter(({ parent }) => parent === pid).flatMap((child) => [child.pid, ...below(child.pid)]);
  return below(root);
}

labTest("the demo keeps its promises, in at most 100 columns", { tools: TOOLS }, async () => {
  const { code, stdout, stderr } = await startDemo().output();
  const text = new TextDecoder().decode(stdout);
  assert.equal(code, 0, `${text}\n${new TextDecoder().decode(stderr)}`);
  const lines = text.trimEnd().split("\n");
  const [, good, all] = /^(\d+) of (\d+) as promised$/.exec(lines.at(-1) ?? "") ?? [];
  assert.equal(good, all);
  assert.ok(Number(all) >= 15);
  assert.ok(lines.every((line) => line.length <= 100));
});

labTest("a demo that is interrupted leaves no process behind", { tools: TOOLS }, async () => {
  const demo = startDemo();
  const reader = demo.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let printed = "";
  while (!printed.includes("\nok ")) {
    const { value, done } = await reader.read();
    assert.ok(!done, printed);
    printed += value;
  }
  const family = await descendants(demo.pid);
  assert.ok(family.length >= 4, "the lab's machines run");
  demo.kill("SIGINT");
  assert.equal((await demo.status).success, false);
  await Promise.all([reader.cancel(), demo.stderr.cancel()]);
  await eventually(
    async () => (await processes()).every(({ pid }) => !family.includes(pid)),
    "the demo's processes are gone",
  );
});

labTest("a promise that the product does not keep is shown as broken", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  await lab.startDaemon({ rules: { "agent.yaml": QUICKSTART_RULE } });
  const stage: Stage = {
    lab,
    agent: await lab.agent(),
    address: DEFAULT_PLACE.address.replace(/\/.*/, ""),
    gateway: DEFAULT_PLACE.gateway,
    daemonRuns: true,
  };
  const attempt = async (base: Attempt | undefined, change: Partial<Attempt>): Promise<Row> => {
    assert.ok(base !== undefined);
    return await tryPromise(stage, { ...base, ...change });
  };

  await t.step("what should be blocked and arrives", async () => {
    const row = await attempt(ALLOWED[1], { allowed: false });
    assert.ok(row.broken.some((reason) => reason.startsWith("it arrived: ")));
  });
  await t.step("what should arrive and does not", async () => {
    const row = await attempt(BLOCKED[0], { allowed: true });
    assert.deepEqual(row.broken, ["nothing arrived", "dns should allow it"]);
  });
  await t.step("what another layer decided", async () => {
    const row = await attempt(BLOCKED[0], { layer: "http" });
    assert.deepEqual(row.broken, ["http should block it"]);
  });
  await t.step("what the client saw otherwise", async () => {
    const row = await attempt(BLOCKED[0], { client: /NOERROR/ });
    assert.deepEqual(row.broken, ["the client should see NOERROR"]);
  });
  await t.step("what does not arrive without the product either", async () => {
    const row = await attempt(BLOCKED[0], { control: ["true"] });
    assert.match(row.broken[0] ?? "", /^inconclusive: /);
  });
});
