/** Docker followed over time: who is at which address, and what happens when Docker comes and goes. */
import assert from "node:assert/strict";
import type { Agent } from "../../lib/agents.ts";
import { Docker } from "../../lib/docker/docker.ts";
import { OutcallError } from "../../lib/errors.ts";
import { eventually } from "../eventually.ts";
import { importImage } from "../lab/dockerd.ts";
import { labTest } from "../lab/requirements.ts";
import { block, DockerLab, IMAGE, judgedBy, NO_NAMESPACE_AGENTS, TOOLS } from "./lab.ts";

function follow(lab: DockerLab): Docker {
  return new Docker({
    namespaceAgents: NO_NAMESPACE_AGENTS,
    pins: () => [],
    socketPath: lab.socket,
    subnetBlock: block("10.200.0.0/16"),
    hooks: lab.bridges,
    hostRoutes: () => [],
    segments: () => lab.bridges.segments(),
    containers: {
      ...judgedBy(),
      proxyPort: 8080,
      agentSocketPath: "/run/outcall/agent.sock",
      shimPath: "/usr/local/bin/outcall-agent",
      protectedPaths: ["/run/outcall/host.sock"],
    },
  });
}

labTest("a real Docker Engine is followed", { tools: TOOLS }, async (t) => {
  await using lab = await DockerLab.start();
  const docker = follow(lab);
  await docker.start();
  const whoIs = async (address: string): Promise<string | null> =>
    (await docker.agents.identify(address))?.name ?? null;
  const step = async (name: string, run: () => Promise<void>): Promise<void> => {
    await t.step(name, run);
    for (const { Id } of await lab.docker.listContainers({ all: true })) {
      await lab.docker.getContainer(Id).remove({ force: true, v: true });
    }
  };

  await step("start-up makes the default network and reports ok (S008-FR-036)", async () => {
    assert.equal(docker.health().state, "ok");
    assert.equal((await docker.networks.status()).subnet, "10.200.255.0/24");
    await docker.networks.create({ name: "agent-net" });
  });

  await step("a container started by hand is known by its address (D5, S013-FR-003)", async () => {
    const id = await lab.run("worker-1", "outcall-agent-net");
    const expected: Agent = {
      name: "worker",
      containerId: id,
      address: "10.200.0.2",
      network: "outcall-agent-net",
    };
    assert.deepEqual(await docker.agents.identify("10.200.0.2"), expected);
    assert.deepEqual(docker.agents.identify("10.200.0.2"), expected); // and now at once
    assert.equal(await whoIs("10.200.0.77"), "");
    assert.equal(await whoIs("172.30.0.2"), null);
  });

  await step("copies share a name; different containers do not (S013-AS-001, AS-002)", async () => {
    for (const name of ["copy-1", "copy-2", "other"]) await lab.run(name, "outcall-agent-net");
    assert.deepEqual(
      await Promise.all(["10.200.0.2", "10.200.0.3", "10.200.0.4"].map(whoIs)),
      ["copy", "copy", "other"],
    );
  });

  await step("a container on two networks is itself on both (ADV-NET-05)", async () => {
    const id = await lab.run("twice", "outcall-agent-net");
    await lab.docker.getNetwork("outcall-default").connect({ Container: id });
    assert.equal(await whoIs("10.200.0.2"), "twice");
    assert.equal(await whoIs("10.200.255.2"), "twice");
    await lab.docker.getNetwork("outcall-default").disconnect({ Container: id });
    await eventually(
      async () => await whoIs("10.200.255.2") === "",
      "the left address is nobody's",
    );
    assert.equal(await whoIs("10.200.0.2"), "twice");
  });

  await step("an address that changes hands takes nothing along (ADV-NET-13)", async () => {
    const first = await lab.run("first", "outcall-agent-net");
    assert.equal(await whoIs("10.200.0.2"), "first");
    await lab.docker.getContainer(first).remove({ force: true });
    await eventually(async () => await whoIs("10.200.0.2") === "", "the address is free");
    const second = await lab.run("second", "outcall-agent-net");
    await eventually(async () => await whoIs("10.200.0.2") === "second", "the new owner");
    const agent = await docker.agents.identify("10.200.0.2");
    assert.equal(agent?.containerId, second);
  });

  await step("a renamed container is asked for anew", async () => {
    const id = await lab.run("before", "outcall-agent-net");
    assert.equal(await whoIs("10.200.0.2"), "before");
    await lab.docker.getContainer(id).rename({ name: "after" });
    await eventually(async () => await whoIs("10.200.0.2") === "after", "the new name");
  });

  await step("an operator's label names the agent; an image's does not", async () => {
    const label = { "outcall.agent": "db-agent" };
    await importImage(lab.socket, "lab/pretender:1", ["bash", "sleep"], {}, label);
    await lab.run("plain", "outcall-agent-net", { Labels: label });
    await lab.run("pretender", "outcall-agent-net", { Image: "lab/pretender:1" });
    assert.equal(await whoIs("10.200.0.2"), "db-agent");
    assert.equal(await whoIs("10.200.0.3"), "pretender");
  });

  await step("many containers at once each get their own identity (S013-EC-006)", async () => {
    const numbers = Array.from({ length: 12 }, (_, i) => i);
    const ids = await Promise.all(
      numbers.map((i) => lab.run(`agent-${"abcdefghijkl"[i]}`, "outcall-agent-net")),
    );
    for (const id of ids) {
      const { Name, NetworkSettings } = await lab.docker.getContainer(id).inspect();
      const address = NetworkSettings.Networks["outcall-agent-net"]?.IPAddress ?? "";
      const agent = await docker.agents.identify(address);
      assert.deepEqual([agent?.containerId, `/${agent?.name}`], [id, Name]);
    }
  });

  await step("a container is known as soon as it is connected, before it runs", async () => {
    const early = await lab.docker.createContainer({
      name: "early",
      Image: IMAGE,
      Cmd: ["sleep", "1000"],
      HostConfig: { NetworkMode: "outcall-agent-net" },
    });
    const end = new AbortController();
    const names: (string | null)[] = [];
    const watching = (async (): Promise<void> => {
      for await (const signal of lab.engine.watch(end.signal)) {
        if (signal.kind !== "event" || signal.event.Action !== "connect") continue;
        if (signal.event.Actor.Attributes["container"] !== early.id) continue;
        names.push(await whoIs("10.200.0.2"));
        end.abort();
      }
    })();
    await early.start();
    await watching;
    assert.deepEqual(names, ["early"]);
  });

  await step("networks made and removed with the docker command are followed", async () => {
    lab.bridges.calls.length = 0;
    await docker.networks.create({ name: "gone" });
    await lab.docker.getNetwork("outcall-gone").remove();
    await eventually(() => lab.bridges.calls.includes("detach outcall-gone"), "it is detached");
    await lab.docker.createNetwork({ Name: "outcall-forged" });
    await docker.networks.create({ name: "after" });
    assert(!lab.bridges.calls.some((call) => call.includes("forged")));
    await lab.docker.getNetwork("outcall-forged").remove();
  });

  await step("Docker may go and come back: nothing is detached, nobody keeps a name", async () => {
    await lab.run("lost", "outcall-agent-net");
    assert.equal(await whoIs("10.200.0.2"), "lost");
    lab.bridges.calls.length = 0;
    await lab.killEngine();
    await eventually(() => docker.health().state === "degraded", "it is missed");
    // S002-EC-011, S008-EC-011, S013-EC-009
    assert.equal(await whoIs("10.200.0.2"), "");
    assert.equal(await whoIs("10.0.0.1"), null);
    await assert.rejects(
      docker.networks.list(),
      (error) => error instanceof OutcallError && error.code === "docker.unavailable",
    );
    assert.equal(lab.bridges.calls.length, 0);
    await lab.startEngine();
    await eventually(() => docker.health().state === "ok", "it is back");
    assert(lab.bridges.calls.includes("attach outcall-agent-net outcall1 10.200.0.0/24"));
    assert(!lab.bridges.calls.some((call) => call.startsWith("detach")));
    const address = (await docker.networks.status("agent-net")).containers[0]?.ipv4_address;
    if (address === undefined) await lab.run("found", "outcall-agent-net");
    await eventually(async () => (await whoIs("10.200.0.2")) !== "", "agents are known again");
  });

  await step("what cannot be attached is a failure that is tried again", async () => {
    lab.bridges.failure = new OutcallError(500, "bridge.broken", "the table was refused");
    await lab.docker.createNetwork({
      Name: "outcall-late",
      Labels: { "managed-by": "outcalld" },
      Options: { "com.docker.network.bridge.name": "outcall9" },
      IPAM: { Driver: "default", Config: [{ Subnet: "10.209.0.0/24", Gateway: "10.209.0.1" }] },
    });
    await eventually(() => docker.health().state === "failed", "it is told");
    assert.match(docker.health().detail, /the table was refused/);
    await eventually(() => docker.health().state === "ok", "it is mended");
    assert(lab.bridges.segments().some(({ network }) => network === "outcall-late"));
  });

  await docker.stop();
  // A second daemon finds everything as it was (S002-EC-010, S002-FR-032).
  lab.bridges.calls.length = 0;
  const next = follow(lab);
  await next.start();
  assert.equal(next.health().state, "ok");
  assert(lab.bridges.calls.includes("attach outcall-agent-net outcall1 10.200.0.0/24"));
  await next.stop();
});

labTest("a forged default network stops start-up", { tools: TOOLS }, async () => {
  await using lab = await DockerLab.start();
  await lab.docker.createNetwork({ Name: "outcall-default" });
  const docker = follow(lab);
  await assert.rejects(
    docker.start(),
    (error) => error instanceof OutcallError && error.code === "network.forged",
  );
  assert.equal(docker.health().state, "failed");
  await docker.stop();
  assert.deepEqual(await lab.bridges.inKernel().then((names) => names.includes("outcall0")), false);
});
