/** Agent containers made by the running product, as an operator makes them. */
import assert from "node:assert/strict";
import { recordedDecisions } from "../lab/decisions.ts";
import { Lab } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = [
  ...["nft", "ip", "iptables", "unshare", "nsenter", "dockerd", "docker", "curl", "python3"],
];
const IMAGE = "lab/agent:1";

labTest("outcall container create, seen by an operator", { tools: TOOLS }, async (t) => {
  await using lab = await Lab.create({ docker: true });
  const { engine } = lab;
  assert.ok(engine !== null);
  await engine.importClients(IMAGE, lab.internet.rootPem);
  let daemon = await lab.startDaemon({ rules: {} });
  const create = (...args: readonly string[]): ReturnType<Lab["cli"]> =>
    lab.cli("container", "create", "--image", IMAGE, ...args);
  /** The agent API's status for a request from inside container `name`; 0: nobody answers. */
  const agentApi = async (name: string): Promise<number> => {
    const { stdout } = await engine.docker([
      ...["exec", name, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"],
      ...["--unix-socket", "/run/outcall/agent.sock", "http://outcall/"],
    ]);
    return Number(stdout);
  };

  await t.step(
    "the agent socket answers inside, also after the daemon's restart (D20)",
    async () => {
      const made = await create("--name", "lasting", "--", "sleep", "1000");
      assert.equal(made.stdout, 'Container "lasting" created and started.\n', made.stderr);
      assert.notEqual(await agentApi("lasting"), 0);
      assert.equal(await daemon.stop(), 0);
      assert.equal(await agentApi("lasting"), 0);
      daemon = await lab.startDaemon();
      assert.notEqual(await agentApi("lasting"), 0);
      await daemon.kill();
      daemon = await lab.startDaemon();
      assert.notEqual(await agentApi("lasting"), 0);
    },
  );

  await t.step(
    "inside, nothing of the folder but the socket is there, and it is read-only",
    async () => {
      assert.equal(
        await engine.must(["exec", "lasting", "ls", "-A", "/run/outcall"]),
        "agent.sock\n",
      );
      const { stderr } = await engine.docker([
        ...["exec", "-u", "0:0", "lasting", "bash", "-c", "echo x > /run/outcall/x"],
      ]);
      assert.match(stderr, /Read-only file system/);
    },
  );

  await t.step("a namesake is created, and warned about", async () => {
    const { code, stdout, stderr } = await create("--name", "lasting-1", "--", "sleep", "1000");
    assert.deepEqual([code, stdout], [0, 'Container "lasting-1" created and started.\n']);
    assert.equal(
      stderr,
      'warning: container "lasting" is the same agent to rules: agent.name == "lasting"\n',
    );
  });

  await t.step("rules on docker.* refuse, by name and place", async () => {
    const rule = { id: "no-sleep", action: "block", condition: 'docker.command[0] == "sleep"' };
    await lab.writeRules({ "a.yaml": JSON.stringify({ version: "1", rules: [rule] }) });
    assert.equal((await lab.cli("rules", "reload")).code, 0);
    const { code, stderr } = await create("--name", "third", "--", "sleep", "1000");
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^error: rule "no-sleep" \(\/etc\/outcall\/rules\.d\/a\.yaml:1\) blocks a container of image "lab\/agent:1" \(decision \w+\)\n/,
    );
    assert.equal((await create("--name", "fourth", "--", "cat")).code, 0);
    const records = (await recordedDecisions(lab)).filter(({ layer }) => layer === "container");
    assert.deepEqual(
      records.map(({ verdict, rule }) => [verdict, rule?.id]).slice(-2),
      [["block", "no-sleep"], ["allow", undefined]],
    );
  });
});
