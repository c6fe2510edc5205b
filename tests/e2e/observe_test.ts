/**
 * Observation on real traffic: what no rule allows passes for one agent and a time, at every layer; what
 * rules block does not; what was seen becomes rules that hold without it.
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { recordedDecisions } from "../lab/decisions.ts";
import { Lab } from "../lab/lab.ts";
import type { Finished } from "../lab/process.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "setpriv", "setsid", "curl", "dig", "python3"];

const RULES = `version: "1"
rules:
  - id: no-example
    action: block
    condition: 'http.host == "example.com"'
`;

const CURL = "curl -s -o /dev/null -m 5 -w '%{http_code}\\n'";

/** Every layer: DNS by UDP and TCP, HTTPS, plain HTTP; and a host that a rule blocks. */
const WORK = [
  "dig +short +time=2 +tries=1 api.openai.com | grep -c '^[0-9]'",
  "dig +short +tcp +time=2 +tries=1 api.openai.com | grep -c '^[0-9]'",
  `${CURL} https://api.openai.com/v1/models`,
  `${CURL} http://github.com/a`,
  "dig +short +time=2 +tries=1 example.com | grep -c '^[0-9]'",
  `${CURL.replace("http_code", "http_connect")} https://example.com/`,
].join("; ");

/** Holds a tunnel open, and says when it was cut. */
const TUNNEL = `
import os, socket, ssl, urllib.parse
proxy = urllib.parse.urlparse(os.environ["https_proxy"])
conn = socket.create_connection((proxy.hostname, proxy.port))
conn.sendall(b"CONNECT github.com:443 HTTP/1.1\\r\\nHost: github.com:443\\r\\n\\r\\n")
conn.recv(4096)
tls = ssl.create_default_context().wrap_socket(conn, server_hostname="github.com")
print("up", flush=True)
try:
    tls.recv(1)
except OSError:
    pass
print("cut", flush=True)
`;

labTest("an observed run, from --observe to rules that hold", { tools: TOOLS }, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const { host } = lab;
  await host.trust(lab.internet.rootPem);
  let daemon = await lab.startDaemon({ rules: { "a.yaml": RULES } });
  const run = (...args: readonly string[]): Promise<Finished> =>
    host.run(["outcall", "run", ...args]);
  const work = async (...args: readonly string[]): Promise<string[]> =>
    (await run(...args, "--", "sh", "-c", WORK)).stdout.trim().split("\n");

  await t.step(
    "what no rule allows passes, at every layer; what a rule blocks does not",
    async () => {
      const [udp, tcp, https, http, blockedName, ...blockedHost] = await work(
        ...["--name", "a", "--observe", "5m"],
      );
      assert.ok(Number(udp) > 0 && Number(tcp) > 0);
      assert.deepEqual([https, blockedName], ["401", "0"]);
      assert.match(http ?? "", /^(200|301|404)$/);
      assert.deepEqual(blockedHost, ["403"]);
      const records = await recordedDecisions(lab);
      const seen = records.filter(({ attempt }) => attempt.host !== "example.com");
      assert.deepEqual(
        [...new Set(seen.map(({ verdict, reason, rule }) => `${verdict} ${reason} ${rule}`))],
        ["allow observed null"],
      );
      assert.deepEqual(
        [...new Set(seen.map(({ layer }) => layer))].sort(),
        ["dns", "http", "sni"],
      );
      const blocked = records.filter(({ attempt }) => attempt.host === "example.com");
      assert.deepEqual([...new Set(blocked.map(({ rule }) => rule?.id))], ["no-example"]);
    },
  );

  await t.step("it ends with its agent, and holds for no other of the same name", async () => {
    await eventually(async () =>
      (await lab.cli("observe", "list")).stdout === "No agent is observed.\n"
    );
    const [udp, tcp, https, http] = await work("--name", "a");
    assert.deepEqual([udp, tcp, https, http], ["0", "0", "000", "403"]);
  });

  await t.step("suggest writes rules that allow the same run without it", async () => {
    const { stdout, stderr, code } = await lab.cli("suggest", "--agent", "a", "--since", "1h");
    assert.equal(code, 0, stderr);
    assert.match(stdout, /http\.host == "api\.openai\.com"/);
    assert.ok(!stdout.includes("example.com"));
    await lab.writeRules({ "a.yaml": RULES, "suggested.yaml": stdout });
    const reloaded = await lab.cli("rules", "reload");
    assert.equal(reloaded.code, 0, reloaded.stderr);
    const [udp, tcp, https, http, blockedName, ...blockedHost] = await work("--name", "a");
    assert.ok(Number(udp) > 0 && Number(tcp) > 0);
    assert.equal(https, "401");
    assert.match(http ?? "", /^(200|301|404)$/);
    assert.deepEqual([blockedName, ...blockedHost], ["0", "403"]);
    assert.deepEqual((await work("--name", "b")).slice(0, 4), ["0", "0", "000", "403"]);
  });

  await t.step(
    "while it lasts it is listed and told; an end cuts what only it let out",
    async () => {
      const process = host.spawn([
        ...["bash", "-c", 'echo $$; exec outcall run --name c --observe -- bash -c "$0"'],
        `while :; do ${CURL} http://github.com/b; sleep 0.1; done`,
      ]);
      const pid = Number(await process.line("stdout", () => true));
      await process.line("stdout", (line) => line !== "403" && /^[1-9]/.test(line), 1);
      assert.match((await lab.cli("observe", "list")).stdout, /^c +20\S+ +3[0-9]{3} s/m);
      const { body } = await lab.api("GET", "/api/v1/health");
      const { parts } = Object(body);
      const part = parts.find(({ name }: { name: string }) => name === "observation");
      assert.equal(part?.state, "degraded");
      assert.match(part?.detail, /what no rule blocks is let out for c \(3[0-9]{3} s left\)/);
      assert.equal((await lab.cli("observe", "end", "c")).code, 0);
      await process.line("stdout", (line) => line === "403", process.stdout.length);
      assert.equal((await lab.cli("observe", "end", "c")).code, 1);
      await host.kill(pid, "KILL");
      await process.ended;
    },
  );

  await t.step("the end cuts the tunnels that it let out", async () => {
    const process = host.spawn(
      ["outcall", "run", "--name", "e", "--observe", "--", "/usr/bin/python3", "-c", TUNNEL],
    );
    await process.line("stdout", (line) => line === "up");
    assert.equal((await lab.cli("observe", "end", "e")).code, 0);
    await process.line("stdout", (line) => line === "cut");
    await process.ended;
  });

  await t.step("no restart of the daemon keeps it", async () => {
    const process = host.spawn([
      ...["bash", "-c", 'echo $$; exec outcall run --name d --observe -- bash -c "$0"'],
      `while :; do ${CURL} http://github.com/d; sleep 0.1; done`,
    ]);
    const pid = Number(await process.line("stdout", () => true));
    await process.line("stdout", (line) => line !== "403" && /^[1-9]/.test(line), 1);
    await daemon.kill();
    daemon = await lab.startDaemon();
    await process.line("stdout", (line) => line === "403", process.stdout.length);
    assert.equal((await lab.cli("observe", "list")).stdout, "No agent is observed.\n");
    await host.kill(pid, "KILL");
    await process.ended;
  });
});
