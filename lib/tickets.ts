/** Messages to a thread that it answers, each known by its ticket. */
import { giveUpAfter } from "./patience.ts";

/** A message without the ticket that it gets when it is sent. */
export type Asked<Message> = Message extends { readonly ticket: number } ? Omit<Message, "ticket">
  : never;

/** The answers that one thread owes. */
export class Tickets<Answer> {
  readonly #awaited = new Map<number, (answer: Answer) => void>();
  #last = 0;

  /** How many answers are awaited. */
  get open(): number {
    return this.#awaited.size;
  }

  /**
   * Has a message sent under a new ticket, and settles with its answer.
   * @param giveUp Called when `limitMs` are over; it must lead to {@linkcode settleAll}.
   */
  async ask(send: (ticket: number) => void, limitMs: number, giveUp: () => void): Promise<Answer> {
    const ticket = ++this.#last;
    const { promise, resolve } = Promise.withResolvers<Answer>();
    this.#awaited.set(ticket, resolve);
    const stopWaiting = giveUpAfter(limitMs, giveUp);
    send(ticket);
    const answer = await promise;
    stopWaiting();
    return answer;
  }

  /** The thread has answered. */
  settle(ticket: number, answer: Answer): void {
    this.#awaited.get(ticket)?.(answer);
    this.#awaited.delete(ticket);
  }

  /** The thread is gone: nobody waits any longer. */
  settleAll(answer: Answer): void {
    for (const resolve of this.#awaited.values()) resolve(answer);
    this.#awaited.clear();
  }
}
