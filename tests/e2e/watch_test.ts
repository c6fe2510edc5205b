/** `outcall requests watch` at real terminals: two operators, one key each, and none for the wrong request. */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { Lab } from "../lab/lab.ts";
import type { Finished, Process } from "../lab/process.ts";
import { labTest } from "../lab/requirements.ts";
import { installShim } from "../lab/shim.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "setpriv", "setsid", "curl", "script", "stty"];

const WIDE = `version: "1"
rules:
  - id: docs
    condition: http.host.endsWith(".example.com") || http.host == "example.com"
    action: allow
`;

/** What an operator does at a terminal, and what is left of it afterwards. */
const WATCH = "outcall requests watch; echo code $?; stty -a";

labTest("requests are answered by one key at a terminal", { tools: TOOLS }, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const { host } = lab;
  await installShim(host);
  let daemon = await lab.startDaemon({ rules: {} });

  const agent = (...argv: readonly string[]): Promise<Finished> =>
    lab.cli("run", "--name", "worker", "--", ...argv);
  const request = async (...args: readonly string[]): Promise<string> => {
    const { stdout, stderr } = await agent("outcall-agent", "request", ...args);
    return /rr-[0-9a-f]{12}/.exec(stdout)?.[0] ?? assert.fail(stderr);
  };
  const show = async (id: string): Promise<string> =>
    (await lab.cli("requests", "show", id)).stdout;
  const watcher = async (): Promise<Process> => {
    const script = ["script", "--quiet", "--flush", "--return", "--command", WATCH, "/dev/null"];
    const process = host.spawn(script, { env: { EDITOR: "sed -i s/example.net/example.org/" } });
    await process.line("stdout", (line) => line.startsWith("Waiting for requests"));
    return process;
  };
  /** Waits until the keys are offered for a request. */
  const asked = async (at: Process, id: string): Promise<void> => {
    const from = at.stdout.length;
    const shown = await at.line("stdout", (line) => line.includes(id));
    const first = Math.max(at.stdout.lastIndexOf(shown), 0);
    await at.line("stdout", (line) => line.startsWith("[1] 15m"), Math.min(first, from));
  };
  const says = (at: Process, pattern: RegExp): Promise<string> =>
    at.line("stdout", (line) => pattern.test(line));
  const [one, two] = [await watcher(), await watcher()];

  await t.step("one approves by one key, and the other is told", async () => {
    const id = await request("https://one.example/", "--reason", "the first");
    await Promise.all([asked(one, id), asked(two, id)]);
    await one.type("1");
    await says(one, new RegExp(`"${id}" approved; 1 rule.* It ends in 15m`));
    await says(two, new RegExp(`${id} was answered by uid 0 meanwhile: approved`));
    assert.match(await show(id), /Status: +approved\n/);
  });

  await t.step("narrow offers what the agent tried, and puts that in force", async () => {
    assert.equal((await agent("curl", "-s", "http://docs.example.com/guide")).code, 0);
    const file = 'printf %s "$0" > /tmp/r.yaml; outcall-agent request --file /tmp/r.yaml';
    const { stdout } = await agent("sh", "-c", file, WIDE);
    const id = stdout.slice(0, 15);
    await Promise.all([asked(one, id), asked(two, id)]);
    await two.type("n");
    const offer = await says(two, /\[\d\] only the path \/guide, by plain HTTP/);
    await says(two, /^\[1-9\] take it/);
    const menus = two.stdout.length;
    await two.type(/\[(\d)\]/.exec(offer)?.[1] ?? "");
    await says(two, /would now be, only the path \/guide/);
    await two.line("stdout", (line) => line.startsWith("[1] 15m"), menus);
    await two.type("2");
    await says(two, new RegExp(`"${id}" approved;.* It ends in 1h`));
    assert.match(await show(id), /&& http\.path == "\/guide"/);
    assert.match(await show(id), /Edited: +yes/);
    assert.match(
      (await agent("outcall-agent", "status", id)).stdout,
      /approved, not all that was asked for/,
    );
  });

  await t.step("an editor changes it, and a reason goes with a rejection", async () => {
    const edit = await request("https://example.net/");
    await Promise.all([asked(one, edit), asked(two, edit)]);
    const menus = one.stdout.length;
    await one.type("e");
    await says(one, /^It would now be:/);
    await one.line("stdout", (line) => line.startsWith("[1] 15m"), menus);
    await one.type("3");
    await says(one, new RegExp(`"${edit}" approved;.* It ends in 24h`));
    assert.match(await show(edit), /Opens: +example\.org\n/);

    const id = await request("https://example.info/");
    await Promise.all([asked(one, id), asked(two, id)]);
    await one.type("r");
    await says(one, /^Reason, for the agent/);
    await one.type("use the mirror\n");
    await says(one, new RegExp(`"${id}" rejected`));
    const { code, stdout } = await agent("outcall-agent", "status", id);
    assert.deepEqual([code, stdout], [1, `${id} rejected, use the mirror\n`]);
  });

  await t.step(
    "what was typed before the question answers nothing; skipping leaves it",
    async () => {
      for (const at of [one, two]) await at.type("3311f");
      const id = await request("https://two.example/", "--for", "2h");
      await Promise.all([asked(one, id), asked(two, id)]);
      assert.ok(one.stdout.some((line) => line.includes("[a] 2h, as asked")));
      await two.type("s");
      await one.type("a");
      await says(one, new RegExp(`"${id}" approved;.* It ends in 2h`));
    },
  );

  await t.step("a daemon that restarts is waited for, with what waits in it", async () => {
    await daemon.kill();
    await Promise.all([one, two].map((at) => says(at, /daemon unreachable .*; waiting for it/)));
    daemon = await lab.startDaemon();
    await Promise.all([one, two].map((at) => says(at, /^The daemon is back/)));
    const id = await request("https://three.example/");
    await Promise.all([asked(one, id), asked(two, id)]);
  });

  await t.step("q and Ctrl-C leave the terminal as it was, and the request as it is", async () => {
    await one.type("q");
    await two.type("\x03");
    for (const at of [one, two]) {
      assert.equal(await at.ended, 0);
      const text = at.stdout.join("\n");
      assert.match(text, /code 0/);
      assert.match(text, /[^-]icanon/);
      assert.match(text, /[^-]echo\b/);
    }
    await eventually(async () => /pending/.test((await lab.cli("requests", "list")).stdout));
  });

  await t.step("without a terminal it only shows", async () => {
    const shown = host.spawn(["bash", "-c", "echo $$; exec outcall requests watch"]);
    const pid = Number(await shown.line("stdout", () => true));
    await shown.line("stdout", (line) => line.startsWith("Opens: "));
    await host.kill(pid, "TERM");
    await shown.ended;
  });
});
