/** How each part of the daemon is, as it stands in health, readiness, status and metrics. */
import type { PolicyLoads } from "./api/status.ts";
import type { Bridges } from "./bridge/bridge.ts";
import type { DnsServer } from "./dns/server.ts";
import type { PartHealth } from "./health.ts";
import type { ActivePolicy } from "./policy.ts";
import type { ProxyServer } from "./proxy/server.ts";

/** A part that says itself how it is. */
interface Healthy<T extends PartHealth | null = PartHealth> {
  health(): T;
}

/** The parts. */
export interface Parts {
  readonly bridge: Pick<Bridges, "status">;
  readonly drops: Healthy;
  readonly policy: Pick<ActivePolicy, "loads">;
  readonly dns: Pick<DnsServer, "status" | "workerHealth">;
  /** Null: it is disabled. */
  readonly proxy: Pick<ProxyServer, "status" | "workerHealth"> | null;
  readonly docker: Healthy;
  readonly history: Healthy;
  /** Null unless the state was found damaged. */
  readonly state: Healthy<PartHealth | null>;
  /** Null while nobody is observed. */
  readonly observations: Healthy<PartHealth | null>;
  readonly agentSocketPath: string;
}

/** The health of all parts, in the order in which they are shown. */
export async function healthOf(parts: Parts): Promise<readonly PartHealth[]> {
  const bridge = await parts.bridge.status();
  const dns = parts.dns.status();
  const isEnforcing = bridge.up && bridge.nftables === "active";
  return [
    {
      name: "bridge",
      state: isEnforcing ? "ok" : "failed",
      detail: `${bridge.name} is ${bridge.up ? "up" : "down"}, nftables ${bridge.nftables}`,
    },
    parts.drops.health(),
    rulesHealth(parts.policy.loads()),
    {
      name: "dns",
      state: dns.running ? "ok" : "failed",
      detail: dns.listen_addresses.join(", ") || "not listening",
    },
    parts.dns.workerHealth(),
    ...proxyHealth(parts.proxy),
    parts.docker.health(),
    parts.history.health(),
    ...[parts.state.health(), parts.observations.health()].filter((part) => part !== null),
    agentSocketHealth(parts.agentSocketPath),
  ];
}

function proxyHealth(proxy: Parts["proxy"]): readonly PartHealth[] {
  if (proxy === null) return [{ name: "proxy", state: "ok", detail: "disabled" }];
  const { running, listen_addresses: addresses } = proxy.status();
  const detail = addresses.join(", ") || "not listening";
  return [{ name: "proxy", state: running ? "ok" : "failed", detail }, proxy.workerHealth()];
}

/** Agents find the agent socket by its name alone. */
function agentSocketHealth(path: string): PartHealth {
  const name = "agent_api";
  const isThere = ((): boolean => {
    try {
      return Deno.statSync(path).isSocket === true;
    } catch {
      return false;
    }
  })();
  return isThere
    ? { name, state: "ok", detail: path }
    : { name, state: "degraded", detail: `${path} is not there; the daemon makes it at its start` };
}

/** Rules that were refused are not in force, and would keep the daemon from starting again. */
function rulesHealth({ rules, refusal }: PolicyLoads): PartHealth {
  return refusal === null ? { name: "rule_engine", state: "ok", detail: `${rules} rule(s)` } : {
    name: "rule_engine",
    state: "degraded",
    detail: `${rules} rule(s) of before are in force; the newer ones were refused: ${refusal}`,
  };
}
