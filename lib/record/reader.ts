/** The thread that looks things up in the history: a long look keeps nobody else waiting. */
/// <reference lib="deno.worker" />
import { messageOf } from "../errors.ts";
import type { FromReader, Question, ReaderAnswer, ToReader } from "./protocol.ts";
import { DecisionTable } from "./table.ts";

declare const self: DedicatedWorkerGlobalScope;

function look(path: string, question: Question): ReaderAnswer {
  const table = new DecisionTable(path);
  try {
    return question.kind === "read"
      ? { kind: "read", rows: table.read(question.query) }
      : { kind: "stats", stats: table.stats(question.query) };
  } finally {
    table.close();
  }
}

self.onmessage = ({ data: { ticket, path, question } }: MessageEvent<ToReader>): void => {
  let answer: FromReader;
  try {
    answer = { ticket, ok: true, answer: look(path, question) };
  } catch (thrown) {
    answer = { ticket, ok: false, error: messageOf(thrown) };
  }
  self.postMessage(answer);
};
