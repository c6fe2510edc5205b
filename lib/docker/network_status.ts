/** How managed networks are shown. */
import type { Agent } from "../agents.ts";
import type { NetworkStatus } from "../api/services.ts";
import type { Segment } from "../bridge/segment.ts";
import type { EngineNetwork } from "./engine.ts";

/** Of a name that no network has. */
export function absentStatus(name: string): NetworkStatus {
  return {
    exists: false,
    network_id: null,
    name,
    bridge: null,
    subnet: null,
    gateway: null,
    containers: [],
  };
}

/** Of a network, with the containers on it and the agents that are none. */
export function presentStatus(
  network: EngineNetwork,
  segment: Segment,
  namespaceAgents: readonly Agent[],
): NetworkStatus {
  const containers = Object.values(network.Containers ?? {}).map((container) => ({
    name: container.Name,
    // Docker adds the subnet's prefix length.
    ipv4_address: container.IPv4Address.split("/")[0] ?? "",
  }));
  for (const { name, address } of namespaceAgents) {
    containers.push({ name: name === "" ? `(unnamed, ${address})` : name, ipv4_address: address });
  }
  return {
    exists: true,
    network_id: network.Id,
    name: network.Name,
    bridge: segment.bridge,
    subnet: segment.subnet,
    gateway: segment.gateway,
    containers: containers.sort((a, b) => a.name < b.name ? -1 : 1),
  };
}
