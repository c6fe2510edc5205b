/** Answers that are good for a moment. */

/**
 * How long an answer holds. The main isolate says so at once when something it knows of has changed;
 * this is for what changes unseen.
 */
const LEASE_MS = 1_000;

/** More answers than this are forgotten together: it bounds memory, and asking again is cheap. */
const MAX_LEASES = 4_096;

interface Lease<Answer> {
  /** A promise while it is awaited. */
  answer: Answer | Promise<Answer>;
  /** Infinity until then. */
  untilMs: number;
}

/** Answers by question; those who ask at the same time share one. */
export class Leases<Answer> {
  readonly #leases = new Map<string, Lease<Answer>>();

  /**
   * The answer that there is, or what `ask` is answered. A failure is not kept, nor what `mayKeep`
   * says no to.
   */
  get(
    question: string,
    ask: () => Promise<Answer>,
    mayKeep: (answer: Answer) => boolean = () => true,
  ): Answer | Promise<Answer> {
    const known = this.#leases.get(question);
    if (known !== undefined && performance.now() < known.untilMs) return known.answer;
    if (this.#leases.size >= MAX_LEASES) this.#leases.clear();
    const asked = ask();
    const lease: Lease<Answer> = { answer: asked, untilMs: Infinity };
    this.#leases.set(question, lease);
    asked.then(
      (answer) => {
        lease.answer = answer;
        if (mayKeep(answer)) lease.untilMs = performance.now() + LEASE_MS;
        else this.#forget(question, lease);
      },
      () => this.#forget(question, lease),
    );
    return asked;
  }

  /** Forgets all of them; who waits for one still gets it. */
  clear(): void {
    this.#leases.clear();
  }

  #forget(question: string, lease: Lease<Answer>): void {
    if (this.#leases.get(question) === lease) this.#leases.delete(question);
  }
}
