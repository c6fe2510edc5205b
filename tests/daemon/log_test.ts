import { deepEqual, equal, match } from "node:assert/strict";
import { parseLogFilter } from "../../lib/log.ts";

Deno.test("parseLogFilter() defaults to info", () => {
  const filter = parseLogFilter("");
  equal(filter.defaultLevel, "info");
  equal(filter.targets.size, 0);
});

Deno.test("parseLogFilter() reads bare levels, targets, and the documented outcalld= form (D16)", () => {
  const filter = parseLogFilter("outcalld=debug,hyper=warn, dns=trace,proxy=off");
  equal(filter.defaultLevel, "debug");
  deepEqual([...filter.targets], [["dns", "trace"], ["proxy", null]]);
  deepEqual(filter.rejected, []);
});

Deno.test("parseLogFilter() names what it does not understand and keeps the rest", () => {
  const filter = parseLogFilter("dns=loud,warn");
  deepEqual(filter.rejected, ["dns=loud"]);
  equal(filter.defaultLevel, "warning");
});

const PROGRAM = `
  import { configureLogs, logger } from "${new URL("../../lib/log.ts", import.meta.url)}";
  await configureLogs({ format: Deno.args[0], redactHostnames: false });
  logger("dns").info("host {host} is {state}", { host: "evil\\u001b[2J\\n.example", state: 7 });
  logger("proxy").info("silenced");
`;

async function logged(format: "text" | "json"): Promise<string> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "-", format],
    cwd: new URL("../..", import.meta.url),
    env: { OUTCALL_LOG: "info,proxy=off" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = command.stdin.getWriter();
  await writer.write(new TextEncoder().encode(PROGRAM));
  await writer.close();
  const { stderr } = await command.output();
  return new TextDecoder().decode(stderr);
}

Deno.test("text logs escape control characters that an agent sent (CWE-150)", async () => {
  const text = await logged("text");
  match(text, /^\S+Z info {2}dns: host evil\\u001b\[2J\\u000a\.example is 7\n$/);
});

Deno.test("JSON logs are one object a line, with the values beside the message (D16)", async () => {
  const text = await logged("json");
  const line = JSON.parse(text);
  equal(line.level, "info");
  equal(line.target, "dns");
  equal(line.state, 7);
  equal(line.host, "evil\u001b[2J\n.example");
  equal(text.indexOf("\n"), text.length - 1);
});
