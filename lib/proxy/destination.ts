/** Where a host is. */
import type { Ip } from "../net/ip.ts";

/** One address of a host. */
export interface Destination {
  readonly ip: Ip;
  /** It belongs to this host or to its agents, who do not reach each other (T-2): never dialled. */
  readonly isLocal: boolean;
}
