/** Both sides that fuzz the filter on real sockets: a hostile client and a hostile upstream. */
import assert from "node:assert/strict";
import { readTcpMessage } from "../../lib/dns/framing.ts";
import type { Random } from "../random.ts";
import { decode, encodeQuery, encodeReply } from "./oracle.ts";
import { DNS_SPICE } from "./support.ts";

/** Allows what some of the queries ask for. */
export const FUZZED_CONDITION = 'http.host.endsWith(".example.com") || http.host == "example.com"';

const QUERIES = [
  encodeQuery("example.com", "A", { opt: {} }),
  encodeQuery("a.example.com", "HTTPS", { opt: { dnssecOk: true } }),
  encodeQuery("b.example.com", "AAAA"),
  encodeQuery("blocked.example.net", "A", { opt: {} }),
];

/** A query that is none, or nearly one. */
export function hostileQuery(random: Random): Uint8Array<ArrayBuffer> {
  return random.mutate(random.pick(QUERIES), DNS_SPICE);
}

/** The proper reply to a query, damaged; none, or several. */
export function hostileReplies(random: Random, query: Uint8Array): Uint8Array[] {
  const reply = properReply(query);
  return Array.from({ length: random.below(3) }, () => random.mutate(reply, DNS_SPICE));
}

/** One public address for whatever is asked. */
export function properReply(query: Uint8Array): Uint8Array {
  const { id, questions: [question] } = decode(query);
  assert(question !== undefined);
  const record = { name: question.name, type: "A", ttl: 60, data: "93.184.216.34" } as const;
  return encodeReply({ id, ...question, answers: [record] });
}

/** Every reply can be read, and says nothing of a name that the rules do not allow. */
export function checkReply(reply: Uint8Array): void {
  const { questions: [question], answers } = decode(reply);
  if (question !== undefined && !/(^|\.)example\.com$/i.test(question.name)) {
    assert.deepEqual(answers, []);
  }
}

/** A damaged stream of messages by TCP, until the filter ends the connection. */
export async function sendHostileStream(
  random: Random,
  { hostname, port }: { readonly hostname: string; readonly port: number },
): Promise<void> {
  const messages = Array.from({ length: 1 + random.below(3) }, () => random.pick(QUERIES));
  const stream = messages.flatMap((message) => [0, message.length, ...message]);
  using conn = await Deno.connect({ hostname, port });
  try {
    await conn.write(random.mutate(Uint8Array.from(stream), DNS_SPICE));
    await conn.closeWrite();
    for (;;) {
      const reply = await readTcpMessage(conn);
      if (reply === null) return;
      checkReply(reply);
    }
  } catch (thrown) {
    // What deserves no answer may end the connection while we write.
    const { ConnectionReset, BrokenPipe, NotConnected } = Deno.errors;
    const isEnd = [ConnectionReset, BrokenPipe, NotConnected].some((end) => thrown instanceof end);
    if (!isEnd) throw thrown;
  }
}
