/** `outcall status` of the real daemon, well and unwell. */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { EXAMPLE_ADDRESS } from "../lab/internet/world.ts";
import { Lab } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";
import { ALLOW_EXAMPLE } from "./rules.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "dig", "ping"];

labTest("outcall status tells what is up, loaded and blocked, and what needs the operator", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  await lab.startDaemon({ rules: { "a.yaml": ALLOW_EXAMPLE } });
  const agent = await lab.agent();

  await t.step("parts, rules, agents and the last hour", async () => {
    for (let i = 0; i < 3; i++) {
      await agent.run(["dig", "+short", "+time=2", "+tries=1", "blocked.example"]);
    }
    await agent.run(["ping", "-c1", "-W1", EXAMPLE_ADDRESS]);
    let shown = "";
    await eventually(async () => {
      const { code, stdout } = await lab.cli("status");
      assert.equal(code, 0, stdout);
      shown = stdout;
      return /kernel +icmp 93\.184\.216\.34/.test(stdout) && /3 +\S+ +dns/.test(stdout);
    });
    assert.match(shown, /^outcalld [\d.]+: ready, /);
    for (const part of ["bridge", "kernel_log", "rule_engine", "dns", "dns_worker", "proxy"]) {
      assert.match(shown, new RegExp(`^${part} +ok `, "m"));
    }
    for (const part of ["proxy_worker", "history", "agent_api"]) {
      assert.match(shown, new RegExp(`^${part} +ok `, "m"));
    }
    assert.match(shown, /^Rules: +1 from 1 file, generation \d+, loaded \d{4}-/m);
    assert.match(shown, /^Agents: +1: 10\.200\.255\.10$/m);
    assert.match(shown, /^3 +10\.200\.255\.10 +dns +blocked\.example A +default +\w{17}$/m);
    assert.match(
      shown,
      /^1 +10\.200\.255\.10 +kernel +icmp 93\.184\.216\.34 +forward_denied +\w{17}$/m,
    );
  });

  await t.step("a refused reload, with the command that shows why", async () => {
    await lab.writeRules({ "a.yaml": "rules: 7" });
    assert.equal((await lab.cli("rules", "reload")).code, 1);
    const { code, stdout } = await lab.cli("status");
    assert.equal(code, 0);
    assert.match(stdout, /^rule_engine +degraded 1 rule\(s\) of before are in force; /m);
    assert.match(stdout, /^ +rule_engine degraded: .*\n +outcall rules check$/m);
  });

  await t.step("another program's change of the firewall, put right", async () => {
    await lab.host.must(["nft", "flush", "ruleset"]);
    await eventually(async () =>
      /another program changed the firewall \(the firewall was changed\); it was put right once, last at .*\n +outcall bridge status$/m
        .test((await lab.cli("status")).stdout)
    );
  });

  await t.step("an agent socket that was removed", async () => {
    await lab.host.must(["rm", "/run/outcall/agent.sock"]);
    assert.match((await lab.cli("status")).stdout, /^agent_api +degraded /m);
  });

  await t.step("a daemon that does not enforce is not ready, and exit code 1 says so", async () => {
    await agent[Symbol.asyncDispose]();
    await eventually(async () => (await lab.cli("bridge", "down")).code === 0);
    const { code, stdout } = await lab.cli("status");
    assert.equal(code, 1);
    assert.match(stdout, /^outcalld [\d.]+: NOT READY, failed, /);
    assert.match(stdout, /Needs you:\n +bridge failed: .*\n +outcall bridge up$/m);
    assert.equal((await lab.cli("bridge", "up")).code, 0);
    assert.equal((await lab.cli("status")).code, 0);
  });
});
