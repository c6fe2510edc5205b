/**
 * The agent's side with real containers: who is asked for, what a verdict lets run, and the way from
 * a refusal over the operator's answer to the end of the access.
 */
import assert from "node:assert/strict";
import { recordedDecisions } from "../lab/decisions.ts";
import { importImage } from "../lab/dockerd.ts";
import { CLIENTS } from "../lab/engine.ts";
import { Lab } from "../lab/lab.ts";
import type { Finished } from "../lab/process.ts";
import { labTest } from "../lab/requirements.ts";
import { SHIM_MOUNTS, SHIM_PARTS, SHIM_SCRIPT, shimScript } from "../lab/shim.ts";

const TOOLS = [
  ...["nft", "ip", "iptables", "unshare", "nsenter", "dockerd", "docker"],
  ...["curl", "dig", "nc", "ping", "python3"],
];

const RULES = `version: "1"
rules:
  - id: openai
    condition: http.host == "api.openai.com"
    action: allow
  - id: harmless-tools
    condition: run.tool in ["true", "sh", "sleep", "id"]
    action: allow
  - id: workspace
    condition: run.tool == "file" && run.args[0].startsWith("/workspace/")
    action: allow
`;

const CURL = ["curl", "-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code} %{http_connect}"];
const AGENT_SOCKET = ["curl", "-sS", "--unix-socket", "/run/outcall/agent.sock"];

labTest("an agent asks, is refused, proposes, and gets what the operator grants", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: true });
  const { engine, host } = lab;
  assert.ok(engine !== null);
  const programs = [...CLIENTS, Deno.execPath(), "sh", "true", "touch"];
  await importImage(host.path("/run/docker.sock"), "python:3.12", programs, {
    "etc/ssl/certs/ca-certificates.crt": lab.internet.rootPem,
  });
  await host.write("/usr/local/bin/outcall-agent.lab", SHIM_SCRIPT, 0o755);
  // Whose runtime is mounted, since a hardened container's /tmp hides what the image has there.
  await host.write("/usr/local/bin/outcall-agent.packed", shimScript("/opt/deno"), 0o755);
  const flags = ["--shim-host-path", "/usr/local/bin/outcall-agent.packed"];
  let daemon = await lab.startDaemon({ rules: { "agent.yaml": RULES }, flags });
  await lab.cli("network", "create", "--name", "agent-net");

  const start = async (name: string, ...options: readonly string[]): Promise<void> => {
    await engine.must([
      ...["run", "-d", "--rm", "--name", name, "--network", "outcall-agent-net"],
      ...["--dns", "10.200.0.1", "-e", "https_proxy=http://10.200.0.1:8080"],
      ...SHIM_MOUNTS,
      ...options,
      ...["python:3.12", "sleep", "600"],
    ]);
  };
  const inside = (name: string, ...argv: readonly string[]): Promise<Finished> =>
    engine.docker(["exec", name, ...argv]);
  const shim = (...args: readonly string[]): Promise<Finished> =>
    inside("worker-1", "outcall-agent", ...args);
  await start("worker-1");
  await start("other");

  await t.step(
    "whoami: the kernel and Docker say who it is (S013-AS-001, S004-AS-001, S004-SC-001)",
    async () => {
      const { code, stdout, stderr } = await shim("whoami");
      assert.equal(code, 0, stderr);
      const answer: { name: string; address: string; container_id: string } = JSON.parse(stdout);
      assert.deepEqual([answer.name, answer.address], ["worker", "10.200.0.2"]);
      assert.match(answer.container_id, /^[0-9a-f]{64}$/);
    },
  );

  await t.step(
    "check: exit 0 for what will work, 1 for what will not (D31, S004-AS-002, S004-AS-003, S004-SC-002)",
    async () => {
      assert.equal((await shim("check", "network", "https://api.openai.com/v1")).code, 0);
      const refused = await shim("check", "network", "https://example.com");
      assert.equal(refused.code, 1);
      assert.match(
        refused.stderr,
        /^denied: no rule allows network_call to https:\/\/example\.com \(.*\nhint: outcall-agent request/,
      );
      assert.equal((await shim("check", "file", "/workspace/a")).code, 0);
      assert.equal((await shim("check", "file", "/etc/shadow")).code, 1);
      assert.equal((await shim("read", "/workspace/a")).code, 0);
      assert.equal((await shim("write", "/etc/shadow")).code, 1);
      assert.equal((await shim("fetch", "https://example.com")).code, 1);
    },
  );

  await t.step(
    "exec: exactly the argument vector, its exit code, and nothing when denied (S005-AS-001, S005-AS-003, S005-AS-004)",
    async () => {
      assert.equal((await shim("exec", "true")).code, 0);
      assert.equal((await shim("id", "-u")).stdout, "0\n");
      const ran = await shim("exec", "sh", "-c", 'printf "%s|" "$@"; exit 7', "x", "a b", "*", "");
      assert.deepEqual([ran.code, ran.stdout], [7, "a b|*||"]);
      const denied = await shim("touch", "/tmp/evidence");
      assert.deepEqual([denied.code, denied.stdout], [1, ""]);
      assert.notEqual((await inside("worker-1", "ls", "/tmp/evidence")).code, 0);
    },
  );

  await t.step("only the first argument can be the shim's own flag", async () => {
    assert.match((await shim("--version")).stdout, /^outcall-agent /);
    assert.equal((await shim("git", "--version")).code, 1);
  });

  await t.step(
    "verdicts are recorded with the agent's name and a tool, never arguments",
    async () => {
      const records = (await recordedDecisions(lab)).filter(({ layer }) => layer === "agent");
      assert.ok(records.length >= 10);
      for (const record of records) assert.equal(record.agent?.name, "worker");
      assert.ok(!JSON.stringify(records).includes("printf"));
    },
  );

  await t.step("a token of another container is refused (ADV-AGENT-03)", async () => {
    const checkIn = await inside("other", ...AGENT_SOCKET, "-X", "POST", "http://x/v1/checkin");
    const { session_token: token }: { session_token: string } = JSON.parse(checkIn.stdout);
    const stolen = await inside("worker-1", ...AGENT_SOCKET, ...[
      ...["-H", `Authorization: Bearer ${token}`, "-H", "Content-Type: application/json"],
      ...["-d", '{"action_type":"tool_exec","target":"true"}', "-w", " %{http_code}"],
      "http://x/v1/permissions/check",
    ]);
    assert.match(stolen.stdout, /session is not valid for this container.* 403$/);
  });

  await t.step("who is not an agent is refused (ADV-AGENT-01, ADV-AGENT-02)", async () => {
    const outside = await host.run([...AGENT_SOCKET, "-X", "POST", "http://x/v1/checkin"]);
    assert.match(outside.stdout, /"code":"peer.forbidden"/);
    await engine.must([
      ...["run", "-d", "--rm", "--name", "stranger", "-v", "/run/outcall:/run/outcall"],
      ...["python:3.12", "sleep", "600"],
    ]);
    const stranger = await inside("stranger", ...AGENT_SOCKET, "-X", "POST", "http://x/v1/checkin");
    assert.match(stranger.stdout, /does not belong to a known container/);
    const operator = await inside("stranger", ...[
      ...["curl", "-sS", "--unix-socket", "/run/outcall/host.sock", "http://x/api/v1/bridge"],
    ]);
    assert.match(operator.stdout, /not open to processes inside containers/);
  });

  await t.step(
    "a hardened container has shim and socket, and can change neither (S005-AS-010, S005-EC-009, S005-SC-008)",
    async () => {
      const volumes = [...SHIM_PARTS, `${Deno.execPath()}:/opt/deno:ro`];
      const made = await lab.cli(...[
        ...["container", "create", "--image", "python:3.12", "--network", "agent-net"],
        ...["--name", "hardened", ...volumes.flatMap((volume) => ["--volume", volume])],
        ...["--", "sleep", "600"],
      ]);
      assert.equal(made.code, 0, made.stderr);
      const who = await inside("hardened", "outcall-agent", "whoami");
      assert.match(who.stdout, /"name":"hardened"/, who.stderr);
      const { stdout } = await inside("hardened", "python3", "-c", TAMPER);
      assert.deepEqual(stdout.split("\n"), ["EROFS", "EROFS", "EROFS", "agent.sock", ""]);
    },
  );

  await t.step(
    "refused, requested, approved, used, expired: the loop (S004-AS-006, S004-AS-007, S004-SC-005)",
    async () => {
      const url = "https://example.com/";
      assert.equal((await inside("worker-1", ...CURL, url)).stdout, "000 403");
      const waiting = shim("request", url, "--reason", "read the page", "--for", "1h", "--wait");
      let id = "";
      for (let polls = 0; id === "" && polls < 200; polls++) {
        id = /rr-[0-9a-f]{12}/.exec((await lab.cli("requests", "list")).stdout)?.[0] ?? "";
      }
      assert.match(id, /^rr-/);
      const shown = (await lab.cli("requests", "show", id)).stdout;
      assert.match(shown, /Agent: +worker \(10\.200\.0\.2 on outcall-agent-net\)/);
      assert.match(shown, /Opens: +example\.com\n/);
      assert.match(shown, /Why: +read the page/);

      const approved = await lab.cli("requests", "approve", id, "--for", "6s");
      assert.equal(approved.stdout, `Rule request "${id}" approved; 4 rule(s) loaded.\n`);
      const { code, stdout } = await waiting;
      assert.equal(code, 0);
      assert.match(stdout, new RegExp(`${id} approved, operator approved at .*, until `));
      assert.equal((await inside("worker-1", ...CURL, url)).stdout, "200 200");
      assert.equal((await inside("other", ...CURL, url)).stdout, "000 403"); // it was for one agent

      const tunnel = inside("worker-1", "python3", "-c", OPEN_TUNNEL);
      const file = `/etc/outcall/rules.d/agent-${id}.yaml`;
      assert.equal(await host.must(["stat", "-c", "%a", file]), "600\n");
      for (
        let polls = 0;
        (await host.run(["test", "-e", file])).code === 0 && polls < 200;
        polls++
      ) {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const cut = await tunnel;
      assert.equal(cut.stdout, "200 open\ncut\n", cut.stderr);
      assert.equal((await inside("worker-1", ...CURL, url)).stdout, "000 403");
      const history = (await lab.cli("requests", "show", id)).stdout;
      assert.match(history, /Status: +expired\n/);
      assert.match(
        history,
        /History:\n.* asked by worker: read the page\n.* approved by uid 0 until .*\n.* expired\n/,
      );
      assert.equal((await shim("status", id)).code, 1);
    },
  );

  await t.step("a rejection ends the waiting with the operator's words", async () => {
    const asked = await shim("request", "https://github.com/", "--reason", "clone");
    const [id = ""] = asked.stdout.split(" ");
    const again = await shim("request", "https://github.com/", "--reason", "clone");
    assert.equal(again.stdout, `${id} pending\n`); // the same request, counted twice
    assert.match(
      (await lab.cli("requests", "list")).stdout,
      new RegExp(`${id} +worker +pending +2x`),
    );
    const foreign = await inside("other", "outcall-agent", "status", id);
    assert.deepEqual([foreign.code, foreign.stderr], [1, "error: rule request not found\n"]);
    await lab.cli("requests", "reject", id, "--reason", "use the mirror");
    const { code, stdout } = await shim("status", id, "--wait");
    assert.deepEqual([code, stdout], [1, `${id} rejected, use the mirror\n`]);
    const twice = await lab.cli("requests", "approve", id);
    assert.deepEqual([twice.code, twice.stderr], [1, `error: request ${id} is rejected already\n`]);
  });

  await t.step(
    "the daemon's end kills a mediated program, and a new one serves the same container",
    async () => {
      const pending = (await shim("request", "https://github.com/org")).stdout.split(" ")[0] ?? "";
      const child = shim("exec", "sleep", "60");
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      await daemon.kill();
      assert.equal((await child).code, 5); // and not 0, a minute later
      assert.equal((await shim("exec", "true")).code, 5);
      daemon = await lab.startDaemon({ flags });
      assert.equal((await shim("exec", "true")).code, 0);
      assert.equal((await inside("hardened", "outcall-agent", "exec", "true")).code, 0);
      assert.equal((await shim("status", pending)).stdout, `${pending} pending\n`);
    },
  );
  await daemon.stop();
});

/** Tries to change shim and socket folder, and lists the folder. */
const TAMPER = `
import errno, os
shim = "/usr/local/bin/outcall-agent"
for attempt in (
    lambda: open(shim, "w"),
    lambda: os.chmod(shim, 0o777),
    lambda: open("/run/outcall/other.sock", "w"),
):
    try:
        attempt()
        print("changed")
    except OSError as error:
        print(errno.errorcode[error.errno])
print(" ".join(os.listdir("/run/outcall")))
`;

/** Opens a tunnel, says so, and waits until somebody cuts it. */
const OPEN_TUNNEL = `
import socket, ssl
raw = socket.create_connection(("10.200.0.1", 8080))
raw.sendall(b"CONNECT example.com:443 HTTP/1.1\\r\\nHost: example.com:443\\r\\n\\r\\n")
print(raw.recv(4096).split()[1].decode(), end=" ")
tls = ssl._create_unverified_context().wrap_socket(raw, server_hostname="example.com")
print("open", flush=True)
tls.settimeout(15)
try:
    print("cut" if tls.recv(1) == b"" else "data")
except (ConnectionError, ssl.SSLError):
    print("cut")
`;
