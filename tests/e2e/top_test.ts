/** `outcall top` at a real terminal: it shows what happens, follows its size, and leaves nothing behind. */
import assert from "node:assert/strict";
import { Lab } from "../lab/lab.ts";
import type { Process } from "../lab/process.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "dig", "script", "stty"];

/** Ends the other screen and shows the cursor. */
const RESTORED = "\u001b[?25h\u001b[?1049l";

const RESIZED = "/run/resized";

const SCRIPT = "/run/watch.sh";

/** What an operator does at a terminal, and what is left of it afterwards. */
const WATCH = `stty rows 30 cols 120
(while [ ! -e ${RESIZED} ]; do sleep 0.05; done; stty rows 6 cols 40; echo resized >&2) < /dev/tty &
sh -c 'echo "pid $$"; exec outcall top'
echo "code $?"
stty -a`;

labTest("outcall top shows what happens, at a terminal", { tools: TOOLS }, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const { host } = lab;
  let daemon = await lab.startDaemon({ rules: {} });
  const agent = await lab.agent();
  await host.write(SCRIPT, WATCH);
  const look = (name: string): Promise<unknown> =>
    agent.run(["dig", "+time=1", "+tries=1", name, "@10.200.255.1"]);
  const watcher = (): Process =>
    host.spawn(
      ["script", "--quiet", "--flush", "--return", "--command", `bash ${SCRIPT}`, "/dev/null"],
    );
  const shows = (at: Process, text: string, from = 0): Promise<string> =>
    at.line("stdout", (line) => line.includes(text), from);
  const isRestored = async (at: Process): Promise<void> => {
    await shows(at, "code 0");
    await at.ended;
    const printed = at.stdout.join("\n");
    assert.ok(printed.includes(RESTORED));
    const settings = printed.slice(printed.lastIndexOf("code 0"));
    for (const flag of ["icanon", "isig", "echo"]) {
      assert.match(settings, new RegExp(`(^|\\s)${flag}(\\s|$)`, "m"));
    }
  };

  await t.step("what is blocked comes on the screen, also after the daemon was away", async () => {
    const terminal = watcher();
    await shows(terminal, "NEWEST BLOCK");
    await look("one.example");
    await shows(terminal, "default: one.example A");
    await daemon.kill();
    await shows(terminal, "outcalld is away");
    daemon = await lab.startDaemon();
    await look("two.example");
    await shows(terminal, "default: two.example A");
    await terminal.tell("q");
    await isRestored(terminal);
  });

  await t.step("it follows the terminal's size", async () => {
    const terminal = watcher();
    await shows(terminal, "two.example");
    await host.write(RESIZED, "");
    await shows(terminal, "resized");
    const from = terminal.stdout.length;
    await shows(terminal, "HOST", from);
    const frames = terminal.stdout.slice(from + 1).join("\n").split("\u001b[H").slice(1, -1);
    for (const frame of frames) {
      const lines = frame.split("\n").map((line) => line.replaceAll("\r", ""));
      assert.ok(lines.length <= 6, frame);
    }
    await terminal.tell("q");
    await isRestored(terminal);
  });

  await t.step("a signal leaves the terminal as it was, too", async () => {
    await host.must(["rm", RESIZED]);
    const terminal = watcher();
    const [, pid] = /pid (\d+)/.exec(await shows(terminal, "pid ")) ?? [];
    await shows(terminal, "NEWEST BLOCK");
    await host.kill(Number(pid), "TERM");
    await isRestored(terminal);
  });

  await t.step("without a terminal it wants --once; scripts get JSON", async () => {
    const none = await lab.cli("top");
    assert.equal(none.code, 1);
    assert.match(none.stderr, /there is no terminal .*\nhint: Use --once/);
    const { stdout } = await lab.cli("top", "--once");
    assert.match(stdout, /^0\.\d allowed and .*\n\nAGENT .*NEWEST BLOCK\n/);
    const { ok, seconds, hosts } = JSON.parse((await lab.cli("--json", "top")).stdout);
    assert.deepEqual([ok, seconds], [true, 60]);
    assert.ok(hosts.some(({ name }: { name: string }) => name === "two.example"));
  });
});
