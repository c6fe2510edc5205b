/** A socket that the DNS filter answers on. */
export interface Listener {
  /**
   * Takes no new query and settles when those in flight are answered. Has no time limit itself. The
   * port stays ours, or another program could take it.
   */
  drain(): Promise<void>;
  /** Closes the socket and everything accepted from it. */
  close(): Promise<void>;
}
