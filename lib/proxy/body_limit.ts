/** How long the body of a plain request may be: as the rule says that admits it at this moment. */
import type { Admission } from "./admission.ts";
import type { RequestBody } from "./head.ts";
import { Refusal, type RefusalDetails } from "./refusal.ts";

/** The limit of one request's body (ADV-HTTP-08). */
export class BodyLimit {
  /** What is declared; else what was read until now. */
  #bytes: number;
  readonly #isDeclared: boolean;
  #maxBytes = 0;
  #details: RefusalDetails = {};

  constructor(body: RequestBody) {
    this.#isDeclared = body.kind === "length";
    this.#bytes = body.kind === "length" ? body.bytes : 0;
  }

  /**
   * From now on this is what admits the request: at first, and anew after every reload. Throws a
   * {@linkcode Refusal} when its body is too long for that, declared or under way.
   */
  obey(admission: Admission): Admission {
    const { maxBodyBytes, rule, generation } = admission;
    this.#maxBytes = maxBodyBytes;
    this.#details = { rule, generation };
    this.#assertFits();
    return admission;
  }

  /** Takes in what was read and not yet sent on; throws as {@linkcode obey} does. */
  add(bytes: number): void {
    if (this.#isDeclared) return;
    this.#bytes += bytes;
    this.#assertFits();
  }

  #assertFits(): void {
    if (this.#bytes <= this.#maxBytes) return;
    const problem = `the request body is longer than ${this.#maxBytes} bytes`;
    throw new Refusal(413, "http", "limit", problem, this.#details);
  }
}
