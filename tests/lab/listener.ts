/** A service on the host that agents must not reach, and that tells whether they did. */
import { ReceiptReader } from "./internet/roll_call.ts";
import type { Machine } from "./machine.ts";
import { denoCommand } from "./product.ts";
import { type Arrival, fitting, type Mark, type Receiver, type Seen } from "./witness.ts";

/** Accepts TCP on one port, at every address of a machine. */
export class Listener implements Receiver {
  private constructor(readonly receipts: ReceiptReader) {}

  /** Starts it; it ends with the machine. */
  static async start(machine: Machine, port: number): Promise<Listener> {
    const path = `/run/lab/receipts-${port}`;
    const main = new URL("./internet/listener.ts", import.meta.url);
    const server = machine.spawn([...denoCommand(main), `${port}`, path]);
    return new Listener(await ReceiptReader.open(machine, server, path));
  }

  /** Now, to count from. */
  async mark(): Promise<Mark> {
    return { packets: new Map(), receipts: (await this.receipts.all()).length };
  }

  /** Connections since `mark` that fit `arrival`. */
  async since(mark: Mark, arrival: Arrival = {}): Promise<Seen> {
    return { packets: [], receipts: fitting(await this.receipts.all(), mark.receipts, arrival) };
  }
}
