import { equal, rejects } from "node:assert/strict";
import { actionOf } from "../../lib/shim/actions.ts";
import { AgentClient, Unreachable } from "../../lib/shim/client.ts";
import { main } from "../../lib/shim/main.ts";
import { proposeRules } from "../../lib/shim/propose.ts";
import { checkProposal } from "../../lib/agent/candidate.ts";
import { deepEqual } from "node:assert/strict";

const TOKEN = `tok-${"0".repeat(32)}`;

/** A daemon that answers its first request with a check-in, and the next ones with `answer`. */
async function withDaemon(
  answer: string | null,
  test: (path: string) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "outcall-shim-" });
  const path = `${directory}/agent.sock`;
  const listener = Deno.listen({ transport: "unix", path });
  const connections: Deno.Conn[] = [];
  const serving = (async (): Promise<void> => {
    for await (const conn of listener) {
      connections.push(conn);
      const buffer = new Uint8Array(65_536);
      const checkIn = JSON.stringify({ ok: true, session_token: TOKEN, container_id: null });
      for (const body of [checkIn, answer]) {
        if (await conn.read(buffer) === null) break;
        if (body === null) continue;
        const head = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`;
        await conn.write(new TextEncoder().encode(head + body));
      }
    }
  })();
  try {
    await test(path);
  } finally {
    listener.close();
    await serving;
    for (const conn of connections) conn.close();
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("nothing but a whole verdict lets a program run (S005-FR-011)", async () => {
  const evidence = `${Deno.makeTempDirSync({ prefix: "outcall-shim-" })}/ran`;
  for (
    const answer of [
      "{}",
      "[]",
      "true",
      '{"ok":true}',
      '{"ok":true,"allowed":"true","decision":"x"}',
      '{"ok":true,"allowed":1,"decision":"x"}',
      '{"ok":false,"allowed":true,"decision":"x","error":"no"}',
      '{"allowed":true,"decision":"x"}',
      "not JSON",
    ]
  ) {
    await withDaemon(answer, async (path) => {
      equal(await main(["exec", "touch", evidence], path), 5, answer);
    });
    await rejects(Deno.stat(evidence), Deno.errors.NotFound);
  }
  await withDaemon('{"ok":true,"allowed":true,"decision":"x"}', async (path) => {
    equal(await main(["exec", "touch", evidence], path), 0);
  });
  Deno.removeSync(evidence);
  Deno.removeSync(evidence.slice(0, -4));
});

Deno.test("a daemon that accepts and never answers is unreachable after the timeout (S005-AS-008)", () =>
  withDaemon(null, async (path) => {
    const client = await AgentClient.connect(path, 100);
    await client.checkIn();
    await rejects(client.ask("POST", "/v1/permissions/check", {}), Unreachable);
    client.close();
  }));

Deno.test("no socket, or nobody behind it, is exit 5 (S005-EC-001, S005-EC-008)", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "outcall-shim-" });
  try {
    equal(await main(["exec", "true"], `${directory}/agent.sock`), 5);
    Deno.writeTextFileSync(`${directory}/agent.sock`, "");
    equal(await main(["exec", "true"], `${directory}/agent.sock`), 5);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("what cannot be read or meant is wrong usage, before the daemon is asked (exit 2)", async () => {
  for (
    const args of [
      ["request", "--file", "/nonexistent/rules.yaml"],
      ["request", "--file", "/"],
      ["request"],
      ["request", "https://a.example", "--file", "/etc/hostname"],
      ["request", "https://a.example", "--for", "soon"],
      ["status"],
      ["exec"],
      [],
    ]
  ) equal(await main(args, "/nonexistent/agent.sock"), 2, args.join(" "));
});

Deno.test("the words of a command line keep their meaning and their exact form", () => {
  deepEqual(actionOf(["git", "status", "--help"]), {
    action_type: "tool_exec",
    target: "git",
    metadata: { args: "status --help", args_json: '["status","--help"]' },
    run: ["git", "status", "--help"],
  });
  equal(actionOf(["sh", "make", "test"])?.action_type, "shell_exec");
  deepEqual(actionOf(["sh", "make", "test"])?.run, ["make", "test"]);
  equal(actionOf(["exec", "fetch", "x"])?.action_type, "tool_exec");
  equal(actionOf(["fetch", "https://x.example"])?.run, null);
  deepEqual(actionOf(["curl", "https://x.example"])?.run, ["curl", "https://x.example"]);
  deepEqual(actionOf(["write", "/a"])?.metadata, { mode: "write" });
  for (const args of [[], ["exec"], ["sh"], ["fetch"], ["read"], ["read", "a", "b"], ["check"]]) {
    equal(actionOf(args), null, args.join(" "));
  }
});

Deno.test("a proposal is valid, about one host and one agent, and the same each time", async () => {
  for (
    const [agent, url, host] of [
      ["worker", "https://API.example.com/v1?x", "api.example.com"],
      ["it's", "http://example.org:8080/a'b\"c", "example.org"],
      ["", "https://bücher.example/", "xn--bcher-kva.example"],
    ] as const
  ) {
    const [first, second] = [
      await proposeRules(agent, url, "GET"),
      await proposeRules(agent, url, "GET"),
    ];
    deepEqual(first, second);
    if (!first.ok) throw new Error(first.message);
    const { rules } = checkProposal("request.yaml", first.ruleFile);
    deepEqual(rules.map(({ hosts }) => hosts), [[host]]);
  }
  const conditions: string[] = [];
  for (
    const [url, method] of [
      ["http://a.example", null],
      ["http://a.example", "POST"],
      ["http://a.example/", null],
      ["http://a.example/x?y", "PUT"],
      ["https://a.example/x", "PUT"],
    ] as const
  ) {
    const proposed = await proposeRules("w", url, method);
    if (!proposed.ok) throw new Error(proposed.message);
    const [rule] = checkProposal("request.yaml", proposed.ruleFile).rules;
    conditions.push(rule?.condition.split(" && ").slice(2).join(" && ") ?? "");
  }
  deepEqual(conditions, [
    "network.port == 80",
    'network.port == 80 && http.method == "POST"',
    'network.port == 80 && http.method == "GET" && http.path == "/"',
    'network.port == 80 && http.method == "PUT" && http.path == "/x"',
    "network.port == 443",
  ]);
  equal((await proposeRules("a", "https://u:p@x.example/", "GET")).ok, false);
  equal((await proposeRules("a", "ftp://x.example/", "GET")).ok, false);
});
