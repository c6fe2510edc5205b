/** The lab's name servers: the honest one and the hostile ones, over UDP and TCP. */
import { Buffer } from "node:buffer";
// @ts-types="@types/dns-packet"
import packet from "dns-packet";
import type { ReceiptBook } from "./receipts.ts";
import { readExactly, type Route, serveTcp, serveUdp } from "./transport.ts";
import { EXAMPLE_ADDRESS, HOSTILE_RESOLVERS, ZONE, ZONE_TTL_SECS } from "./world.ts";

const PORT = 53;
const RCODE_NXDOMAIN = 3;

/** Records for `name`, following aliases; null when there is no such name. */
function lookUp(name: string, type: string): packet.StringAnswer[] | null {
  const records = ZONE[name];
  if (records === undefined) return null;
  const found = records.filter((record) => record.type === type || record.type === "CNAME");
  return found.flatMap((record) => [
    { name, ...record, ttl: ZONE_TTL_SECS },
    ...(record.type === "CNAME" ? lookUp(record.data, type) ?? [] : []),
  ]);
}

function reply(query: Uint8Array, route: Route, book: ReceiptBook): Uint8Array | null {
  const { id, questions } = packet.decode(Buffer.from(query));
  const question = questions?.[0];
  if (id === undefined || question === undefined) return null;
  const name = question.name.toLowerCase();
  book.add({ kind: "dns", ...route, name, recordType: question.type });
  const answers: packet.StringAnswer[] | null = HOSTILE_RESOLVERS.includes(route.to)
    ? [{ name: question.name, type: "A", ttl: ZONE_TTL_SECS, data: EXAMPLE_ADDRESS }]
    : lookUp(name, question.type);
  return packet.encode({
    type: "response",
    id,
    flags: packet.RECURSION_DESIRED | packet.RECURSION_AVAILABLE |
      (answers === null ? RCODE_NXDOMAIN : 0),
    questions: [question],
    answers: answers ?? [],
  });
}

/** Starts the name servers at every address. */
export function serveDns(book: ReceiptBook): void {
  serveUdp(PORT, (query, route) => {
    try {
      return reply(query, route, book);
    } catch {
      book.add({ kind: "udp", ...route }); // it arrived, even if it is not a query
      return null;
    }
  });
  serveTcp(PORT, async (connection, route) => {
    book.add({ kind: "tcp", ...route });
    for (;;) {
      const length = await readExactly(connection, 2); // RFC 1035 section 4.2.2
      if (length === null) return;
      const size = new DataView(length.buffer).getUint16(0);
      const query = await readExactly(connection, size);
      const answer = query === null ? null : reply(query, route, book);
      if (answer === null) return;
      const framed = new Uint8Array(2 + answer.length);
      new DataView(framed.buffer).setUint16(0, answer.length);
      framed.set(answer, 2);
      await connection.write(framed);
    }
  });
}
