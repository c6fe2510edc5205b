/**
 * How a reader of receipts knows that none is still on its way: it sends the servers a line, and gets
 * it back when whatever had arrived before has its receipt.
 */
import readline from "node:readline";
import process from "node:process";
import type { Machine } from "../machine.ts";
import type { Process } from "../process.ts";
import { readReceipts, type Receipt } from "./receipts.ts";

const READY = "ready";

/** The servers' side: says that they are up, then answers until input ends. */
export async function answerRollCalls(): Promise<void> {
  console.log(READY);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    // A turn of the event loop, so that sockets that were readable already come first.
    await new Promise((resolve) => setTimeout(resolve, 0));
    console.log(line);
  }
}

/** The reader's side, for servers that run on `machine` and keep their book at `path`. */
export class ReceiptReader {
  private constructor(
    readonly machine: Machine,
    readonly servers: Process,
    readonly path: string,
  ) {}

  /** Waits until the servers are up. */
  static async open(machine: Machine, servers: Process, path: string): Promise<ReceiptReader> {
    await servers.line("stdout", (line) => line === READY);
    return new ReceiptReader(machine, servers, path);
  }

  /** Everything that has arrived by now, oldest first. */
  async all(): Promise<Receipt[]> {
    const call = crypto.randomUUID();
    const printed = this.servers.stdout.length;
    await this.servers.tell(call);
    await this.servers.line("stdout", (line) => line === call, printed);
    return await readReceipts(this.machine.path(this.path));
  }
}
