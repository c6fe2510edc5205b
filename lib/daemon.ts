/** The daemon, from its flags to its exit code. */
import { join } from "node:path";
import { Bridges } from "./bridge/bridge.ts";
import { claimFirewall } from "./claim.ts";
import type { DaemonConfig } from "./config.ts";
import { stepsOf } from "./daemon/steps.ts";
import { Subsystems } from "./daemon/subsystems.ts";
import { runUntilSignal, type Step } from "./lifecycle.ts";
import { bookkeepingUrgency, setThreadUrgency } from "./linux/priority.ts";
import { configureLogs, logger } from "./log.ts";

/**
 * The daemon's steps. What comes first is that nothing is open: whatever is wrong with flags, state or
 * machine is found out behind the firewall.
 */
function* allSteps(config: DaemonConfig): Generator<Step, void> {
  // A second daemon would close what the first one serves, and protect nothing that is not protected.
  claimFirewall();
  const bridges = new Bridges({
    name: config.bridge,
    subnetBlock: config.subnetBlock,
    dnsPort: config.dns.port,
    proxyPort: config.proxy?.port ?? null,
    memoryPath: join(config.stateDir, "bridges"),
  });
  yield {
    target: "bridge",
    start: async () => {
      await bridges.up();
      return "agents are cut off until everything is in place";
    },
  };
  yield* stepsOf(new Subsystems(config, bridges));
}

/**
 * Runs the daemon until a signal ends it.
 * @returns the exit code: 0 after a signal, 1 when start-up failed.
 */
export async function runDaemon(config: DaemonConfig): Promise<number> {
  setThreadUrgency(bookkeepingUrgency());
  for (const directive of await configureLogs(config.logs)) {
    logger("host_api").warn("OUTCALL_LOG: {directive} is not understood", { directive });
  }
  return await runUntilSignal(() => allSteps(config));
}
