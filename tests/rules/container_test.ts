/** Whether the rules let a container be created. */
import assert from "node:assert/strict";
import { ContainerRules, type ContainerVerdict } from "../../lib/rules/container.ts";
import { policyOf, type RuleSpec } from "./support.ts";

const FACTS = {
  agent: { name: "builder" },
  docker: {
    image: "team/agent:1",
    command: ["sh", "-c", "true"],
    volumes: ["/srv/work:/work:ro"],
    env_keys: ["TOKEN"],
    capabilities: [],
  },
};

function judge(...rules: readonly RuleSpec[]): ContainerVerdict {
  return new ContainerRules(policyOf(...rules)).judge(FACTS);
}

Deno.test("without a rule on docker.* a container is permitted", () => {
  assert.equal(judge().permitted, true);
  const { permitted, verdict } = judge({ condition: 'http.host == "x.org"' });
  assert.deepEqual([permitted, verdict.reason], [true, "default"]);
});

Deno.test("rules about traffic do not keep a container from being created", () => {
  for (const condition of ["true", 'agent.name == "builder"', 'network.hostname != ""']) {
    assert.equal(judge({ action: "block", condition }).permitted, true, condition);
  }
});

Deno.test("a block rule on docker.* that is true refuses, any other does not", () => {
  const blocks = (condition: string): boolean => !judge({ action: "block", condition }).permitted;
  assert.equal(blocks('docker.image.startsWith("team/")'), true);
  assert.equal(blocks('docker.command.exists(a, a == "-c")'), true);
  assert.equal(blocks('docker.volumes.exists(v, v.startsWith("/srv"))'), true);
  assert.equal(blocks('"TOKEN" in docker.env_keys && agent.name == "builder"'), true);
  assert.equal(blocks('docker.image == "other:1"'), false);
  assert.equal(blocks("docker.capabilities.size() > 0"), false);
  // Nothing of a run is known when a container is created.
  assert.equal(blocks('docker.image == "team/agent:1" && run.tool == "git"'), false);
});

Deno.test("a block rule on docker.* that fails refuses (D9)", () => {
  const { permitted, verdict } = judge({
    action: "block",
    condition: 'docker.command[7] == "x"',
  });
  assert.deepEqual([permitted, verdict.reason], [false, "rule_error"]);
});

Deno.test("from the first allow rule on docker.* on, one must match", () => {
  assert.equal(judge({ id: "list", condition: 'docker.image == "other:1"' }).permitted, false);
  const { permitted, verdict } = judge(
    { id: "list", condition: 'docker.image == "other:1"' },
    { id: "team", condition: 'docker.image.startsWith("team/")' },
  );
  assert.deepEqual([permitted, verdict.rule?.id], [true, "team"]);
  // An allow rule about traffic is none about containers.
  assert.equal(judge({ condition: 'http.host == "x.org"' }).permitted, true);
});

Deno.test("an allow rule that cannot be known does not permit", () => {
  const condition = 'docker.image == "team/agent:1" && http.host == "x.org"';
  assert.equal(judge({ condition }).permitted, false);
});
