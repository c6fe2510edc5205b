/** What passes between the proxy and its relay thread. */

/** The first message. */
export interface Start {
  /** Descriptor of the counter that wakes the thread; one is added for each message. */
  readonly wakeFd: number;
  /** A tunnel without a byte either way for this long is ended. */
  readonly idleMs: number;
}

/** To the thread. */
export type ToThread =
  /** Both descriptors stay the sender's, who closes them when the tunnel was reported ended. */
  | {
    readonly kind: "tunnel";
    readonly id: number;
    readonly clientFd: number;
    readonly upstreamFd: number;
  }
  | { readonly kind: "end" };

/** How a tunnel ended: by both sides' closing, by a connection that broke, by silence. */
export type TunnelEnd = "closed" | "broken" | "idle";

/** It has stopped using a tunnel's descriptors. */
export interface Ended {
  readonly id: number;
  readonly end: TunnelEnd;
  /** From client to upstream. */
  readonly upBytes: number;
  /** From upstream to client. */
  readonly downBytes: number;
}

/** The thread has ended as it was told to, and uses nothing any more. */
export const GONE = "gone";

/** From the thread. */
export type FromThread = Ended | typeof GONE;
