/**
 * From a process to an agent: what the kernel says of it must agree with what Docker says, or, for an
 * agent without Docker, with the cable that was laid to it.
 */
import type { Agent, AgentDirectory } from "../agents.ts";
import type { Segment } from "../bridge/segment.ts";
import { OutcallError } from "../errors.ts";
import type { Caller } from "./caller.ts";

/** S013-FR-006: agents that hammer the socket must not pile up questions to Docker. */
const MAX_LOOKUPS = 64;
const LOOKUP_TIMEOUT_MS = 5_000;

/** What {@linkcode AgentIdentity} works with. */
export interface AgentIdentityOptions {
  readonly agents: AgentDirectory;
  /** The networks under enforcement now. */
  readonly segments: () => readonly Segment[];
  /** The agent without Docker whose cable leads to this network namespace. */
  readonly namespaceAgent: (namespaceId: number) => Agent | undefined;
}

/** Tells which agent a caller is. */
export class AgentIdentity {
  readonly #options: AgentIdentityOptions;
  #lookups = 0;

  constructor(options: AgentIdentityOptions) {
    this.#options = options;
  }

  /**
   * The agent on one of the caller's addresses whose container is the caller's. A process may give
   * its network namespace any address; its control group it cannot choose, and both must agree.
   *
   * A process outside containers is an agent by its network namespace alone: whoever may make
   * namespaces (every user, on most hosts) can give them any address, but no cable to a managed
   * bridge.
   * @throws OutcallError `peer.forbidden` (403), `peer.busy` and `peer.unknown` (503).
   */
  async identify(caller: Caller): Promise<Agent> {
    if (caller.containerId === null) return await this.#withoutContainer(caller);
    const gateways = new Set(this.#options.segments().map(({ gateway }) => gateway));
    // Who has a gateway's address is the host itself.
    if (caller.addresses.some((address) => gateways.has(address))) throw notAnAgent();
    let isUnknown = false;
    for (const address of caller.addresses) {
      const agent = await this.#at(address);
      if (agent === null) continue;
      if (agent.containerId === caller.containerId) return agent;
      // A container at an address that Docker does not know (yet, or because it is away).
      isUnknown ||= agent.containerId === undefined;
    }
    if (isUnknown) {
      throw new OutcallError(
        503,
        "peer.unknown",
        "the container cannot be confirmed at the moment",
        { hint: "Ask again in a few seconds." },
      );
    }
    throw notAnAgent();
  }

  async #withoutContainer({ namespaceId }: Caller): Promise<Agent> {
    const agent = namespaceId === null ? undefined : this.#options.namespaceAgent(namespaceId);
    if (agent === undefined) throw notAnAgent();
    // An address that a container claims as well is nobody's.
    const there = await this.#at(agent.address);
    if (there === null || there.containerId !== undefined) throw notAnAgent();
    return agent;
  }

  async #at(address: string): Promise<Agent | null> {
    const answer = this.#options.agents.identify(address);
    if (!(answer instanceof Promise)) return answer;
    if (this.#lookups >= MAX_LOOKUPS) throw busy();
    this.#lookups++;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(busy()), LOOKUP_TIMEOUT_MS);
    });
    try {
      return await Promise.race([answer, timeout]);
    } finally {
      clearTimeout(timer);
      this.#lookups--;
    }
  }
}

function notAnAgent(): OutcallError {
  return new OutcallError(
    403,
    "peer.forbidden",
    "check-in rejected: the calling process does not belong to a known container",
  );
}

function busy(): OutcallError {
  return new OutcallError(503, "peer.busy", "identity lookup timed out", {
    hint: "Ask again in a few seconds.",
  });
}
