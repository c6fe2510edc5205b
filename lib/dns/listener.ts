/** A socket that the DNS filter answers on. */
export interface Listener {
  /** Takes no new query and settles when those in flight are answered. Has no time limit itself. */
  drain(): Promise<void>;
  /** Closes the socket and everything accepted from it. */
  close(): Promise<void>;
}
