/**
 * One attempt on its way through the proxy: what it was admitted by, its one decision record, and
 * the means to end it when policy changes its mind.
 */
import type { Agent } from "../agents.ts";
import type { Attempt, Decision, TunnelEnd, TunnelUse } from "../decision.ts";
import type { Admission } from "./admission.ts";
import { Refusal } from "./refusal.ts";
import type { Tunnel, Tunnels } from "./tunnels.ts";
import type { BufferedConn } from "./stream.ts";

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
  /** The one by which it was admitted, which grows by what becomes of it. */
  admitted: Decision | null = null;
  /** Of a tunnel that has ended. */
  use: TunnelUse | null = null;
  /** When its request had arrived, of `performance.now()`. */
  startedMs = performance.now();
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
    if (this.#cut) upstream.abort();
    this.#assertAlive();
  }

  /** It has become a tunnel, or a WebSocket. */
  get relaying(): boolean {
    return this.#tunnel !== null;
  }

  /**
   * Passes on what both sides have sent already, and has `tunnels` move what follows between the
   * client and `upstream`, until that ends.
   */
  async relay(tunnels: Tunnels, upstream: BufferedConn): Promise<void> {
    const up = this.#client.take(this.#client.buffered.length);
    const down = upstream.take(upstream.buffered.length);
    await upstream.write(up);
    await this.#client.write(down);
    this.#assertAlive();
    const tunnel = this.#tunnel = tunnels.start(this.#client.handOver(), upstream.handOver());
    const { upBytes, downBytes, end } = await tunnel.ended;
    this.use = { upBytes: upBytes + up.length, downBytes: downBytes + down.length, end };
  }

  /** It was ended by {@linkcode cut}, which explains whatever fails afterwards. */
  get isCut(): boolean {
    return this.#cut;
  }

  /** Milliseconds since it began. */
  get ageMs(): number {
    return Math.round(performance.now() - this.startedMs);
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

  /** Breaks everything off that it holds, unsent bytes too; whatever it still waits for fails. */
  cut(why: TunnelEnd): void {
    this.#cut = true;
    this.#tunnel?.cut(why);
    this.#client.abort();
    this.#upstream?.abort();
  }

  /** Closes what it holds upstream; the client may go on to another exchange. */
  end(): void {
    this.#upstream?.close();
  }

  #assertAlive(): void {
    if (this.#cut) throw new Refusal(403, "connect", "default", "policy has changed");
  }
}
