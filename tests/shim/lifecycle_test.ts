/** The shim as a process of its own, before a daemon that answers, hangs, or goes. */
import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { eventually } from "../eventually.ts";

const TOKEN = `tok-${"0".repeat(32)}`;
const CONTAINER = "a".repeat(64);
const CHECKED_IN = { ok: true, session_token: TOKEN, container_id: CONTAINER };
const ALLOWED = { ok: true, allowed: true, decision: "d", matched_rule: null, reason: null };

/** What becomes of a request: an answer, silence, or the end of the connection. */
type Reaction = object | "silence" | "end";

interface World {
  readonly folder: string;
  /** Requests so far, by their first lines. */
  readonly asked: readonly string[];
  /** The same, whole. */
  readonly received: readonly string[];
  /** Takes the daemon away: its connections, and its socket. */
  readonly goAway: () => void;
  start(args: readonly string[], env?: Record<string, string>): Deno.ChildProcess;
}

/** A daemon that checks everybody in, unless told otherwise, and reacts to the rest. */
async function withDaemon(
  react: (line: string) => Reaction | Promise<Reaction>,
  test: (world: World) => Promise<void>,
  checkIn: Reaction = CHECKED_IN,
): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "outcall-shim-" });
  const path = `${folder}/agent.sock`;
  const listener = Deno.listen({ transport: "unix", path });
  const connections = new Set<Deno.Conn>();
  const asked: string[] = [];
  const received: string[] = [];
  const serve = async (conn: Deno.Conn): Promise<void> => {
    connections.add(conn);
    const buffer = new Uint8Array(65_536);
    for (;;) {
      const count = await conn.read(buffer).catch(() => null);
      if (count === null) break;
      const request = new TextDecoder().decode(buffer.subarray(0, count));
      const line = request.split("\r\n")[0] ?? "";
      asked.push(line);
      received.push(request);
      const reaction = line.includes("/v1/checkin") ? checkIn : await react(line);
      if (reaction === "end") break;
      if (reaction === "silence") continue;
      const body = JSON.stringify(reaction);
      const status = "error" in reaction ? "403 Forbidden" : "200 OK";
      const head = `HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\n\r\n`;
      await conn.write(new TextEncoder().encode(head + body)).catch(() => {});
    }
    close(conn);
  };
  const close = (conn: Deno.Conn): void => {
    if (connections.delete(conn)) conn.close();
  };
  let isListening = true;
  const goAway = (): void => {
    if (isListening) listener.close();
    isListening = false;
    for (const conn of connections) close(conn);
  };
  const accepting = (async (): Promise<void> => {
    for await (const conn of listener) void serve(conn);
  })();
  const start = (args: readonly string[], env: Record<string, string> = {}): Deno.ChildProcess =>
    new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "-qA", "--no-config", "--no-remote", "--no-npm"],
        ...[new URL("../bench/shim_at.ts", import.meta.url).pathname, path, ...args],
      ],
      env,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  try {
    await test({ folder, asked, received, goAway, start });
  } finally {
    goAway();
    await accepting;
    Deno.removeSync(folder, { recursive: true });
  }
}

async function ended(
  child: Deno.ChildProcess,
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

const isVerdict = (line: string): boolean => line.includes("/v1/permissions/check");

Deno.test("a timeout that is none is refused before anything is asked (S005-EC-004, S005-FR-014)", () =>
  withDaemon(() => ALLOWED, async ({ start, asked, folder }) => {
    for (const seconds of ["0", "301", "1.5", "ten", "", "-1"]) {
      const args = ["exec", "touch", `${folder}/ran`];
      const { code, stderr } = await ended(start(args, { OUTCALL_TIMEOUT_SECS: seconds }));
      equal(code, 5, seconds);
      match(stderr, /OUTCALL_TIMEOUT_SECS must be a whole number from 1 to 300/);
    }
    deepEqual(asked, []);
  }));

Deno.test("no verdict in time, or a connection that ends: nothing runs, exit 5 (S005-EC-003, S005-AS-008, S004-EC-002, S004-AS-005)", async () => {
  for (const reaction of ["silence", "end"] as const) {
    await withDaemon(() => reaction, async ({ start, folder }) => {
      const args = ["exec", "touch", `${folder}/ran`];
      const { code, stderr } = await ended(start(args, { OUTCALL_TIMEOUT_SECS: "1" }));
      equal(code, 5);
      match(stderr, /no verdict from outcalld: exiting \(fail closed\)/);
      await rejects(Deno.stat(`${folder}/ran`), Deno.errors.NotFound);
    });
  }
});

Deno.test("who is refused at the door asks nothing and runs nothing, exit 5 (S005-EC-007, S005-FR-004)", () =>
  withDaemon(
    () => ALLOWED,
    async ({ start, asked, folder }) => {
      const { code, stderr } = await ended(start(["exec", "touch", `${folder}/ran`]));
      equal(code, 5);
      match(stderr, /^error: you are not an agent\n/);
      deepEqual(asked, ["POST /v1/checkin HTTP/1.1"]);
      await rejects(Deno.stat(`${folder}/ran`), Deno.errors.NotFound);
    },
    { ok: false, error: "you are not an agent", code: "peer.forbidden" },
  ));

Deno.test("a session that is not accepted is no verdict: nothing runs, exit 5 (S005-FR-004)", () =>
  withDaemon(
    () => ({ ok: false, error: "no", code: "session.invalid" }),
    async ({ start, folder }) => {
      equal((await ended(start(["exec", "touch", `${folder}/ran`]))).code, 5);
      await rejects(Deno.stat(`${folder}/ran`), Deno.errors.NotFound);
    },
  ));

Deno.test("a denial says why and by which rule on stderr, and nothing runs: exit 1 (S005-FR-009, S005-FR-022, S005-AS-004)", () => {
  const denied = { ok: true, allowed: false, decision: "d1", matched_rule: "rule-0", reason: "no" };
  return withDaemon(() => denied, async ({ start, folder }) => {
    deepEqual(await ended(start(["exec", "touch", `${folder}/ran`])), {
      code: 1,
      stdout: "",
      stderr: "denied: no (d1, rule rule-0)\n",
    });
    await rejects(Deno.stat(`${folder}/ran`), Deno.errors.NotFound);
  });
});

Deno.test("it checks in, claims nothing, asks, and logs to stderr alone (S005-FR-003, S005-FR-007, S005-FR-017, S005-FR-018, S005-FR-021)", () =>
  withDaemon(() => ALLOWED, async ({ start, received }) => {
    const { code, stdout, stderr } = await ended(
      start(["exec", "echo", "a b"], { OUTCALL_LOG: "debug" }),
    );
    deepEqual({ code, stdout, stderr }, {
      code: 0,
      stdout: "a b\n",
      stderr: `component=shim registered with outcalld as ${CONTAINER}\n`,
    });
    const [checkIn = "", check = "", ...more] = received;
    deepEqual(more, []);
    deepEqual(checkIn.split("\r\n"), [
      "POST /v1/checkin HTTP/1.1",
      "Host: localhost",
      "Content-Type: application/json",
      "Content-Length: 2",
      "",
      "{}",
    ]);
    ok(check.includes(`\r\nAuthorization: Bearer ${TOKEN}\r\n`));
    deepEqual(JSON.parse(check.split("\r\n\r\n")[1] ?? ""), {
      action_type: "tool_exec",
      target: "echo",
      metadata: { args: "a b", args_json: '["a b"]' },
    });
  }));

Deno.test("a SIGTERM while the verdict is awaited starts nothing, even if it is a yes (S005-EC-012, S005-AS-009, S005-FR-020)", async () => {
  const verdict = Promise.withResolvers<Reaction>();
  await withDaemon(
    () => verdict.promise,
    async ({ start, asked, folder }) => {
      const child = start(["exec", "touch", `${folder}/ran`], { OUTCALL_LOG: "debug" });
      await eventually(() => asked.some(isVerdict));
      child.kill("SIGTERM");
      let said = "";
      for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
        said += text;
        if (said.includes("SIGTERM")) verdict.resolve(ALLOWED);
      }
      equal((await child.status).code, 143);
      await child.stdout.cancel();
      await rejects(Deno.stat(`${folder}/ran`), Deno.errors.NotFound);
    },
  );
});

Deno.test("a SIGTERM while the program runs is the program's, which may finish (S005-FR-020, S005-AS-009)", () =>
  withDaemon(() => ALLOWED, async ({ start, folder }) => {
    const script =
      `trap "echo finished; exit 3" TERM; touch ${folder}/runs; while :; do sleep 0.05; done`;
    const child = start(["exec", "sh", "-c", script]);
    await eventually(() => Deno.stat(`${folder}/runs`).then(() => true, () => false));
    child.kill("SIGTERM");
    const { code, stdout } = await ended(child);
    deepEqual([code, stdout], [3, "finished\n"]);
  }));

Deno.test("a daemon that is lost takes the program with it: killed, reaped, exit 5 (S005-AS-007, S005-EC-002, S005-SC-004, S005-FR-012)", () =>
  withDaemon(() => ALLOWED, async ({ start, goAway, folder }) => {
    const script = `echo $$ > ${folder}/pid; trap "" TERM; exec sleep 600`;
    const child = start(["exec", "sh", "-c", script]);
    const pid = (): Promise<string> => Deno.readTextFile(`${folder}/pid`).catch(() => "");
    await eventually(async () => /^\d+\n$/.test(await pid()));
    goAway();
    const { code, stderr } = await ended(child);
    equal(code, 5);
    match(stderr, /no verdict from outcalld/);
    await rejects(Deno.stat(`/proc/${(await pid()).trim()}`), Deno.errors.NotFound);
  }));

Deno.test("a program's own streams and exit code are passed on, and nothing is added (S005-FR-008, S005-FR-016, S005-EC-011)", () =>
  withDaemon(() => ALLOWED, async ({ start }) => {
    const echo = 'printf "%s|" "$@"; echo err >&2; exit 9';
    const { code, stdout, stderr } = await ended(
      start(["exec", "sh", "-c", echo, "x", "a b", "$HOME", "", "--help"]),
    );
    deepEqual({ code, stdout, stderr }, { code: 9, stdout: "a b|$HOME||--help|", stderr: "err\n" });
    const missing = await ended(start(["exec", "/nonexistent/program"]));
    equal(missing.code, 1);
    match(missing.stderr, /cannot run \/nonexistent\/program/);
  }));

Deno.test("several at once each check in and get their own verdict (S005-EC-006)", () =>
  withDaemon(() => ALLOWED, async ({ start, asked }) => {
    const ran = await Promise.all(
      Array.from({ length: 6 }, (_, i) => ended(start(["exec", "echo", `${i}`]))),
    );
    deepEqual(ran.map(({ stdout }) => stdout), ["0\n", "1\n", "2\n", "3\n", "4\n", "5\n"]);
    equal(asked.filter((line) => line.includes("/v1/checkin")).length, 6);
    equal(asked.filter(isVerdict).length, 6);
  }));

Deno.test("probes ask and do nothing else (S005-FR-010, S005-EC-010, S005-AS-005, S005-AS-006)", () =>
  withDaemon(() => ALLOWED, async ({ start, folder }) => {
    for (
      const args of [
        ["write", `${folder}/written`],
        ["fetch", `http://127.0.0.1:1/`],
        ["check", "tool", "touch", `${folder}/written`],
        ["check", "shell", "touch", `${folder}/written`],
      ]
    ) equal((await ended(start(args))).code, 0, args.join(" "));
    await rejects(Deno.stat(`${folder}/written`), Deno.errors.NotFound);
  }));

Deno.test("help and version need no daemon (S005-FR-002)", () =>
  withDaemon(() => "end", async ({ start, goAway }) => {
    goAway();
    for (const args of [["--help"], ["--version"], ["help", "agents"]]) {
      equal((await ended(start(args))).code, 0);
    }
  }));
