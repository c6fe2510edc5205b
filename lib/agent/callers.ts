/** Who is connected to the agent socket, and how many connections each may have. */
import { OutcallError } from "../errors.ts";
import type { PeerCredentials } from "../linux/peer.ts";
import { type Caller, callerOf } from "./caller.ts";

/**
 * Connections of one agent: a shim has one or two, and agents run a few at once. The server takes
 * 256 in all, so that no agent keeps the others out (T-8).
 */
const MAX_CONNECTIONS_PER_AGENT = 32;

/** Remembers the caller of each connection of the agent socket. */
export class Callers {
  readonly #callers = new WeakMap<PeerCredentials, Caller>();
  readonly #connections = new Map<string, number>();

  /**
   * Lets a connection in; to be called when it is accepted.
   * @returns What is to be called when it has ended.
   * @throws OutcallError `peer.forbidden` (403), `peer.busy` (429).
   */
  admit(peer: PeerCredentials, fd: number): () => void {
    const caller = callerOf(peer, fd);
    const key = caller.containerId ?? caller.addresses.join();
    const count = this.#connections.get(key) ?? 0;
    if (count >= MAX_CONNECTIONS_PER_AGENT) {
      throw new OutcallError(429, "peer.busy", "too many connections of this container");
    }
    this.#connections.set(key, count + 1);
    this.#callers.set(peer, caller);
    return () => {
      const left = (this.#connections.get(key) ?? 1) - 1;
      if (left === 0) this.#connections.delete(key);
      else this.#connections.set(key, left);
    };
  }

  /** Whose connection it is that has these credentials. */
  of(peer: PeerCredentials): Caller | undefined {
    return this.#callers.get(peer);
  }
}
