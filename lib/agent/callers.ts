/** Who is connected to the agent socket, and how many connections each may have. */
import { OutcallError } from "../errors.ts";
import type { PeerCredentials } from "../linux/peer.ts";
import { type Caller, callerOf } from "./caller.ts";

/** Connections of one agent: a shim has one or two, and agents run a few at once. */
const MAX_CONNECTIONS_PER_AGENT = 32;

/** Connections of all: 128 agents would have to flood together to keep the others out (T-8). */
export const MAX_AGENT_CONNECTIONS = 4_096;

/** Remembers the caller of each connection of the agent socket. */
export class Callers {
  readonly #callers = new WeakMap<PeerCredentials, Caller>();
  readonly #ofProcess = new Tally<number>();
  readonly #ofAgent = new Tally<string>();

  /**
   * Lets a connection in; to be called when it is accepted.
   * @returns What is to be called when it has ended.
   * @throws OutcallError `peer.forbidden` (403), `peer.busy` (429).
   */
  admit(peer: PeerCredentials, fd: number): () => void {
    // To look at a process costs more than to connect: one that floods is not looked at again.
    this.#ofProcess.assertRoom(peer.pid);
    const caller = callerOf(peer, fd);
    const key = caller.containerId ?? caller.addresses.join();
    this.#ofAgent.assertRoom(key);
    this.#ofProcess.add(peer.pid);
    this.#ofAgent.add(key);
    this.#callers.set(peer, caller);
    return () => {
      this.#ofProcess.remove(peer.pid);
      this.#ofAgent.remove(key);
    };
  }

  /** Whose connection it is that has these credentials. */
  of(peer: PeerCredentials): Caller | undefined {
    return this.#callers.get(peer);
  }
}

/** Connections by who has them. */
class Tally<K> {
  readonly #counts = new Map<K, number>();

  /** @throws OutcallError `peer.busy` (429). */
  assertRoom(key: K): void {
    if ((this.#counts.get(key) ?? 0) < MAX_CONNECTIONS_PER_AGENT) return;
    throw new OutcallError(429, "peer.busy", "too many connections of this container");
  }

  add(key: K): void {
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  remove(key: K): void {
    const left = (this.#counts.get(key) ?? 1) - 1;
    if (left === 0) this.#counts.delete(key);
    else this.#counts.set(key, left);
  }
}
