/**
 * One attempt on its way through the proxy: what it was admitted by, its one decision record, and
 * the means to end it when policy changes its mind.
 */
import type { Agent } from "../agents.ts";
import type { Attempt, Decision } from "../decision.ts";
import { hostInLog, logger } from "../log.ts";
import type { Admission } from "./admission.ts";
import { Refusal } from "./refusal.ts";
import type { Relay, Tunnel } from "./relay/relay.ts";
import type { BufferedConn } from "./stream.ts";

const log = logger("proxy");

/** A question to policy, asked again after every reload; throws the refusal. */
export type Check = () => Admission;

/** A live attempt. */
export class Exchange {
  readonly #checks: Check[] = [];
  readonly #client: BufferedConn;
  #upstream: BufferedConn | null = null;
  #tunnel: Tunnel | null = null;
  #cut = false;

  /** The decision that was recorded for it; null while none was. */
  decision: Decision | null = null;
  /** The client was sent the beginning of an answer: no other answer can follow. */
  answered = false;

  constructor(
    readonly agent: Agent,
    public attempt: Attempt,
    client: BufferedConn,
  ) {
    this.#client = client;
  }

  /** Asks now, and from now on after every reload; throws what the check throws. */
  hold(check: Check): Admission {
    this.#assertAlive();
    const admission = check();
    this.#checks.push(check);
    return admission;
  }

  /** Takes charge of the connection to upstream; a cut closes it, and so does the end. */
  adopt(upstream: BufferedConn): void {
    this.#upstream?.close();
    this.#upstream = upstream;
    if (this.#cut) upstream.close();
    this.#assertAlive();
  }

  /** It has become a tunnel, or a WebSocket. */
  get relaying(): boolean {
    return this.#tunnel !== null;
  }

  /** Has `relay` move bytes between the client and `upstream` from now on, until that ends. */
  async relay(relay: Relay, upstream: BufferedConn): Promise<void> {
    this.#assertAlive();
    const tunnel = this.#tunnel = relay.start(this.#client.handOver(), upstream.handOver());
    const report = await tunnel.ended;
    log.debug("tunnel of {agent} to {host} {end}: {upBytes} bytes up, {downBytes} down", {
      agent: this.agent.name,
      host: hostInLog(this.attempt.host ?? ""),
      ...report,
    });
  }

  /** Lets go of the connection to upstream, for another request; false when it was cut. */
  release(): boolean {
    this.#upstream = null;
    return !this.#cut;
  }

  /** Why the policy in force now would not admit it; null while it would. */
  recheck(): Refusal | null {
    try {
      for (const check of this.#checks) check();
      return null;
    } catch (thrown) {
      return thrown instanceof Refusal
        ? thrown
        : new Refusal(403, "connect", "rule_error", "policy could not be evaluated");
    }
  }

  /** Closes everything it holds; whatever it still waits for fails. */
  cut(): void {
    this.#cut = true;
    this.#tunnel?.cut();
    this.#client.close();
    this.end();
  }

  /** Closes what it holds upstream; the client may go on to another exchange. */
  end(): void {
    this.#upstream?.close();
  }

  #assertAlive(): void {
    if (this.#cut) throw new Refusal(403, "connect", "default", "policy has changed");
  }
}
