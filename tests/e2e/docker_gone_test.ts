/**
 * Docker stopped and started while an agent lives (S002-EC-011, S008-EC-011, S013-EC-009): the
 * firewall goes on, what needs Docker says so, and everything is known again when it is back.
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { UPSTREAM_RESOLVER } from "../lab/internet/world.ts";
import { HOST_ADDRESS } from "../lab/lab.ts";
import { positiveControl } from "../lab/probe.ts";
import type { Finished } from "../lab/process.ts";
import { labTest } from "../lab/requirements.ts";
import { hostile, HostileLab, MANAGED, TOOLS } from "./hostile.ts";

const RULES = `
version: "1"
rules:
  - id: by-name
    action: allow
    condition: agent.name == "lasting" && http.host == "api.openai.com"
  - id: for-all
    action: allow
    condition: http.host == "github.com"
`;

labTest("Docker goes and comes back while an agent lives", { tools: TOOLS }, async (t) => {
  await using stage = await HostileLab.create(RULES);
  const { lab, engine } = stage;
  await lab.host.write("/etc/docker/daemon.json", '{"live-restore":true}');
  await lab.host.must(["bash", "-c", "kill -HUP $(cat /run/docker.pid)"]); // containers outlive it
  await eventually(async () => /Live Restore Enabled: true/.test(await engine.must(["info"])));
  const lasting = await stage.create("lasting");
  const address = await lasting.address(MANAGED);
  const pid = (await engine.must(["inspect", "-f", "{{.State.Pid}}", "lasting"])).trim();
  // Without Docker nobody runs `docker exec`: the agent's network is entered by its process.
  const inside = (...argv: readonly string[]): Promise<Finished> =>
    lab.host.run(["nsenter", "--target", pid, "--net", "--", ...argv]);
  const ask = async (host: string): Promise<string> => {
    const proxied = ["-x", "http://10.200.0.1:8080", `https://${host}/`];
    const format = "%{http_connect}";
    return (await inside("curl", "-s", "-m", "5", "-o", "/dev/null", "-w", format, ...proxied))
      .stdout;
  };
  const health = async (): Promise<{ status: number; docker: string }> => {
    const { status, body } = await lab.api("GET", "/api/v1/ready");
    const parts: { name: string; state: string }[] = Object(body).parts;
    return { status, docker: parts.find(({ name }) => name === "docker")?.state ?? "none" };
  };
  /** @param untilItEnds What is to be seen as soon as the daemon has lost Docker. */
  const stopDocker = async (untilItEnds?: () => Promise<void>): Promise<void> => {
    const docker = (await lab.host.must(["cat", "/run/docker.pid"])).trim();
    await lab.host.kill(Number(docker), "TERM");
    await eventually(async () => (await health()).docker === "degraded");
    await untilItEnds?.();
    await lab.host.must(["tail", "-f", "/dev/null", `--pid=${docker}`]);
  };
  /** Everything but the allowed, and that nothing of it arrives. */
  const nothingElseArrives = async (): Promise<void> => {
    await positiveControl(lab, ["nc", "-z", "-w", "1", "1.1.1.1", "443"], { to: "1.1.1.1" });
    const mark = await lab.witness.mark();
    await inside(...hostile("everything", "1.1.1.1", HOST_ADDRESS, "10.99.0.1"));
    for (const from of [HOST_ADDRESS, address]) {
      const { packets } = await lab.witness.since(mark, { from });
      assert.deepEqual(packets.filter(({ to }) => to !== UPSTREAM_RESOLVER), []);
    }
  };

  assert.deepEqual([await ask("api.openai.com"), await ask("github.com")], ["200", "200"]);
  await t.step(
    "a name that only Docker knows resolves nothing, though it just did (D5)",
    async () => {
      // It asks all the while, so that the DNS thread has known it by name until this very moment.
      const look = "dig @10.200.0.1 +tries=1 +time=1 api.openai.com | grep -o 'status: [A-Z]*'";
      const looking = lab.host.spawn([
        ...[
          "nsenter",
          "--target",
          pid,
          "--net",
          "--",
          "bash",
          "-c",
          `until [ -e /run/enough ]; do ${look}; done`,
        ],
      ]);
      await looking.line("stdout", (line) => line === "status: NOERROR");
      await stopDocker(async () => {
        const before = looking.stdout.length;
        // The first one may have been under way.
        for (let round = before + 1; round < before + 4; round++) {
          assert.equal(await looking.line("stdout", () => true, round), "status: NXDOMAIN");
        }
      });
      await lab.host.write("/run/enough", "");
      await looking.ended;
    },
  );

  await t.step("enforcement goes on; a name that only Docker knows opens nothing", async () => {
    assert.deepEqual(await health(), { status: 200, docker: "degraded" });
    await nothingElseArrives();
    assert.deepEqual([await ask("api.openai.com"), await ask("github.com")], ["403", "200"]);
  });

  await t.step("what needs Docker says so, and who can mend it", async () => {
    for (
      const args of [
        ["container", "list"],
        ["container", "stop", "--name", "lasting"],
        ["network", "list"],
        ["network", "create", "--name", "late"],
      ]
    ) {
      const { code, stdout, stderr } = await lab.cli(...args);
      assert.deepEqual([code, stdout], [1, ""], args.join(" "));
      assert.match(
        stderr,
        /^error: Docker is unavailable at \/var\/run\/docker\.sock: .*\nhint: Start Docker/,
      );
    }
  });

  await t.step("bridge down refuses for what is plugged in, whoever knows its name", async () => {
    const { code, stderr } = await lab.cli("bridge", "down");
    assert.equal(code, 1);
    assert.match(stderr, /veth/);
    await nothingElseArrives();
  });

  await t.step("a daemon that starts without Docker enforces all the same", async () => {
    await stage.daemon.kill();
    await stage.restartDaemon();
    assert.deepEqual(await health(), { status: 200, docker: "degraded" });
    await nothingElseArrives();
    assert.deepEqual([await ask("api.openai.com"), await ask("github.com")], ["403", "200"]);
  });

  await t.step("when Docker is back the agent is known again, by itself", async () => {
    await engine.restart();
    await eventually(async () => (await health()).docker === "ok");
    await eventually(async () => await ask("api.openai.com") === "200");
    assert.match((await lab.cli("container", "list")).stdout, /^lasting +.* running /m);
    await nothingElseArrives();
  });

  await t.step("a container that was killed with Docker leaves nothing behind", async () => {
    await lab.host.write("/etc/docker/daemon.json", "{}");
    await stopDocker();
    await engine.restart();
    await eventually(async () => (await health()).docker === "ok");
    await engine.must(["rm", "-f", "lasting"]);
    const pins = ["nft", "list", "table", "bridge", "outcall"];
    await eventually(async () => !/veth|02:42/.test(await lab.host.must(pins)));
    const heir = await stage.run("heir", MANAGED, "--ip", address);
    const { stdout } = await heir.run([
      ...["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_connect}"],
      ...["-x", "http://10.200.0.1:8080", "https://api.openai.com/"],
    ]);
    assert.equal(stdout, "403");
  });

  await t.step("without Docker and without agents bridge down is not refused", async () => {
    await engine.must(["rm", "-f", "heir"]);
    await stopDocker();
    const { code, stderr } = await lab.cli("bridge", "down");
    assert.deepEqual([code, stderr], [0, ""]);
    const links = await lab.host.must(["ip", "link"]);
    assert.doesNotMatch(links, /outcall/);
  });

  await t.step("until bridge up no network is made (S002-EC-002, S002-AS-004)", async () => {
    const create = ["network", "create", "--name", "late"];
    assert.equal(
      (await lab.cli(...create)).stderr,
      'error: bridge is not up — run "outcall bridge up" first\n',
    );
    assert.equal((await lab.cli("bridge", "up")).stdout, "Bridge is up.\n");
    await engine.restart();
    await eventually(async () => (await lab.cli(...create)).code === 0);
    await lab.cli("network", "destroy", "--name", "late");
  });

  await t.step("what Docker brings back after bridge down is filtered again", async () => {
    await eventually(async () => (await lab.cli("bridge", "down")).code === 0);
    await stopDocker();
    await engine.restart();
    await eventually(async () => (await health()).docker === "ok");
    assert.match((await lab.cli("bridge", "status")).stdout, /up[^]*active/);
    const back = await stage.run("back", MANAGED);
    assert.equal((await back.run(["nc", "-z", "-w", "2", "10.200.0.1", "8080"])).code, 0);
    const mark = await lab.witness.mark();
    await back.must(hostile("everything", "1.1.1.1"));
    assert.deepEqual((await lab.witness.since(mark, { to: "1.1.1.1" })).packets, []);
  });
});
