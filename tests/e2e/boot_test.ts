/** What a boot leaves of networks that were made under another `--bridge`, by packets. */
import assert from "node:assert/strict";
import type { AgentPlace } from "../lab/agent.ts";
import { HOST_ADDRESS, Lab } from "../lab/lab.ts";
import type { Machine } from "../lab/machine.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "ping", "iptables"];

/** On a network that is not the default one of any run: its addresses are on one bridge alone. */
const PLACE: AgentPlace = {
  bridge: "agents0",
  address: "10.200.7.10/24",
  gateway: "10.200.7.1",
};

/** As Docker makes it when it starts, before it answers anybody. */
async function dockerMakesBridge(host: Machine): Promise<void> {
  await host.must(["ip", "link", "add", PLACE.bridge, "type", "bridge"]);
  await host.must(["ip", "address", "add", `${PLACE.gateway}/24`, "dev", PLACE.bridge]);
  await host.must(["ip", "link", "set", PLACE.bridge, "up"]);
}

/** The kernel forgets both; the disk does not. */
async function boot(host: Machine, ...bridges: readonly string[]): Promise<void> {
  await host.must(["nft", "flush", "ruleset"]);
  for (const bridge of bridges) await host.run(["ip", "link", "delete", bridge]);
}

labTest("D2: bridges of an earlier --bridge are covered after a boot under another one", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const { host, witness } = lab;
  const start = async (bridge: string): Promise<void> => {
    const daemon = await lab.startDaemon({ flags: ["--bridge", bridge] });
    assert.equal(await daemon.stop(), 0);
  };
  const arrives = async (): Promise<number> => {
    await using agent = await lab.agent(PLACE);
    const mark = await witness.mark();
    await agent.run(["ping", "-c", "1", "-W", "1", "1.1.1.1"]);
    return (await witness.since(mark, { to: "1.1.1.1" })).packets
      .filter(({ from }) => from !== HOST_ADDRESS).length;
  };

  await t.step("positive control: without a daemon the agent's packet arrives", async () => {
    await dockerMakesBridge(host);
    assert.equal(await arrives(), 1);
    await boot(host, "agents0");
  });
  await t.step("run under one name, then another, then a boot: nothing arrives", async () => {
    await start("agents0");
    await boot(host, "agents0");
    await start("other0");
    await boot(host, "other0", "agents0");
    await start("other0");
    await dockerMakesBridge(host);
    assert.equal(await arrives(), 0);
  });
  await t.step("torn down on request, the names are forgotten", async () => {
    await boot(host, "other0", "agents0");
    const daemon = await lab.startDaemon({ flags: ["--bridge", "other0"] });
    const { status, body } = await lab.api("POST", "/api/v1/bridge/down");
    assert.equal(status, 200, JSON.stringify(body));
    assert.equal(await daemon.stop(), 0);
    assert.equal(await host.must(["cat", "/var/lib/outcall/bridges"]), "other0\n");
  });
});

labTest("D2: without that memory Docker's labels tell of them as soon as it answers", {
  tools: [...TOOLS, "dockerd", "docker"],
}, async () => {
  await using lab = await Lab.create({ docker: true });
  const { engine, host, witness } = lab;
  assert.ok(engine !== null);
  await engine.importClients("python:3.12", lab.internet.rootPem);
  const before = await lab.startDaemon({ flags: ["--bridge", "agents0"] });
  assert.equal((await lab.cli("network", "create", "--name", "agent-net")).code, 0);
  await engine.must([
    ...["run", "-d", "--name", "sender", "--network", "outcall-agent-net", "--stop-timeout", "1"],
    ...["python:3.12", "sleep", "infinity"],
  ]);
  assert.equal(await before.stop(), 0);
  const ping = ["exec", "sender", "ping", "-c", "1", "-W", "1", "1.1.1.1"];
  const arrives = async (): Promise<boolean> => {
    const mark = await witness.mark();
    await engine.docker(ping);
    return (await witness.since(mark, { to: "1.1.1.1" })).packets.length > 0;
  };
  // Otherwise the next start would refuse to make a second one.
  await engine.must(["network", "rm", "outcall-default"]);
  await host.must(["nft", "delete", "table", "inet", "outcall"]);
  await host.must(["nft", "delete", "table", "bridge", "outcall"]);
  await host.must(["rm", "-rf", "/var/lib/outcall"]);
  assert.equal(await arrives(), true, "positive control: without the tables it arrives");
  await lab.startDaemon({ flags: ["--bridge", "other0"] });
  assert.equal(await arrives(), false);
  assert.equal((await host.must(["cat", "/var/lib/outcall/bridges"])).includes("agents1"), true);
});
