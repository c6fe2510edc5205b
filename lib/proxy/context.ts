/** What the proxy needs of the daemon around it. */
import type { Agent } from "../agents.ts";
import type { Host } from "../net/host.ts";
import type { PolicyInForce } from "./admission.ts";
import type { Destination } from "./destination.ts";
import type { EventLoop } from "./loop.ts";
import type { Tunnels } from "./tunnels.ts";

/** Limits of the proxy; times in milliseconds. */
export interface ProxyLimits {
  /** From the first byte of a request head to its last. */
  readonly headMs: number;
  /** From the 200 of a tunnel to the end of the ClientHello. */
  readonly helloMs: number;
  readonly resolveMs: number;
  /** For all addresses of a name together. */
  readonly connectMs: number;
  /** Without a byte either way. */
  readonly idleMs: number;
  /** For connections that are busy when the proxy stops. */
  readonly drainMs: number;
  /** Client connections, tunnels included, of all agents. */
  readonly maxConnections: number;
  /** Client connections, tunnels included, of one agent. */
  readonly maxConnectionsPerAgent: number;
}

/**
 * S006-FR-010, -011 and -015. One package manager opens some 300 tunnels at once, so 512 for an
 * agent. All together have eight times as many, at two descriptors each still far below the usual
 * limit of open files.
 */
export const DEFAULT_LIMITS: ProxyLimits = {
  headMs: 10_000,
  helloMs: 10_000,
  resolveMs: 10_000,
  connectMs: 10_000,
  idleMs: 300_000,
  drainMs: 5_000,
  maxConnections: 4096,
  maxConnectionsPerAgent: 512,
};

/** The parts that handling a request uses. */
export interface ProxyContext extends PolicyInForce {
  /**
   * Where a host is, by the daemon's own resolver, without any address policy. Rejects with a
   * {@linkcode LookupError}.
   */
  readonly locate: (
    host: Host,
    agent: Agent,
  ) => readonly Destination[] | Promise<readonly Destination[]>;
  readonly limits: ProxyLimits;
  readonly loop: EventLoop;
  /** Is told how long each connection to a destination took, and whether there is one. */
  readonly onDial: (durationMs: number, isConnected: boolean) => void;
  /** Moves the bytes of tunnels. */
  readonly tunnels: Tunnels;
}
