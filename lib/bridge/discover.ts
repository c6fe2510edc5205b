/** Finds the managed networks of an earlier run. */
import type { RouteNetlink } from "../linux/rtnetlink.ts";
import { Cidr } from "../net/cidr.ts";
import { Ip } from "../net/ip.ts";
import { isManagedName } from "./names.ts";
import type { Segment } from "./segment.ts";

/**
 * The managed networks that the kernel shows: bridges named as ours with an address inside `block`.
 * Until Docker tells its name, a network goes by its bridge's.
 */
export function discoverSegments(
  netlink: RouteNetlink,
  defaultBridge: string,
  block: Cidr,
): Segment[] {
  const addresses = netlink.addresses();
  const bridges = netlink.links().filter((link) =>
    link.kind === "bridge" && isManagedName(defaultBridge, link.name)
  );
  return bridges.flatMap((link) => {
    for (const { linkIndex, address, prefixLength } of addresses) {
      const ip = Ip.parse(address);
      if (linkIndex !== link.index || ip === null) continue;
      const subnet = Cidr.containing(ip, prefixLength);
      if (!subnet.within(block)) continue;
      return [{
        network: link.name,
        bridge: link.name,
        subnet: subnet.toString(),
        gateway: address,
      }];
    }
    return [];
  });
}
