/** Decisions in the log: one line each, without hostnames if so wished, and never a flood. */
import { deepEqual, equal, match, ok } from "node:assert/strict";

const lib = (path: string): string => new URL(`../../lib/${path}`, import.meta.url).href;

/** Logs what `work` decides, with the options and the level of the daemon. */
async function logged(work: string, redactHostnames: boolean, level: string): Promise<string[]> {
  const program = `
    import { configureLogs } from "${lib("log.ts")}";
    import { DecisionLog } from "${lib("decision.ts")}";
    import { DecisionLines } from "${lib("decision_log_line.ts")}";
    import { blockedName } from "${new URL("./support.ts", import.meta.url)}";
    await configureLogs({ format: "text", redactHostnames: ${redactHostnames} });
    const log = new DecisionLog();
    const lines = new DecisionLines();
    log.addSink(lines.add);
    ${work}
  `;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--no-check", "-"],
    cwd: new URL("../..", import.meta.url),
    env: { OUTCALL_LOG: level },
    stdin: "piped",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(program));
  await writer.close();
  const { stderr } = await child.output();
  return new TextDecoder().decode(stderr).trimEnd().split("\n");
}

const TWO = `
  const made = log.record(blockedName("secret.test"));
  log.update(made, { count: 9 });
  log.record({ ...blockedName("x"), verdict: "allow", reason: "rule", layer: "http",
    attempt: { host: "fine.test", port: 80, method: "GET", path: "/inner" } });
`;

Deno.test("each decision is one line, blocks at info and allows at debug (D16)", async () => {
  const [block = "", ...others] = await logged(TWO, false, "info");
  deepEqual(others, []);
  match(
    block,
    /Z info {2}dns: block dns secret\.test A source=10\.200\.0\.2 agent=worker reason=default rule=default id=\S{17}$/,
  );
  const both = await logged(TWO, false, "debug");
  equal(both.length, 2);
  match(both[1] ?? "", / debug proxy: allow http GET fine\.test:80 \/inner source=/);
});

Deno.test("with --log-redact-hostnames no line says where an agent went", async () => {
  const lines = await logged(TWO, true, "debug");
  equal(lines.length, 2);
  match(lines[0] ?? "", /block dns <redacted> A source=/);
  match(lines[1] ?? "", /allow http GET <redacted>:80 <redacted> source=/);
  ok(!/secret|fine|inner/.test(lines.join()));
});

Deno.test("in a flood a second has a thousand lines, and one that counts the rest", async () => {
  const flood = `
    for (let i = 0; i < 5000; i++) log.record(blockedName("h" + i));
    console.error("left out " + lines.leftOut);
  `;
  const lines = await logged(flood, false, "info");
  // The flood may have run into a second second.
  const decisions = lines.filter((line) => line.includes(" block dns ")).length;
  const said = lines.flatMap((line) => /: (\d+) more decisions in/.exec(line)?.[1] ?? []);
  ok(decisions >= 1_000 && decisions < 5_000, `${decisions} lines`);
  equal(decisions + said.reduce((sum, count) => sum + Number(count), 0), 5_000);
  ok(lines.includes(`left out ${5_000 - decisions}`));
});
