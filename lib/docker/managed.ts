/** What makes a Docker network one of ours (S002-FR-018, S008-FR-032, decisions D3 and D5). */
import type { Segment } from "../bridge/segment.ts";
import { OutcallError } from "../errors.ts";
import { Cidr } from "../net/cidr.ts";
import { Ip } from "../net/ip.ts";
import type { EngineNetwork } from "./engine.ts";

/** Docker names of managed networks, and names made for containers, begin like this. */
export const PREFIX = "outcall-";
/** The network that is there without being asked for. */
export const DEFAULT_NETWORK = "outcall-default";
/** Label on everything the daemon makes in Docker. */
export const OWNER_LABEL = "managed-by";
/** Its value. */
export const OWNER = "outcalld";
/** Option of Docker's bridge driver that names the Linux bridge. */
export const BRIDGE_OPTION = "com.docker.network.bridge.name";

const SUFFIX = /^[A-Za-z0-9_-]{1,64}$/;

/**
 * Docker's name of the network an operator calls `suffix`; without one, the default network's.
 * @throws OutcallError `network.name` (400): S002-FR-011.
 */
export function networkName(suffix: string | undefined): string {
  if (suffix === undefined) return DEFAULT_NETWORK;
  if (!SUFFIX.test(suffix)) {
    throw new OutcallError(
      400,
      "network.name",
      `network name ${JSON.stringify(suffix.slice(0, 80))} is not valid`,
      { hint: `Use 1 to 64 letters, digits, "-" and "_"; "${PREFIX}" is put in front.` },
    );
  }
  return `${PREFIX}${suffix}`;
}

/**
 * Docker's name of a network by the name operators use, or by Docker's; both are accepted.
 * @throws OutcallError `network.name` (400).
 */
export function fullNetworkName(name: string | undefined): string {
  return networkName(name?.startsWith(PREFIX) === true ? name.slice(PREFIX.length) : name);
}

/** The part of a managed network's name behind the prefix, or null when it has none. */
function suffixOf(name: string): string | null {
  const suffix = name.startsWith(PREFIX) ? name.slice(PREFIX.length) : "";
  return SUFFIX.test(suffix) ? suffix : null;
}

/**
 * The kernel's view of a network that is ours, or the reason why it is not. A name proves nothing:
 * whoever may talk to Docker can choose it.
 * @param ownsBridge Whether a bridge of this name can be one of the firewall's.
 */
export function managedSegment(
  network: EngineNetwork,
  ownsBridge: (bridge: string) => boolean,
): Segment | string {
  if (suffixOf(network.Name) === null) return `its name does not begin with ${PREFIX}`;
  if (network.Driver !== "bridge") return `its driver is ${network.Driver}, not bridge`;
  if (network.Labels?.[OWNER_LABEL] !== OWNER) return `it lacks the label ${OWNER_LABEL}=${OWNER}`;
  const bridge = network.Options?.[BRIDGE_OPTION];
  if (bridge === undefined || !ownsBridge(bridge)) return "it is not on a bridge of the firewall";
  if (network.EnableIPv6) return "it has IPv6, which managed networks never have";
  const [config, ...more] = network.IPAM?.Config ?? [];
  const subnet = Cidr.parse(config?.Subnet ?? "");
  const gateway = Ip.parse(config?.Gateway ?? "");
  if (more.length > 0 || subnet?.network.version !== 4) return "it does not have one IPv4 subnet";
  if (gateway === null || !subnet.contains(gateway)) return "its gateway is not in its subnet";
  return {
    network: network.Name,
    bridge,
    subnet: subnet.toString(),
    gateway: gateway.text,
  };
}
