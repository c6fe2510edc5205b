/** Decisions to record. */
import type { NewDecision } from "../../lib/decision.ts";

/** A blocked question of the agent `worker`. */
export function blockedName(host: string): NewDecision {
  return {
    generation: 1,
    layer: "dns",
    agent: {
      name: "worker",
      containerId: "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90",
      address: "10.200.0.2",
      network: "outcall-agent-net",
    },
    source: "10.200.0.2",
    attempt: { host, recordType: "A" },
    verdict: "block",
    reason: "default",
    rule: null,
  };
}
