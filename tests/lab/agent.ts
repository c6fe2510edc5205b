/** A namespace agent: a machine on a managed bridge, as a container would be, without Docker. */
import { connect, Machine } from "./machine.ts";

/** Where an agent is put. */
export interface AgentPlace {
  /** Managed bridge on the host. */
  readonly bridge: string;
  /** Address in the bridge's subnet, with prefix length, such as `10.200.255.10/24`. */
  readonly address: string;
  /** The bridge's gateway: resolver, proxy and default route of the agent. */
  readonly gateway: string;
}

/** The default network's bridge (its subnet is the last /24 of the block, decision D4). */
export const DEFAULT_PLACE: AgentPlace = {
  bridge: "outcall0",
  address: "10.200.255.10/24",
  gateway: "10.200.255.1",
};

/** The variables that make programs use the proxy; curl reads `http_proxy` in lower case only. */
export function proxyVariables(gateway: string, port = 8080): Record<string, string> {
  const url = `http://${gateway}:${port}`;
  return { HTTP_PROXY: url, HTTPS_PROXY: url, http_proxy: url, https_proxy: url };
}

let cables = 0;

/**
 * Waits until the daemon has pinned the port, as it does for a container before its program starts.
 * Without a daemon nothing is pinned, and the agent stays cut off.
 */
const AWAIT_PIN = `
for attempt in {1..100}; do
  pinned=$(nft list set bridge outcall pinned 2> /dev/null) || exit 0
  [[ $pinned == *"\"$1\""* ]] && exit 0
  sleep 0.02
done`;

/** Starts an agent at `place`, which trusts `rootPem`. */
export async function startAgent(
  host: Machine,
  rootPem: string,
  place: AgentPlace = DEFAULT_PLACE,
): Promise<Machine> {
  const agent = await Machine.start("agent");
  try {
    const port = `agent${cables++}`;
    await connect({ machine: host, interface: port }, {
      machine: agent,
      interface: "eth0",
      address: place.address,
    });
    await host.must(["ip", "link", "set", port, "master", place.bridge]);
    await host.must(["bash", "-c", AWAIT_PIN, "await-pin", port]);
    await agent.must(["ip", "route", "add", "default", "via", place.gateway]);
    await agent.useResolver(place.gateway);
    await agent.trust(rootPem);
    return agent;
  } catch (thrown) {
    await agent[Symbol.asyncDispose]();
    throw thrown;
  }
}
