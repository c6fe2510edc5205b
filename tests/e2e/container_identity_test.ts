/** Names of agents on real containers: who gets one, and every way to get somebody else's (S013). */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { Container } from "../lab/container.ts";
import { recordedDecisions } from "../lab/decisions.ts";
import { importImage } from "../lab/dockerd.ts";
import { CLIENTS } from "../lab/engine.ts";
import { leftovers, nothingLeft } from "../lab/leftovers.ts";
import { labTest } from "../lab/requirements.ts";
import { HostileLab, IMAGE, MANAGED, TOOLS } from "./hostile.ts";

const RULES = `
version: "1"
rules:
  - id: db-agent-only
    action: allow
    condition: agent.name == "db-agent" && http.host == "api.openai.com"
`;

const ASK = [
  ...["curl", "-s", "-m", "2", "-o", "/dev/null", "-w", "%{http_connect} %{http_code}"],
  ...["-x", "http://10.200.0.1:8080", "https://api.openai.com/v1/models"],
];
/** What {@linkcode ASK} prints for the agent that may, and for every other one. */
const ALLOWED = "200 401";
const BLOCKED = "403 000";
/** Nobody answers: the connection is closed, or not even made. */
const REFUSED = "000 000";

/** What a program does first that wants to be at another address, with a MAC to match. */
function move(address: string): string {
  const mac = `02:42:${address.split(".").map((part) => Number(part).toString(16)).join(":")}`;
  return `ip address flush dev eth0; ip link set eth0 down address ${mac}; ip link set eth0 up
    ip address add ${address}/24 dev eth0; ip route add default via 10.200.0.1; sleep 1000`;
}

labTest("a name belongs to the container that Docker gave it to", { tools: TOOLS }, async (t) => {
  await using stage = await HostileLab.create(RULES);
  const { lab, engine } = stage;
  const ask = async (from: Container): Promise<string> => (await from.run(ASK)).stdout;
  const remove = async (...names: readonly string[]): Promise<void> => {
    await engine.must(["rm", "-f", ...names]);
  };
  /** Starts a container that takes another address first. */
  const startThief = async (address: string): Promise<Container> => {
    await engine.must([
      ...["run", "-d", "--init", "--name", "thief", "--network", MANAGED, "--cap-add", "NET_ADMIN"],
      ...[IMAGE, "bash", "-c", move(address)],
    ]);
    const thief = new Container(engine, "thief");
    await eventually(async () => (await thief.must(["ip", "address"])).includes(address));
    return thief;
  };

  await t.step("S013-AS-001 AS-002 AS-007: copies share a name, others have another", async () => {
    for (const name of ["db-agent-1", "db-agent"]) {
      const agent = await stage.create(name);
      await eventually(async () => await ask(agent) === ALLOWED, name);
    }
    for (const name of ["db-agent-x", "web-agent"]) {
      assert.equal(await ask(await stage.create(name)), BLOCKED, name);
    }
    await remove("db-agent-1", "db-agent", "db-agent-x", "web-agent");
  });

  await t.step("a label of the operator's names an agent; one of an image does not", async () => {
    const label = { "outcall.agent": "db-agent" };
    await importImage(
      engine.machine.path("/run/docker.sock"),
      "lab/pretender:1",
      CLIENTS,
      {},
      label,
    );
    const labelled = await stage.run("anything", MANAGED, "--label", "outcall.agent=db-agent");
    await eventually(async () => await ask(labelled) === ALLOWED);
    await engine.must([
      ...["run", "-d", "--name", "pretender", "--network", MANAGED, "lab/pretender:1"],
      ...["sleep", "1000"],
    ]);
    const pretender = new Container(engine, "pretender");
    await eventually(async () => await ask(pretender) === BLOCKED);
    await remove("anything", "pretender");
  });

  await t.step("who gets an old address gets nothing of the name (ADV-NET-13)", async () => {
    const first = await stage.run("db-agent", MANAGED, "--ip", "10.200.0.50");
    await eventually(async () => await ask(first) === ALLOWED);
    await remove("db-agent");
    const heir = await stage.run("heir", MANAGED, "--ip", "10.200.0.50");
    assert.equal(await ask(heir), BLOCKED);
    const last = (await recordedDecisions(lab)).findLast(({ source }) => source === "10.200.0.50");
    assert.deepEqual([last?.verdict, last?.agent?.name], ["block", "heir"]);
    await remove("heir");
  });

  await t.step("nor does who waits at an address for its owner to come", async () => {
    await stage.daemon.stop();
    const thief = await startThief("10.200.0.60");
    await stage.restartDaemon();
    // Docker gave this address to nobody: an agent without a name.
    await eventually(async () => await ask(thief) === BLOCKED);
    const owner = await stage.start("db-agent", MANAGED, "--ip", "10.200.0.60");
    // Whatever is asked while Docker tells of the owner, and after it.
    for (let i = 0; i < 3; i++) assert.notEqual(await ask(thief), ALLOWED);
    await eventually(async () => await ask(thief) === REFUSED);
    assert.equal(await ask(owner), REFUSED, "two claimants, both refused");
    assert.match(stage.daemon.log.join("\n"), /10\.200\.0\.60 is claimed by \w+, too/);
    await remove("thief");
    await eventually(async () => await ask(owner) === ALLOWED, "the owner gets its address");
    await remove("db-agent");
  });

  await t.step("nor who moves there at its start, under the daemon's eyes", async () => {
    const thief = await startThief("10.200.0.70");
    await stage.start("db-agent", MANAGED, "--ip", "10.200.0.70");
    for (let i = 0; i < 2; i++) assert.notEqual(await ask(thief), ALLOWED);
    await remove("thief", "db-agent");
  });

  await t.step("two that start at one address while nobody looks are both cut off", async () => {
    await stage.daemon.stop();
    const owner = await stage.start("db-agent", MANAGED, "--ip", "10.200.0.80");
    const thief = await startThief("10.200.0.80");
    await stage.restartDaemon();
    assert.deepEqual([await ask(owner), await ask(thief)], [REFUSED, REFUSED]);
    await remove("thief");
    await eventually(async () => await ask(owner) === ALLOWED);
  });

  await t.step("containers that come and go leave nothing behind", async () => {
    await remove("db-agent");
    const come = (count: number): Promise<string> => {
      const agent = `docker run --rm --name many-{} --network ${MANAGED} ${IMAGE} id`;
      return lab.host.must(["bash", "-c", `seq ${count} | xargs -P 4 -I{} ${agent}`], {
        timeoutMs: 60_000,
      });
    };
    await come(4); // what is made once is no leak
    const before = await leftovers(lab.host, stage.daemon);
    await come(20);
    await nothingLeft(lab.host, stage.daemon, before);
  });
});
