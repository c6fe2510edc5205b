/** `outcall logs`: what people and programs see of decisions. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { type Decision, DecisionLog } from "../../lib/decision.ts";
import { HistoryLookup } from "../../lib/record/lookup.ts";
import { DecisionRecords } from "../../lib/record/records.ts";
import { DECISION, healthy, services } from "../api/services.ts";
import { serveHost, withDirectory, withHostApi } from "../api/running.ts";
import { eventually } from "../eventually.ts";
import { labTest } from "../lab/requirements.ts";
import { blockedName } from "../record/support.ts";
import { outcall } from "./outcall.ts";

const CLI = new URL("../../cli.ts", import.meta.url).pathname;

const TUNNEL: Decision = {
  ...DECISION,
  id: "01k9zzzzz0000abce",
  layer: "connect",
  agent: { name: "worker", address: "10.200.0.2", network: "outcall-agent-net" },
  attempt: { host: "api.openai.com", port: 443, method: "CONNECT" },
  verdict: "allow",
  reason: "rule",
  rule: { id: "allow-openai", file: "/etc/outcall/rules.d/agent.yaml", line: 3 },
  durationMs: 2_345,
  tunnel: { upBytes: 813, downBytes: 13_107_200, end: "closed" },
};

Deno.test("logs prints a line for each decision, oldest first", () =>
  withHostApi(async ({ path, answers }) => {
    answers.decisions.push(TUNNEL);
    const { code, out, err } = await outcall("--socket", path, "logs");
    deepEqual({ code, err }, { code: 0, err: "" });
    equal(
      out,
      `2026-01-02T03:04:05.678Z block dns       10.200.0.2       example.com A                                default                  01k9zzzzz0000abcd
2026-01-02T03:04:05.678Z allow connect   worker           CONNECT api.openai.com:443, 2.3 s, 813 B up, 12.5 MiB down, closed rule allow-openai        01k9zzzzz0000abce
`,
    );
  }));

Deno.test("logs takes the filters of the API, and prints its JSON", () =>
  withHostApi(async ({ path, answers }) => {
    answers.decisions.push(TUNNEL);
    const filters = ["--agent", "worker", "--verdict", "allow", "--layer", "connect", "--host"];
    const { out } = await outcall("--socket", path, "logs", "--json", ...filters, ".openai.com");
    deepEqual(JSON.parse(out), {
      ok: true,
      decisions: [TUNNEL],
      incomplete: null,
      last_event_id: "1767323045678001",
    });
    for (const wrong of [["--layer", "tls"], ["--verdict", "no"], ["--since", "soon"]]) {
      equal((await outcall("--socket", path, "logs", ...wrong)).code, 2, wrong.join(" "));
    }
  }));

Deno.test("nothing in a decision steers the terminal (CWE-150)", () =>
  withHostApi(async ({ path, answers }) => {
    answers.decisions = [{
      ...DECISION,
      attempt: { host: "a\x1b[2J.test", path: "/\u202e\n" },
      agent: { name: "w\x07", address: "10.200.0.2", network: "outcall-x" },
    }];
    for (const flags of [[], ["--json"]]) {
      const { out } = await outcall("--socket", path, "logs", ...flags);
      ok([...out].every((char) => char === "\n" || (char >= " " && char !== "\u202e")), out);
      match(out, /a\\u001b\[2J\.test/);
      equal(out.split("\n").length, 2);
    }
  }));

labTest("on a terminal verdicts are coloured, unless NO_COLOR says not to", {
  tools: ["script"],
}, () =>
  withHostApi(async ({ path }) => {
    const printed = async (env: Record<string, string>): Promise<string> => {
      const command = `${Deno.execPath()} run -A --no-check ${CLI} --socket ${path} logs`;
      const { stdout } = await new Deno.Command("script", {
        args: ["--quiet", "--return", "--command", command, "/dev/null"],
        env,
        stdin: "null",
      }).output();
      return new TextDecoder().decode(stdout);
    };
    ok((await printed({ NO_COLOR: "" })).includes("\x1b[31mblock\x1b[0m"));
    ok(!(await printed({ NO_COLOR: "1" })).includes("\x1b"));
  }));

Deno.test("logs stats counts by host, agent, rule and layer", () =>
  withHostApi(async ({ path }) => {
    const { out } = await outcall(
      "--socket",
      path,
      "logs",
      "stats",
      "--since",
      "2026-05-04T09:30Z",
    );
    equal(
      out,
      `Since 2026-05-04T09:30:00.000Z: 13 attempts, 9 allowed, 4 blocked

HOST                                     BLOCKED  ALLOWED
example.com                              4        0
api.openai.com                           0        9

AGENT                                    BLOCKED  ALLOWED
worker                                   4        9

RULE                                     BLOCKED  ALLOWED
(no rule)                                4        0
allow-openai                             0        9

LAYER                                    BLOCKED  ALLOWED
dns                                      4        9
`,
    );
    const { out: json } = await outcall("--socket", path, "logs", "stats", "--json");
    const { ok: isOk, blocked, hosts } = JSON.parse(json);
    deepEqual([isOk, blocked, hosts.length], [true, 4, 2]);
  }));

/** A command that goes on, and what it has printed. */
class Follower {
  readonly #process: Deno.ChildProcess;
  out = "";
  err = "";

  constructor(...args: readonly string[]) {
    this.#process = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-check", "-A", CLI, ...args],
      env: { NO_COLOR: "1" },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    void this.#read(this.#process.stdout, (text) => void (this.out += text));
    void this.#read(this.#process.stderr, (text) => void (this.err += text));
  }

  async #read(stream: ReadableStream<Uint8Array>, add: (text: string) => void): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) add(decoder.decode(chunk, { stream: true }));
  }

  async end(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.status;
  }
}

Deno.test("logs -f goes on over a daemon's restart without losing or repeating a decision", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const log = new DecisionLog();
    const serve = async (): Promise<() => Promise<void>> => {
      const records = new DecisionRecords(log, new HistoryLookup(`${directory}/none`), () => 0);
      const served = { ...services(healthy(), { calls: [] }), decisions: records };
      const server = await serveHost(path, served);
      return async () => {
        records.stop();
        await server.close();
      };
    };
    let stop = await serve();
    log.record(blockedName("before.test"));
    const follower = new Follower("--socket", path, "logs", "-f", "--limit", "5");
    try {
      await eventually(() => follower.out.includes("before.test"));
      const made = log.record(blockedName("live.test"));
      await eventually(() => follower.out.includes("live.test"));
      await stop();
      await eventually(() => follower.err.includes("waiting for it to come back"));
      log.record(blockedName("meanwhile.test"));
      log.update(made, { count: 3 });
      stop = await serve();
      await eventually(() => follower.err.includes("outcalld is back"));
      await eventually(() => follower.out.includes("3 times"));
      const hosts = follower.out.trimEnd().split("\n").map((line) =>
        /\S+ (\S+) .*? (\S+\.test)/.exec(line)?.slice(1).join(" ")
      );
      deepEqual(hosts, [
        "block before.test",
        "block live.test",
        "block meanwhile.test",
        "... live.test",
      ]);
    } finally {
      await follower.end();
      await stop();
    }
  }));

Deno.test("logs -f ends when nobody reads it any more", () =>
  withHostApi(async ({ path, answers }) => {
    answers.events = Array.from({ length: 2_000 }, (_, i) => ({
      kind: "decision",
      change: "new",
      decision: DECISION,
      sequence: i,
    }));
    const command = `${Deno.execPath()} run -A --no-check ${CLI} --socket ${path} logs -f`;
    const { code, stdout } = await new Deno.Command("sh", {
      args: ["-c", `${command} | head -n 3`],
    }).output();
    equal(code, 0);
    equal(new TextDecoder().decode(stdout).split("\n").length, 4);
  }));
