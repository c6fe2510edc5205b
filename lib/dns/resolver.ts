/** From a question to an answer: the cache, else one upstream query however many are waiting. */
import { type Answer, rebuildAnswer } from "./answer.ts";
import { type CachedAnswer, cacheKey, type DnsCache } from "./cache.ts";
import type { Question } from "./message.ts";
import { type UpstreamClient, UpstreamError } from "./upstream.ts";

/** An answer and where it came from. */
export interface Resolution {
  readonly answer: Answer;
  /** To be taken off every TTL; 0 for a fresh answer. */
  readonly ageSecs: number;
  /** How long the upstreams took; null: it was cached. */
  readonly upstreamMs: number | null;
}

/** Where answers come from. Knows neither policy nor limits: whoever asks has seen to both. */
export interface AnswerSource {
  /** The answer to `question`, when it is cached. */
  cached(question: Question, dnssecOk: boolean): Resolution | null;
  /**
   * The upstreams' answer to `question`.
   * @throws UpstreamError (rejects with it) when no upstream answers.
   */
  ask(question: Question, dnssecOk: boolean): Promise<Resolution>;
}

/** What the cache has, as a resolution. */
export function resolutionOf(hit: CachedAnswer | null): Resolution | null {
  return hit === null ? null : { answer: hit.answer, ageSecs: hit.ageSecs, upstreamMs: null };
}

/** Answers from the cache and the upstreams. */
export class Resolver implements AnswerSource {
  readonly #inFlight = new Map<string, Promise<Resolution>>();

  constructor(readonly cache: DnsCache, readonly upstream: UpstreamClient) {}

  cached(question: Question, dnssecOk: boolean): Resolution | null {
    return resolutionOf(this.cache.get(cacheKey(question, dnssecOk)));
  }

  /** Identical questions share one upstream query (S007-EC-010). */
  ask(question: Question, dnssecOk: boolean): Promise<Resolution> {
    const key = cacheKey(question, dnssecOk);
    const waiting = this.#inFlight.get(key);
    if (waiting !== undefined) return waiting;
    const asking = this.#ask(key, question, dnssecOk).finally(() => this.#inFlight.delete(key));
    this.#inFlight.set(key, asking);
    return asking;
  }

  async #ask(key: string, question: Question, dnssecOk: boolean): Promise<Resolution> {
    const startedMs = performance.now();
    const response = await this.upstream.ask(question, dnssecOk);
    const answer = rebuildAnswer(question, response, dnssecOk);
    if (answer === null) {
      throw new UpstreamError("the upstream's answer is a loop of aliases, or too large");
    }
    this.cache.set(key, question, answer);
    return { answer, ageSecs: 0, upstreamMs: Math.round(performance.now() - startedMs) };
  }
}
