/** What a new managed network is to be, before anything is made of it. */
import type { NetworkCreateRequest } from "../api/services.ts";
import type { Segment } from "../bridge/segment.ts";
import { OutcallError } from "../errors.ts";
import type { Cidr } from "../net/cidr.ts";
import type { EngineNetwork, EngineNetworkSpec } from "./engine.ts";
import { BRIDGE_OPTION, DEFAULT_NETWORK, OWNER, OWNER_LABEL } from "./managed.ts";
import { type HostRoute, networkClaims, planAddresses, routeClaims } from "./subnets.ts";

/** What there is already. */
export interface Surroundings {
  /** All of Docker's. */
  readonly networks: readonly EngineNetwork[];
  /** Those under enforcement. */
  readonly attached: readonly Segment[];
  /** The first bridge name not in `taken`; with nothing taken, the default network's bridge. */
  readonly nextBridge: (taken: readonly string[]) => string;
  /** The private block subnets are taken from. */
  readonly block: Cidr;
  /** The host's IPv4 routes now. */
  readonly hostRoutes: () => readonly HostRoute[];
}

/**
 * Chooses the bridge and the addresses of a network (decisions D3 and D4).
 * @throws OutcallError `network.bridge_taken`, `network.overlap`, `network.exhausted` (409).
 */
export function planSegment(
  name: string,
  request: NetworkCreateRequest,
  { networks, attached, nextBridge, block, hostRoutes }: Surroundings,
): Segment {
  const isDefault = name === DEFAULT_NETWORK;
  const defaultBridge = nextBridge([]);
  const taken = [
    ...networks.flatMap(({ Options }) => Options?.[BRIDGE_OPTION] ?? []),
    // Attached, but not (or not yet) known to Docker: a create that went unanswered.
    ...attached.filter(({ network }) => network !== name)
      .map(({ bridge }) => bridge),
  ];
  if (isDefault && taken.includes(defaultBridge)) {
    throw new OutcallError(
      409,
      "network.bridge_taken",
      `another Docker network uses bridge ${defaultBridge}`,
      { hint: "Remove that network, or start the daemon with another --bridge." },
    );
  }
  const bridge = isDefault ? defaultBridge : nextBridge([defaultBridge, ...taken]);
  const subnetsOf = ({ Name, IPAM }: EngineNetwork): { name: string; subnets: string[] } => ({
    name: Name,
    subnets: (IPAM?.Config ?? []).flatMap(({ Subnet }) => Subnet ?? []),
  });
  const claims = [
    ...networkClaims(networks.map(subnetsOf)),
    ...routeClaims(hostRoutes(), bridge),
  ];
  const from = isDefault ? "top" : "bottom";
  const { subnet, gateway } = planAddresses(request, block, claims, from);
  return { network: name, bridge, subnet: subnet.toString(), gateway: gateway.text };
}

/** What Docker is asked to make of it. */
export function creationOf(segment: Segment): EngineNetworkSpec {
  return {
    Name: segment.network,
    CheckDuplicate: true,
    Driver: "bridge",
    EnableIPv6: false,
    IPAM: {
      Driver: "default",
      Config: [{ Subnet: segment.subnet, Gateway: segment.gateway }],
    },
    Options: {
      [BRIDGE_OPTION]: segment.bridge,
      // A second fence between containers, beside the firewall's.
      "com.docker.network.bridge.enable_icc": "false",
    },
    Labels: { [OWNER_LABEL]: OWNER },
  };
}
