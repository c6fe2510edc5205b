/** The reading side of the history: questions to a thread that exists while there are any. */
import { OutcallError } from "../errors.ts";
import type { FromReader, Question, ReaderAnswer, ToReader } from "./protocol.ts";
import type { DecisionStats, HistoryQuery, Row, StatsQuery } from "./table.ts";

/** A question that takes longer is given up. */
const ANSWER_TIMEOUT_MS = 10_000;

/** A thread without questions ends after this long. */
const IDLE_MS = 60_000;

/** Questions at a time; more wait for nothing good. */
const MAX_QUESTIONS = 64;

interface Waiting {
  readonly resolve: (answer: ReaderAnswer) => void;
  readonly reject: (reason: OutcallError) => void;
}

function unavailable(reason: string): OutcallError {
  return new OutcallError(503, "history.unavailable", `the history cannot be read: ${reason}`, {
    hint: "What is enforced is not affected; the daemon's health and log say more.",
  });
}

/** Answers questions about what is on disk. */
export class HistoryLookup {
  readonly #path: string;
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | null = null;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #ticket = 0;

  /** @param path Of a database that `openDatabase` made. */
  constructor(path: string) {
    this.#path = path;
  }

  /** Records on disk. @throws OutcallError `history.unavailable` (503). */
  async read(query: HistoryQuery): Promise<readonly Row[]> {
    const answer = await this.#ask({ kind: "read", query });
    if (answer.kind !== "read") throw unavailable("an answer to another question");
    return answer.rows;
  }

  /** Counts over what is on disk. @throws OutcallError `history.unavailable` (503). */
  async stats(query: StatsQuery): Promise<DecisionStats> {
    const answer = await this.#ask({ kind: "stats", query });
    if (answer.kind !== "stats") throw unavailable("an answer to another question");
    return answer.stats;
  }

  async #ask(question: Question): Promise<ReaderAnswer> {
    if (this.#waiting.size >= MAX_QUESTIONS) throw unavailable("too many questions at a time");
    clearTimeout(this.#idle);
    const ticket = ++this.#ticket;
    const { promise, resolve, reject } = Promise.withResolvers<ReaderAnswer>();
    this.#waiting.set(ticket, { resolve, reject });
    const timer = setTimeout(() => this.#end("it takes too long"), ANSWER_TIMEOUT_MS);
    try {
      this.#worker ??= this.#newWorker();
      const message: ToReader = { ticket, path: this.#path, question };
      this.#worker.postMessage(message);
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(ticket);
      if (this.#waiting.size === 0 && this.#worker !== null) {
        this.#idle = setTimeout(() => this.#end("not asked any more"), IDLE_MS);
        Deno.unrefTimer(this.#idle);
      }
    }
  }

  #newWorker(): Worker {
    const worker = new Worker(new URL("./reader.ts", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<FromReader>): void => {
      const waiting = this.#waiting.get(data.ticket);
      if (data.ok) waiting?.resolve(data.answer);
      else waiting?.reject(unavailable(data.error));
    };
    worker.onerror = (event): void => {
      event.preventDefault(); // or the daemon would end with it
      this.#end(event.message);
    };
    return worker;
  }

  /** Ends the thread; whoever waits is told why. */
  #end(why: string): void {
    clearTimeout(this.#idle);
    this.#worker?.terminate();
    this.#worker = null;
    for (const { reject } of this.#waiting.values()) reject(unavailable(why));
  }

  /** Ends the thread for good. */
  stop(): void {
    this.#end("the daemon stops");
  }
}
