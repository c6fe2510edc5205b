/**
 * Who is asking: an agent is whatever sits on an address of a managed network.
 *
 * Identity is never taken from what an agent sends; it is the source address, looked up in what
 * Docker says about our networks (lib/docker/identity.ts).
 */
import type { Facts } from "./rules/types.ts";

/** One agent as the enforcement points see it. */
export interface Agent {
  /**
   * The name rules compare with (`agent.name`): the container's name without a trailing `-<digits>`.
   * Empty while Docker does not know the address (yet): no rule that names an agent matches then.
   */
  readonly name: string;
  /** Full 64-digit container id; absent for a namespace agent or while Docker does not know it. */
  readonly containerId?: string;
  /** Name of the host's end of a namespace agent's cable; absent for a container. */
  readonly cable?: string;
  /** IPv4 address on the managed network, dotted decimal. */
  readonly address: string;
  /** Docker's full name of the managed network, such as `outcall-agent-net`. */
  readonly network: string;
}

/** What the rules, and an observation, know of an agent. */
export function agentFacts({ name, containerId, cable }: Agent): NonNullable<Facts["agent"]> {
  const key = containerId ?? cable;
  return key === undefined ? { name } : { name, key };
}

/** Whether one is the other; rules judge by name, and a name may be given to another container. */
export function isSameAgent(one: Agent, other: Agent | null): boolean {
  return one.containerId === other?.containerId && one.cable === other?.cable &&
    one.name === other?.name;
}

/** Looks agents up by source address. */
export interface AgentDirectory {
  /**
   * The agent at `address` (dotted decimal), or null when it lies outside every managed network:
   * DNS answers REFUSED then, and the proxy closes. Answers at once when the address is known;
   * asks Docker (bounded in time) when it is not.
   */
  identify(address: string): Agent | null | Promise<Agent | null>;
}
