/** The daemon's state on one screen, gathered from its parts when somebody asks. */
import type { AgentDirectory } from "../agents.ts";
import type { BridgeStatus, DecisionService } from "../api/services.ts";
import type { DaemonStatus, PolicyLoads, StatusService } from "../api/status.ts";
import { type PartHealth, worst } from "../health.ts";
import { VERSION } from "../version.ts";
import { attentionTo } from "./attention.ts";
import { blockedOfLate } from "./blocked.ts";

/** Where the state is. */
export interface StatusSources {
  readonly health: () => Promise<readonly PartHealth[]>;
  readonly policy: () => PolicyLoads;
  readonly bridge: () => Promise<BridgeStatus>;
  readonly repairs: () => number;
  /** Addresses of the agents whose ports are pinned. */
  readonly agentAddresses: () => readonly string[];
  readonly identify: AgentDirectory["identify"];
  readonly grants: () => number;
  readonly tunnels: () => number;
  readonly pendingRequests: () => number;
  readonly decisions: Pick<DecisionService, "query">;
}

/** Tells the state of one daemon. */
export class Status implements StatusService {
  readonly #sources: StatusSources;
  readonly #startedAt = new Date().toISOString();

  constructor(sources: StatusSources) {
    this.#sources = sources;
  }

  async status(): Promise<DaemonStatus> {
    const { health, policy, bridge, repairs, grants, tunnels, pendingRequests, decisions } =
      this.#sources;
    const [parts, { last_repair: lastRepair }, agents, blocked] = await Promise.all([
      health(),
      bridge(),
      this.#agents(),
      blockedOfLate(decisions, Date.now()),
    ]);
    const loads = policy();
    return {
      version: VERSION,
      started_at: this.#startedAt,
      ready: worst(parts) !== "failed",
      status: worst(parts),
      parts,
      policy: loads,
      agents,
      grants: grants(),
      tunnels: tunnels(),
      blocked,
      attention: attentionTo({
        parts,
        policy: loads,
        pendingRequests: pendingRequests(),
        repairs: repairs(),
        lastRepair,
      }),
    };
  }

  async #agents(): Promise<DaemonStatus["agents"]> {
    const { agentAddresses, identify } = this.#sources;
    const agents = await Promise.all(agentAddresses().map((address) => identify(address)));
    // One that has no network any more is about to go.
    return agents.filter((agent) => agent !== null)
      .map(({ name, address, network }) => ({ name, address, network }));
  }
}
