/**
 * One attempt, one id: in what the client gets, the log, the stream, the history and `explain`; and
 * nothing secret in any of them.
 */
import assert from "node:assert/strict";
import { z } from "zod";
import { decisionSchema } from "../../lib/record/schema.ts";
import { Lab } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";
import { nothing } from "../lab/witness.ts";

const TOOLS = [
  ...["nft", "ip", "iptables", "unshare", "nsenter", "dockerd", "docker", "curl", "python3"],
];
const IMAGE = "lab/agent:1";

const RULES = `version: "1"
rules:
  - id: allow-openai
    condition: 'http.host == "api.openai.com"'
    action: allow
`;

/** In every secret that the test plants. */
const SECRET = "s3cr3t0f";

const reply = z.object({ decisions: z.array(decisionSchema) });
const checkedIn = z.object({ session_token: z.string() });

labTest("a blocked attempt is one record everywhere, without secrets (D28)", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: true });
  const { engine, host, witness } = lab;
  assert.ok(engine !== null);
  await engine.importClients(IMAGE, lab.internet.rootPem);
  let daemon = await lab.startDaemon({ rules: { "a.yaml": RULES } });
  const made = await lab.cli(
    ...["container", "create", "--image", IMAGE, "--name", "worker"],
    ...["--env", `API_KEY=${SECRET}-env`, "--", "sleep", "1000"],
  );
  assert.equal(made.code, 0, made.stderr);
  const inside = async (...argv: readonly string[]): Promise<string> =>
    (await engine.docker(["exec", "worker", ...argv])).stdout;
  const follower = host.spawn(["outcall", "logs", "--follow", "--json", "--limit", "1"]);
  await follower.line("stdout", () => true);
  const streamed = (id: string): Promise<string> =>
    follower.line("stdout", (line) => line.includes(id));

  let id = "";
  await t.step("the client gets the id of the record with the refusal", async () => {
    const mark = await witness.mark();
    const answer = await inside(
      ...["curl", "-s", "-D", "-", "-H", `Authorization: Bearer ${SECRET}-header`],
      ...["-H", `Cookie: k=${SECRET}-cookie`, "--data", `${SECRET}-body`],
      `http://user:${SECRET}-password@example.com/files/report.pdf?key=${SECRET}-query#${SECRET}`,
    );
    assert.match(answer, /^HTTP\/1\.1 403 /);
    id = /^x-outcall-decision: (\w+)\r$/im.exec(answer)?.[1] ?? "";
    assert.match(id, /^\w{17}$/);
    assert.match(answer, new RegExp(`\r\n\r\n[^]*${id}`));
    assert.ok(nothing(await witness.since(mark, { name: "example.com" })));
  });

  await t.step("the log has one line about it", async () => {
    const line = await daemon.process.line("stderr", (line) => line.includes(id));
    const { level, target, message } = JSON.parse(line);
    assert.deepEqual([level, target], ["info", "proxy"]);
    assert.match(message, /^block http POST example\.com:80 \/files\/report\.pdf source=/);
    assert.equal(daemon.log.filter((line) => line.includes(id)).length, 1);
  });

  await t.step("the stream has it, with all its fields", async () => {
    const { agent, attempt, verdict, reason } = decisionSchema.parse(
      JSON.parse(await streamed(id)),
    );
    assert.deepEqual([agent?.name, agent?.network, verdict, reason], [
      "worker",
      "outcall-default",
      "block",
      "default",
    ]);
    assert.match(agent?.containerId ?? "", /^[0-9a-f]{64}$/);
    assert.deepEqual(attempt, {
      host: "example.com",
      port: 80,
      method: "POST",
      path: "/files/report.pdf",
    });
  });

  await t.step(
    "other secrets are planted: in TLS, DNS, the agent API, a tool's arguments",
    async () => {
      await inside("curl", "-s", `https://example.com/?key=${SECRET}-tls`);
      await inside(
        ...["curl", "-s", "-H", `X-Key: ${SECRET}-allowed`],
        `https://api.openai.com/v1/models?key=${SECRET}-allowed`,
      );
      const agentApi = ["curl", "-s", "--unix-socket", "/run/outcall/agent.sock", "-X", "POST"];
      const token = checkedIn.parse(JSON.parse(await inside(...agentApi, "http://x/v1/checkin")));
      const ask = (body: object): Promise<string> =>
        inside(
          ...agentApi,
          ...["-H", `Authorization: Bearer ${token.session_token}`],
          ...["-H", "Content-Type: application/json", "-d", JSON.stringify(body)],
          "http://x/v1/permissions/check",
        );
      assert.match(
        await ask({
          action_type: "tool_exec",
          target: "deploy",
          metadata: { args: `--password ${SECRET}-argument`, env: `${SECRET}-metadata` },
        }),
        /"allowed":false/,
      );
      assert.match(
        await ask({
          action_type: "network_call",
          target: `https://example.com/?key=${SECRET}-asked`,
        }),
        /"allowed":false/,
      );
      assert.match(
        await ask({ action_type: "shell_exec", target: `mysql --password=${SECRET}-shell` }),
        /"allowed":false/,
      );
      const answer = await ask({ action_type: "tool_exec", target: "last" });
      const last = /"decision":"(\w+)"/.exec(answer)?.[1] ?? "";
      assert.match(last, /^\w{17}$/, answer);
      await streamed(last);
    },
  );

  await t.step("after kill -9 the history has it, and explain explains it", async () => {
    // Longer than what kill -9 may cost.
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await daemon.kill();
    daemon = await lab.startDaemon();
    const { body } = await lab.api("GET", "/api/v1/decisions?host=example.com&layer=http");
    assert.deepEqual(reply.parse(body).decisions.map((decision) => decision.id), [id]);
    const { stdout, code } = await lab.cli("explain", id);
    assert.equal(code, 0);
    assert.ok(stdout.includes(id));
    const logs = await lab.cli("logs", "--host", ".example.com", "--layer", "http");
    assert.match(logs.stdout, new RegExp(`block http .* ${id}\n$`));
    assert.match((await lab.cli("logs", "stats")).stdout, /\nexample\.com +[1-9]/);
  });

  await t.step("the stream goes on after the daemon's restart", async () => {
    await follower.line("stderr", (line) => line.includes("outcalld is back"));
    await inside("curl", "-s", "http://after-restart.test/");
    await streamed("after-restart.test");
    assert.equal(follower.stdout.filter((line) => line.includes(id)).length, 1);
  });

  await t.step("no secret is in the database, the stream or the log", async () => {
    const state = "/var/lib/outcall";
    const holding = (text: string): Promise<{ readonly code: number }> =>
      host.run(["grep", "-rqaF", text, state]);
    assert.equal((await holding(id)).code, 0);
    assert.equal((await holding(SECRET)).code, 1);
    for (const lines of [follower.stdout, daemon.log]) {
      assert.ok(lines.length > 0);
      assert.ok(!lines.some((line) => line.includes(SECRET)));
    }
  });
});
