/** Operators' grants for containers: by name, and over a restart of the daemon (D12, D15). */
import assert from "node:assert/strict";
import { EXAMPLE_ADDRESS } from "../lab/internet/world.ts";
import { Lab } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";
import { nothing } from "../lab/witness.ts";

const TOOLS = ["nft", "ip", "iptables", "unshare", "nsenter", "dockerd", "docker", "nc"];

labTest(
  "D15: a persistent grant comes back to the same container at the same address, and to no other",
  {
    tools: TOOLS,
  },
  async (t) => {
    await using lab = await Lab.create({ docker: true });
    const { engine, witness } = lab;
    assert.ok(engine !== null);
    await engine.importClients("python:3.12", lab.internet.rootPem);
    const start = async (name: string): Promise<string> => {
      await engine.must([
        ...["run", "-d", "--name", name, "--network", "outcall-default", "--stop-timeout", "0"],
        ...["python:3.12", "sleep", "infinity"],
      ]);
      const format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
      return (await engine.must(["inspect", "-f", format, name])).trim();
    };
    const reaches = async (name: string, port: number): Promise<boolean> => {
      const mark = await witness.mark();
      await engine.docker(["exec", name, "nc", "-z", "-w", "1", EXAMPLE_ADDRESS, `${port}`]);
      const seen = await witness.since(mark, { to: EXAMPLE_ADDRESS, protocol: "tcp", port });
      return !nothing(seen);
    };
    const allow = ["grants", "allow", "--agent", "worker", "--to"];

    const first = await lab.startDaemon();
    const address = await start("worker");
    await t.step("a host name: every public address of it, and its name in the list", async () => {
      assert.equal(await reaches("worker", 5432), false);
      const allowed = await lab.cli(...allow, "example.com:5432", "--persistent");
      assert.match(
        allowed.stdout,
        /^Grant \S+: worker may reach 93\.184\.216\.34 port 5432\/tcp \(example\.com\) until it is revoked\.\n$/,
      );
      assert.equal(await reaches("worker", 5432), true);
      assert.equal((await lab.cli(...allow, "example.com:8443")).code, 0);
      assert.equal(await reaches("worker", 8443), true);
    });
    await t.step("D23: a name that leads inside, or nowhere, is granted nothing", async () => {
      for (
        const [name, why] of [
          ["inside.attacker.net", /is not public/],
          ["nowhere.example.net", /does not exist/],
        ] as const
      ) {
        const refused = await lab.cli(...allow, `${name}:80`);
        assert.deepEqual([refused.code, why.test(refused.stderr)], [1, true], refused.stderr);
      }
    });
    await t.step(
      "without the daemon it is closed; then it is back, and the other one is not",
      async () => {
        assert.equal(await first.stop(), 0);
        assert.equal(await reaches("worker", 5432), false);
        const second = await lab.startDaemon();
        assert.equal(await reaches("worker", 5432), true);
        assert.equal(await reaches("worker", 8443), false);
        assert.match(
          (await lab.cli("grants", "list")).stdout,
          /port 5432\/tcp +never +operator, persistent \(example\.com\)/,
        );
        assert.equal(await second.stop(), 0);
      },
    );
    await t.step("whoever has its address by then gets nothing, and the log says so", async () => {
      await engine.must(["rm", "-f", "worker"]);
      assert.equal(await start("thief"), address, "the same address");
      const third = await lab.startDaemon();
      assert.equal(await reaches("thief", 5432), false);
      assert.ok(third.log.some((line) => line.includes("does not have that address any more")));
      assert.match((await lab.cli("grants", "list")).stdout, /No grants/);
      assert.equal(await third.stop(), 0);
    });
    await t.step("a grant whose container ended meanwhile does not come back either", async () => {
      const daemon = await lab.startDaemon();
      const thief = ["grants", "allow", "--agent", "thief", "--to", `${EXAMPLE_ADDRESS}:5432`];
      assert.equal((await lab.cli(...thief, "--persistent")).code, 0);
      assert.equal(await reaches("thief", 5432), true);
      await engine.must(["restart", "-t", "0", "thief"]);
      assert.equal(await reaches("thief", 5432), false);
      assert.equal(await daemon.stop(), 0);
      await lab.startDaemon();
      assert.equal(await reaches("thief", 5432), false);
    });
  },
);
