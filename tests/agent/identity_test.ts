import { equal, rejects } from "node:assert/strict";
import type { Agent } from "../../lib/agents.ts";
import type { Caller } from "../../lib/agent/caller.ts";
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

/** A process in a container. */
const inside = (containerId: string, ...addresses: readonly string[]): Caller => ({
  containerId,
  addresses,
  namespaceId: 2,
});
/** A process in no container, in network namespace `namespaceId`. */
const outside = (namespaceId: number | null, ...addresses: readonly string[]): Caller => ({
  containerId: null,
  addresses,
  namespaceId,
});

/**
 * Docker knows container A at .2 and nothing of .3; .4 is claimed by two containers. Cables lead to
 * namespace 7, whose agent is at .3, and to 8, whose agent's address a container has as well.
 */
const identity = new AgentIdentity({
  segments: () => [SEGMENT],
  namespaceAgent: (id) => id === 7 ? at("10.200.0.3") : id === 8 ? at("10.200.0.4") : undefined,
  agents: {
    identify: (address) =>
      address === "10.200.0.2" ? at(address, A) : address === "10.200.0.3" ? at(address) : null,
  },
});

function refused(status: number): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof OutcallError && thrown.status === status;
}

Deno.test("a process is the agent whose container and address are both its own (T-4)", async () => {
  const agent = await identity.identify(inside(A, "172.17.0.5", "10.200.0.2"));
  equal(agent.name, "worker");
});

Deno.test("an address that another container has does not make its agent", async () => {
  await rejects(identity.identify(inside(B, "10.200.0.2")), refused(403));
  await rejects(identity.identify(outside(null, "10.200.0.2")), refused(403));
});

Deno.test("a container that Docker cannot confirm is refused for now (ADV-AGENT-19)", async () => {
  await rejects(identity.identify(inside(A, "10.200.0.3")), refused(503));
});

Deno.test("an address with two claimants is nobody's (ADV-AGENT-17)", async () => {
  await rejects(identity.identify(inside(A, "10.200.0.4")), refused(403));
});

Deno.test("a process without a container is the agent that its namespace's cable was laid for (D5)", async () => {
  equal((await identity.identify(outside(7, "10.200.0.3"))).address, "10.200.0.3");
  // Any user can make a namespace and give it another agent's address, but no cable.
  await rejects(identity.identify(outside(null, "10.200.0.3")), refused(403));
  await rejects(identity.identify(outside(9, "10.200.0.3")), refused(403));
  equal((await identity.identify(outside(7, "10.200.0.2"))).address, "10.200.0.3");
  await rejects(identity.identify(outside(8, "10.200.0.4")), refused(403)); // ADV-AGENT-17
});

Deno.test("a container in the host's network, which has the gateways' addresses, is no agent", async () => {
  await rejects(identity.identify(inside(A, "10.200.0.2", "10.200.0.1")), refused(403));
});

Deno.test("look-ups at once are bounded (S013-FR-006)", async () => {
  const never = new AgentIdentity({
    segments: () => [],
    namespaceAgent: () => undefined,
    agents: { identify: () => answer.promise },
  });
  const answer = Promise.withResolvers<Agent | null>();
  const caller = inside(A, "10.200.0.3");
  const waiting = Array.from({ length: 64 }, () => never.identify(caller));
  await rejects(never.identify(caller), refused(503));
  answer.resolve(at("10.200.0.3", A));
  await Promise.all(waiting);
  equal((await never.identify(caller)).address, "10.200.0.3");
});
