/** Observation of real containers: from the first packet of the one that was created so, and of no other. */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { Container } from "../lab/container.ts";
import { recordedDecisions } from "../lab/decisions.ts";
import { labTest } from "../lab/requirements.ts";
import { HostileLab, IMAGE, MANAGED, TOOLS } from "./hostile.ts";

const RULES = `
version: "1"
rules:
  - id: no-example
    action: block
    condition: http.host == "example.com"
`;

const CURL = [
  ...["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_connect} %{http_code}"],
  ...["-x", "http://10.200.0.1:8080"],
];
const ASK = [...CURL, "https://api.openai.com/v1/models"];
/** What {@linkcode ASK} prints for an agent that gets through, and for every other one. */
const THROUGH = "200 401";
const BLOCKED = "403 000";

labTest("a container is observed from its first packet to its end", { tools: TOOLS }, async (t) => {
  await using stage = await HostileLab.create(RULES);
  const { lab, engine } = stage;
  const create = async (name: string, ...command: readonly string[]): Promise<Container> => {
    const { code, stderr } = await lab.cli(
      ...["container", "create", "--image", IMAGE, "--network", "agent-net", "--name", name],
      ...["--observe", "10m", "--", ...command],
    );
    assert.equal(code, 0, stderr);
    assert.match(stderr, /is observed for 600 s: whatever no rule blocks is let out/);
    return new Container(engine, name);
  };
  const ask = async (from: Container): Promise<string> => (await from.run(ASK)).stdout;
  const nobody = (): Promise<void> =>
    eventually(async () => (await lab.cli("observe", "list")).stdout === "No agent is observed.\n");

  await t.step("what it does first passes already; what rules block does not", async () => {
    const seer = await create("seer", "bash", "-c", '"$@"; exec sleep 1000', "sh", ...ASK);
    const records = async (): Promise<string[]> =>
      (await recordedDecisions(lab)).filter(({ agent }) => agent?.name === "seer")
        .map(({ attempt, verdict, reason }) => `${attempt.host} ${verdict} ${reason}`);
    await eventually(async () => (await records()).length > 0);
    assert.deepEqual((await records()).slice(0, 1), ["api.openai.com allow observed"]);
    assert.equal(await ask(seer), THROUGH);
    assert.equal((await seer.run([...CURL, "https://example.com/"])).stdout, BLOCKED);
    const id = (await engine.must(["inspect", "-f", "{{.Id}}", "seer"])).trim();
    assert.match((await lab.cli("observe", "list")).stdout, new RegExp(`^seer .*${id}$`, "m"));
    assert.deepEqual([...new Set(await records())], [
      "api.openai.com allow observed",
      "example.com block rule",
    ]);
  });

  await t.step("another container of the same agent name is not observed", async () => {
    const copy = await stage.run("seer-2", MANAGED);
    assert.equal(await ask(copy), BLOCKED);
    assert.equal(await ask(new Container(engine, "seer")), THROUGH);
  });

  await t.step("the same container started again is not observed any more", async () => {
    await engine.must(["restart", "--time", "0", "seer"]);
    await nobody();
    assert.equal(await ask(new Container(engine, "seer")), BLOCKED);
  });

  await t.step("a container of the same name that follows is not observed", async () => {
    await create("next", "sleep", "1000");
    await engine.must(["rm", "-f", "next"]);
    await nobody();
    assert.equal(await ask(await stage.run("next", MANAGED)), BLOCKED);
  });

  await t.step("when Docker's events are lost, nobody is observed any more", async () => {
    const last = await create("last", "sleep", "1000");
    assert.equal(await ask(last), THROUGH);
    await engine.machine.must(["sh", "-c", "kill $(cat /var/run/docker.pid)"]);
    await nobody();
  });
});
