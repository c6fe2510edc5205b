import { equal, rejects } from "node:assert/strict";
import type { Agent } from "../../lib/agents.ts";
import { AgentIdentity } from "../../lib/agent/identity.ts";
import { OutcallError } from "../../lib/errors.ts";

const A = "a".repeat(64);
const B = "b".repeat(64);
const SEGMENT = {
  network: "outcall-agent-net",
  bridge: "outcall1",
  subnet: "10.200.0.0/24",
  gateway: "10.200.0.1",
};

function at(address: string, containerId?: string): Agent {
  const agent = { name: containerId === undefined ? "" : "worker", address };
  return {
    ...agent,
    network: SEGMENT.network,
    ...(containerId === undefined ? {} : { containerId }),
  };
}

/** Docker knows container A at .2 and nothing of .3; .4 is claimed by two containers. */
const identity = new AgentIdentity({
  segments: () => [SEGMENT],
  agents: {
    identify: (address) =>
      address === "10.200.0.2" ? at(address, A) : address === "10.200.0.3" ? at(address) : null,
  },
});

function refused(status: number): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof OutcallError && thrown.status === status;
}

Deno.test("a process is the agent whose container and address are both its own (T-4)", async () => {
  const agent = await identity.identify({
    containerId: A,
    addresses: ["172.17.0.5", "10.200.0.2"],
  });
  equal(agent.name, "worker");
});

Deno.test("an address that another container has does not make its agent", async () => {
  await rejects(identity.identify({ containerId: B, addresses: ["10.200.0.2"] }), refused(403));
  await rejects(identity.identify({ containerId: null, addresses: ["10.200.0.2"] }), refused(403));
});

Deno.test("a container that Docker cannot confirm is refused for now (ADV-AGENT-19)", async () => {
  await rejects(identity.identify({ containerId: A, addresses: ["10.200.0.3"] }), refused(503));
});

Deno.test("an address with two claimants is nobody's (ADV-AGENT-17)", async () => {
  await rejects(identity.identify({ containerId: A, addresses: ["10.200.0.4"] }), refused(403));
});

Deno.test("a process without a container is an agent on a managed network only (D5)", async () => {
  equal((await identity.identify({ containerId: null, addresses: ["10.200.0.3"] })).name, "");
  await rejects(identity.identify({ containerId: null, addresses: [] }), refused(403));
  await rejects(identity.identify({ containerId: null, addresses: ["192.168.1.7"] }), refused(403));
});

Deno.test("the host, which has the gateways' addresses, is no agent (ADV-AGENT-01)", async () => {
  await rejects(
    identity.identify({ containerId: null, addresses: ["10.200.0.3", "10.200.0.1"] }),
    refused(403),
  );
});

Deno.test("look-ups at once are bounded (S013-FR-006)", async () => {
  const never = new AgentIdentity({
    segments: () => [],
    agents: { identify: () => answer.promise },
  });
  const answer = Promise.withResolvers<Agent | null>();
  const caller = { containerId: null, addresses: ["10.200.0.3"] };
  const waiting = Array.from({ length: 64 }, () => never.identify(caller));
  await rejects(never.identify(caller), refused(503));
  answer.resolve(at("10.200.0.3"));
  await Promise.all(waiting);
  equal((await never.identify(caller)).address, "10.200.0.3");
});
