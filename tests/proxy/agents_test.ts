/** Connections and the agents they belong to: shown by agent, and ended with it. */
import assert from "node:assert/strict";
import type { Agent } from "../../lib/agents.ts";
import { eventually } from "../eventually.ts";
import { Origin } from "./raw.ts";
import { AGENT, getRequest, Lab, ok } from "./support.ts";

/** A lab whose directory says at every moment what the test wants it to say. */
async function labWith(origin: Origin): Promise<{ lab: Lab; become(agent: Agent | null): void }> {
  let agent: Agent | null = AGENT;
  const lab = await Lab.start({
    rules: [{ condition: "true", egress: `allow_private_ips: true, ports: [${origin.port}]` }],
    agents: { identify: () => agent },
  });
  return { lab, become: (other) => agent = other };
}

Deno.test("status() shows live tunnels by agent, and only while they live", async () => {
  await using origin = Origin.echoing();
  const { lab } = await labWith(origin);
  await using _lab = lab;
  using _idle = await lab.connect();
  const first = await lab.tunnelTo(origin);
  using _second = await lab.tunnelTo(origin);
  const shown = { agent: "worker", address: "127.0.0.1" };
  await lab.proxy.settle();
  assert.deepEqual(lab.proxy.status().tunnels, [{ ...shown, count: 2 }]);
  first[Symbol.dispose]();
  await eventually(() => lab.proxy.status().tunnels[0]?.count === 1);
});

for (
  const [what, successor] of [
    ["ended", null],
    ["was replaced at its address", { ...AGENT, containerId: "d".repeat(64) }],
    ["got another name", { ...AGENT, name: "other" }],
    ["is no longer known", { ...AGENT, name: "", containerId: "" }],
  ] as const
) {
  Deno.test(`a container that ${what} takes its connections with it, busy and idle ones`, async () => {
    await using origin = new Origin(async (client) => {
      if ((await client.until(/[^]/)).startsWith("G")) await client.send(ok("x"));
      else await client.send("echo this");
      await client.rest();
    });
    const { lab, become } = await labWith(origin);
    await using _lab = lab;
    using tunnel = await lab.tunnelTo(origin);
    using idle = await lab.connect();
    await idle.send(getRequest(`http://a.example:${origin.port}/`));
    await idle.until(/x$/);

    await lab.proxy.reidentify();
    assert.equal(lab.proxy.status().active_connections, 2); // it is still the same one

    become(successor);
    await lab.proxy.reidentify();
    assert.equal(await tunnel.rest(), "");
    assert.equal(await idle.rest(), "");
    await eventually(() => lab.proxy.status().active_connections === 0);
  });
}

Deno.test("an agent that changes while it is being identified is identified again", async () => {
  await using origin = Origin.answering(ok("x"));
  const asked = Promise.withResolvers<void>();
  const answers = [Promise.withResolvers<Agent>()];
  let questions = 0;
  await using lab = await Lab.start({
    rules: [{ condition: 'agent.name == "worker"' }],
    agents: {
      identify: () => {
        const answer = answers[questions++];
        asked.resolve();
        return answer?.promise ?? { ...AGENT, name: "successor" };
      },
    },
  });
  const exchange = lab.exchange(getRequest(`http://a.example:${origin.port}/`));
  await asked.promise;
  await lab.proxy.reidentify(); // Docker says: somebody else now
  answers[0]?.resolve(AGENT); // and here comes what it said before
  assert.match(await exchange, /^HTTP\/1\.1 403 /);
  assert.deepEqual(origin.received, []);
});

Deno.test("a request that was read before its agent was gone is not sent in the name of the next one", async () => {
  await using origin = Origin.answering(ok("x"));
  const looking = Promise.withResolvers<void>();
  const found = Promise.withResolvers<Agent>();
  let isGone = false;
  await using lab = await Lab.start({
    rules: [{ condition: "true", egress: `allow_private_ips: true, ports: [${origin.port}]` }],
    agents: {
      identify: () => {
        if (!isGone) return AGENT;
        looking.resolve();
        return found.promise;
      },
    },
  });
  using client = await lab.connect();
  await client.send(getRequest(`http://a.example:${origin.port}/first`));
  await client.until(/x$/);
  isGone = true;
  const ended = lab.proxy.reidentify();
  await looking.promise;
  await client.send(getRequest(`http://a.example:${origin.port}/second`));
  for (let i = 0; i < 10; i++) await lab.proxy.settle(); // it is read by then
  found.resolve({ ...AGENT, name: "successor", containerId: "d".repeat(64) });
  await ended;
  assert.equal(await client.rest(), "");
  await lab.proxy.settle();
  assert.deepEqual((await lab.recent()).map(({ agent }) => agent?.name), ["worker"]);
  assert.equal(origin.received.length, 1);
});
