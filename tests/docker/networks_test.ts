/** Managed networks on a real Docker Engine. */
import assert from "node:assert/strict";
import { OutcallError } from "../../lib/errors.ts";
import { labTest } from "../lab/requirements.ts";
import { DockerLab, TOOLS } from "./lab.ts";

/** Whether `error` is the product's, with this status, code and (part of) text. */
function isError(status: number, code: string, text: string): (error: unknown) => boolean {
  return (error) => {
    assert(error instanceof OutcallError, String(error));
    assert.deepEqual([error.status, error.code], [status, code], error.message);
    assert(error.message.includes(text), `${error.message} lacks ${text}`);
    return true;
  };
}

labTest("networks on a real Docker Engine", { tools: TOOLS }, async (t) => {
  await using lab = await DockerLab.start();
  const step = async (name: string, run: () => Promise<void>): Promise<void> => {
    await t.step(name, run);
    await lab.clear();
  };

  await step("the default network takes the block's last /24 (D4, S002-AS-001)", async () => {
    const result = await lab.networks().create({});
    assert.deepEqual({ ...result, network_id: "" }, {
      network_id: "",
      name: "outcall-default",
      subnet: "10.200.255.0/24",
      gateway: "10.200.255.1",
      created: true,
    });
    const inspected = await lab.docker.getNetwork("outcall-default").inspect();
    assert.equal(inspected.Id, result.network_id);
    assert.equal(inspected.Driver, "bridge");
    assert.equal(inspected.EnableIPv6, false);
    assert.deepEqual(inspected.Options, {
      "com.docker.network.bridge.name": "outcall0",
      "com.docker.network.bridge.enable_icc": "false",
    });
    assert.deepEqual(inspected.Labels, { "managed-by": "outcalld" });
    assert.deepEqual(inspected.IPAM?.Config, [{
      Subnet: "10.200.255.0/24",
      Gateway: "10.200.255.1",
    }]);
  });

  await step(
    "named networks fill the block from the bottom, one bridge each (D3, D4)",
    async () => {
      const networks = lab.networks();
      await networks.ensureDefault();
      const first = await networks.create({ name: "agent-net" });
      const second = await networks.create({ name: "staging" });
      assert.deepEqual([first.name, first.subnet, first.gateway], [
        "outcall-agent-net",
        "10.200.0.0/24",
        "10.200.0.1",
      ]);
      assert.equal(second.subnet, "10.200.1.0/24");
      assert.deepEqual(
        (await networks.segments()).map(({ network, bridge }) => [network, bridge]),
        [
          ["outcall-agent-net", "outcall1"],
          ["outcall-default", "outcall0"],
          ["outcall-staging", "outcall2"],
        ],
      );
      assert.equal((await networks.create({ name: "default" })).created, false);
    },
  );

  await step(
    "the bridge is attached before Docker makes the network, which adopts it",
    async () => {
      const networks = lab.networks();
      const order: string[] = [];
      const attach = lab.bridges.attach.bind(lab.bridges);
      lab.bridges.attach = async (segment): Promise<void> => {
        const known = (await lab.engine.networks()).some(({ Name }) => Name === segment.network);
        order.push(`attach while Docker ${known ? "knows" : "does not know"} the network`);
        await attach(segment);
      };
      try {
        await networks.create({ name: "a" });
      } finally {
        lab.bridges.attach = attach;
      }
      assert.deepEqual(order, ["attach while Docker does not know the network"]);
      assert((await lab.bridges.inKernel()).includes("outcall1"));
      const id = await lab.run("a-1", "outcall-a");
      assert.equal(
        (await lab.docker.getContainer(id).inspect()).NetworkSettings.Networks["outcall-a"]
          ?.Gateway,
        "10.200.0.1",
      );
      const ports = await lab.machine.must(["ip", "-o", "link", "show", "master", "outcall1"]);
      assert.match(ports, /veth/);
    },
  );

  await step("create is idempotent, and refuses other addresses than there are", async () => {
    const networks = lab.networks();
    const made = await networks.create({ name: "a" });
    // S002-FR-003, S002-EC-001, S002-AS-003
    assert.deepEqual(await networks.create({ name: "a" }), { ...made, created: false });
    assert.deepEqual(await networks.create({ name: "a", subnet: "10.200.0.0/24" }), {
      ...made,
      created: false,
    });
    await assert.rejects(
      networks.create({ name: "a", subnet: "10.201.0.0/24" }),
      isError(409, "network.differs", "10.200.0.0/24"),
    );
    // A manager that has just started attaches what it finds.
    lab.bridges.calls.length = 0;
    await lab.networks().create({ name: "a" });
    assert.deepEqual(lab.bridges.calls, ["attach outcall-a outcall1 10.200.0.0/24"]);
  });

  await step("creates at the same time get different subnets (S002-EC-009)", async () => {
    const networks = lab.networks();
    const results = await Promise.all(
      ["a", "b", "c", "a"].map((name) => networks.create({ name })),
    );
    assert.deepEqual(results.map(({ subnet }) => subnet), [
      "10.200.0.0/24",
      "10.200.1.0/24",
      "10.200.2.0/24",
      "10.200.0.0/24",
    ]);
    assert.deepEqual(results.map(({ created }) => created), [true, true, true, false]);
  });

  await step("addresses of other networks and of host routes are left alone", async () => {
    await lab.docker.createNetwork({
      Name: "other",
      IPAM: { Driver: "default", Config: [{ Subnet: "10.200.0.0/23" }] },
    });
    const networks = lab.networks({
      routes: () => [
        { destination: "0.0.0.0/0", link: "eth0" },
        { destination: "10.200.2.128/25", link: "vpn0" },
        // The bridge to be used may be there from an earlier life.
        { destination: "10.200.3.0/24", link: "outcall1" },
      ],
    });
    // S002-FR-013, S002-SC-009
    assert.equal((await networks.create({ name: "a" })).subnet, "10.200.3.0/24");
    // S002-EC-012, S002-EC-015, S002-AS-015
    await assert.rejects(
      networks.create({ name: "b", subnet: "10.200.1.0/24" }),
      isError(409, "network.overlap", 'overlaps network "other" (10.200.0.0/23)'),
    );
    await assert.rejects(
      networks.create({ name: "b", subnet: "10.200.2.0/24" }),
      isError(409, "network.overlap", "the host's route by vpn0 (10.200.2.128/25)"),
    );
  });

  await step("an explicit subnet and gateway are used as given", async () => {
    const networks = lab.networks();
    const made = await networks.create({
      name: "prod",
      subnet: "10.77.0.0/28",
      gateway: "10.77.0.14",
    });
    assert.deepEqual([made.subnet, made.gateway], ["10.77.0.0/28", "10.77.0.14"]);
    assert.equal((await networks.status("prod")).gateway, "10.77.0.14");
  });

  await step("a full block is named (S002-EC-013)", async () => {
    const networks = lab.networks({ block: "10.201.8.0/23" });
    await networks.ensureDefault();
    await networks.create({ name: "a" });
    await assert.rejects(
      networks.create({ name: "b" }),
      isError(409, "network.exhausted", "no available subnets in 10.201.8.0/23"),
    );
  });

  await step("status and list show what Docker knows now (S002-FR-016, FR-017)", async () => {
    const networks = lab.networks();
    assert.deepEqual(await networks.status(), {
      exists: false,
      network_id: null,
      name: "outcall-default",
      bridge: null,
      subnet: null,
      gateway: null,
      containers: [],
    });
    const { network_id } = await networks.create({ name: "staging" });
    await lab.run("other-agent", "outcall-staging");
    await lab.run("my-agent", "outcall-staging");
    const expected = {
      exists: true,
      network_id,
      name: "outcall-staging",
      bridge: "outcall1",
      subnet: "10.200.0.0/24",
      gateway: "10.200.0.1",
      containers: [
        { name: "my-agent", ipv4_address: "10.200.0.3" },
        { name: "other-agent", ipv4_address: "10.200.0.2" },
      ],
    };
    assert.deepEqual(await networks.status("staging"), expected);
    assert.deepEqual(await networks.list(), [expected]);
  });

  await step("destroy refuses while containers are attached, and names them", async () => {
    const networks = lab.networks();
    await networks.create({ name: "staging" });
    const ids = [
      await lab.run("other-agent", "outcall-staging"),
      await lab.run("my-agent", "outcall-staging"),
    ];
    // S002-IF-004, S002-EC-006, S002-AS-011
    await assert.rejects(
      networks.destroy("staging"),
      isError(
        409,
        "network.in_use",
        'cannot destroy network "outcall-staging": 2 containers still connected: ' +
          "my-agent, other-agent",
      ),
    );
    for (const id of ids) {
      assert.equal((await lab.docker.getContainer(id).inspect()).State.Running, true);
      await lab.docker.getContainer(id).remove({ force: true });
    }
    lab.bridges.calls.length = 0;
    assert.deepEqual(await networks.destroy("staging"), {
      name: "outcall-staging",
      destroyed: true,
    });
    assert.deepEqual(lab.bridges.calls, ["detach outcall-staging"]);
    assert(!(await lab.bridges.inKernel()).includes("outcall1"));
    // S002-EC-005, S002-AS-012
    assert.equal((await networks.destroy("staging")).destroyed, false);
  });

  await step("the default network can be destroyed and comes back (S002-FR-008)", async () => {
    const networks = lab.networks();
    const before = await networks.ensureDefault();
    assert.equal((await networks.destroy()).destroyed, true);
    const after = await networks.create({});
    assert.equal(after.created, true);
    assert.equal(after.subnet, before.subnet);
  });

  await step(
    "forged networks are neither trusted nor touched (S002-FR-033, S002-AS-014)",
    async () => {
      const networks = lab.networks();
      const managed = { "managed-by": "outcalld" };
      const onBridge = (name: string): Record<string, string> => ({
        "com.docker.network.bridge.name": name,
      });
      const forgeries = {
        "outcall-plain": {},
        "outcall-unlabelled": { Options: onBridge("outcall7") },
        "outcall-elsewhere": { Labels: managed, Options: onBridge("br-evil") },
        "outcall-unbridged": { Labels: managed },
      };
      for (const [Name, more] of Object.entries(forgeries)) {
        await lab.docker.createNetwork({ Name, ...more });
      }
      const before = (await lab.docker.listNetworks()).map(({ Id }) => Id).sort();
      assert.deepEqual(await networks.list(), []);
      assert.deepEqual(await networks.segments(), []);
      for (const full of Object.keys(forgeries)) {
        const name = full.slice("outcall-".length);
        const refused = isError(409, "network.forged", `"${full}" is not one of outcall's`);
        await assert.rejects(networks.create({ name }), refused);
        await assert.rejects(networks.status(name), refused);
        await assert.rejects(networks.destroy(name), refused);
      }
      await networks.reconcile();
      assert.deepEqual(lab.bridges.calls, []);
      assert.deepEqual((await lab.docker.listNetworks()).map(({ Id }) => Id).sort(), before);
    },
  );

  await step("two networks of one name are nobody's", async () => {
    const networks = lab.networks();
    await networks.create({ name: "twin" });
    await lab.docker.createNetwork({ Name: "outcall-twin", CheckDuplicate: false });
    await assert.rejects(networks.status("twin"), isError(409, "network.forged", "several"));
    await assert.rejects(networks.destroy("twin"), isError(409, "network.forged", "several"));
    assert.deepEqual(await networks.list(), []);
  });

  await step("a network Docker refuses leaves no bridge behind", async () => {
    const networks = lab.networks();
    const attach = lab.bridges.attach.bind(lab.bridges);
    lab.bridges.attach = async (segment): Promise<void> => {
      await attach(segment);
      // Somebody else takes the addresses at the last moment.
      await lab.docker.createNetwork({
        Name: "thief",
        IPAM: { Driver: "default", Config: [{ Subnet: segment.subnet }] },
      });
    };
    try {
      await assert.rejects(
        networks.create({ name: "a" }),
        isError(403, "docker.refused", "Pool overlaps"),
      );
    } finally {
      lab.bridges.attach = attach;
    }
    assert.deepEqual(lab.bridges.calls, [
      "attach outcall-a outcall1 10.200.0.0/24",
      "detach outcall-a",
    ]);
    assert.equal((await networks.status("a")).exists, false);
    assert(!(await lab.bridges.inKernel()).includes("outcall1"));
  });

  await step("without enforcement there is no network (S002-FR-004)", async () => {
    const networks = lab.networks();
    lab.bridges.failure = new OutcallError(409, "bridge.down", "the bridge cannot be filtered");
    await assert.rejects(networks.create({ name: "a" }), isError(409, "bridge.down", "filtered"));
    assert.equal((await networks.status("a")).exists, false);
  });

  await step("reconcile follows what was made and removed elsewhere (S002-FR-032)", async () => {
    const earlier = lab.networks();
    await earlier.create({ name: "a" });
    await earlier.create({ name: "b" });
    lab.bridges.calls.length = 0;
    const networks = lab.networks();
    await networks.reconcile();
    await lab.docker.getNetwork("outcall-a").remove();
    await networks.reconcile();
    assert.deepEqual(lab.bridges.calls, [
      "attach outcall-a outcall1 10.200.0.0/24",
      "attach outcall-b outcall2 10.200.1.0/24",
      "attach outcall-b outcall2 10.200.1.0/24",
      "detach outcall-a",
    ]);
  });
});
