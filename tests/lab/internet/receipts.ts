/** Receipts: what the servers of the lab write down, one JSON line for each thing that arrived. */
import { z } from "zod";

/** What one server got. */
const receiptSchema = z.strictObject({
  /** What it arrived as; an HTTPS request leaves a `tcp`, a `tls` and an `http` receipt. */
  kind: z.enum(["dns", "tcp", "udp", "tls", "http"]),
  /** Sender's address, dotted decimal. */
  from: z.string(),
  /** Server's address, dotted decimal. */
  to: z.string(),
  port: z.number(),
  /** The question, the TLS server name or the Host header, lower case; absent for plain bytes. */
  name: z.string().optional(),
  /** Of an HTTP request. */
  method: z.string().optional(),
  /** Of an HTTP request, with the query. */
  path: z.string().optional(),
  /** Of a DNS question. */
  recordType: z.string().optional(),
});

/** What one server got. */
export type Receipt = z.infer<typeof receiptSchema>;

/** Writes receipts; on disk before the call returns, so before the sender gets an answer. */
export class ReceiptBook {
  readonly #file: Deno.FsFile;

  constructor(path: string) {
    this.#file = Deno.openSync(path, { append: true, create: true });
  }

  add(receipt: Receipt): void {
    this.#file.writeSync(new TextEncoder().encode(`${JSON.stringify(receipt)}\n`));
  }
}

/** Reads all receipts of a book. */
export async function readReceipts(path: string): Promise<Receipt[]> {
  const lines = (await Deno.readTextFile(path)).split("\n").filter((line) => line !== "");
  return lines.map((line) => receiptSchema.parse(JSON.parse(line)));
}
