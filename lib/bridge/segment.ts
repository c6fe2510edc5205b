/** A managed network as the kernel sees it: one bridge, one subnet, one gateway. */
export interface Segment {
  /** Docker's full network name, such as `outcall-agent-net`. */
  readonly network: string;
  /** The Linux bridge that carries it, such as `outcall1`. */
  readonly bridge: string;
  /** IPv4 subnet in CIDR form, such as `10.200.0.0/24`. */
  readonly subnet: string;
  /** The gateway's IPv4 address on the bridge, where DNS filter and proxy listen. */
  readonly gateway: string;
}

/** The gateways (dotted decimal) at which our services hold their ports now. */
export interface Listening {
  readonly dns: readonly string[];
  readonly proxy: readonly string[];
}

/** Nothing listens anywhere: agents reach nothing. */
export const NOTHING_LISTENS: Listening = { dns: [], proxy: [] };

/** A service with one listener per gateway (DNS filter, proxy): follows networks as they come and go. */
export interface GatewayService {
  /**
   * Listens on exactly these gateways: opens what is new, closes what is gone, keeps the rest.
   * Throws when a new one cannot be bound; what was being served goes on being served.
   */
  serve(gateways: readonly string[]): Promise<void>;
  /**
   * Turns away who comes new, lets what is under way end for a few seconds, and ends the rest. It keeps
   * its ports: as long as the firewall lets agents come there, no other program may take them. Never
   * rejects.
   * @param atOnce When it is aborted, the rest ends now.
   */
  drain(atOnce?: AbortSignal): Promise<void>;
  /** Gives up its ports, and whatever {@linkcode drain} would have ended. */
  stop(): Promise<void>;
  /** The addresses at which it listens now. */
  status(): { readonly listen_addresses: readonly string[] };
}
