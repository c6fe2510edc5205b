/** Asking upstreams in order, with a memory of which ones are down. */
import { logger } from "../log.ts";
import { Rcode } from "./codes.ts";
import { exchange } from "./exchange.ts";
import type { Question, Response } from "./message.ts";
import { type Upstream, upstreamText } from "./upstreams.ts";

const log = logger("dns");

/** S007-FR-015 */
const TIMEOUT_MS = 5000;

/**
 * For this long after it failed, an upstream is asked last: otherwise each new name would wait out
 * its time limit, which is longer than stub resolvers wait.
 */
const DOWN_MS = 30_000;

/** No upstream gave a usable reply; the message says what each one did. */
export class UpstreamError extends Error {
  override readonly name = "UpstreamError";
}

/** Asks the upstreams; holds no answers. */
export class UpstreamClient {
  readonly #stop = new AbortController();
  readonly #downUntilMs = new Map<Upstream, number>();

  constructor(
    readonly upstreams: readonly Upstream[],
    readonly timeoutMs: number = TIMEOUT_MS,
  ) {}

  /** The operator's order, but those that failed lately behind the others. */
  #inOrder(): readonly Upstream[] {
    const now = performance.now();
    const isDown = (upstream: Upstream): number =>
      Number((this.#downUntilMs.get(upstream) ?? 0) > now);
    return this.upstreams.toSorted((a, b) => isDown(a) - isDown(b));
  }

  #markDown(upstream: Upstream, why: string): void {
    const known = this.#downUntilMs.has(upstream);
    this.#downUntilMs.set(upstream, performance.now() + DOWN_MS);
    if (known) return;
    log.warn("upstream {upstream} failed: {why}", { upstream: upstreamText(upstream), why });
  }

  #markUp(upstream: Upstream): void {
    if (!this.#downUntilMs.delete(upstream)) return;
    log.info("upstream {upstream} answers again", { upstream: upstreamText(upstream) });
  }

  /**
   * The first reply of NOERROR or NXDOMAIN.
   * @throws UpstreamError when there is none.
   */
  async ask(question: Question, dnssecOk: boolean): Promise<Response> {
    const failures: string[] = [];
    for (const upstream of this.#inOrder()) {
      const result = await exchange(
        upstream,
        question,
        dnssecOk,
        this.timeoutMs,
        this.#stop.signal,
      );
      if (this.#stop.signal.aborted) throw new UpstreamError("the DNS filter is stopping");
      if (result.kind === "failed") {
        this.#markDown(upstream, result.why);
        failures.push(`${upstreamText(upstream)}: ${result.why}`);
        continue;
      }
      // The upstream is well; if anything, it is this name it cannot answer (S007-EC-013). Whoever
      // owns a name must not choose which upstream everybody's questions go to.
      this.#markUp(upstream);
      if (result.kind === "malformed") {
        failures.push(`${upstreamText(upstream)}: ${result.why}`);
        continue;
      }
      const { response } = result;
      if (response.rcode === Rcode.NOERROR || response.rcode === Rcode.NXDOMAIN) return response;
      failures.push(`${upstreamText(upstream)}: response code ${response.rcode}`);
    }
    throw new UpstreamError(failures.join("; "));
  }

  /** Ends what is in flight; every later question fails. */
  close(): void {
    this.#stop.abort();
  }
}
