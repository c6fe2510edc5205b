/** The lab's internet: a machine with every server address on its loopback, and a witness. */
import { ADDRESSES } from "./internet/world.ts";
import { ReceiptReader } from "./internet/roll_call.ts";
import { Machine } from "./machine.ts";
import { denoCommand } from "./product.ts";
import { Witness } from "./witness.ts";

const FOLDER = "/run/lab";

/** A running internet. */
export class Internet implements AsyncDisposable {
  private constructor(
    readonly machine: Machine,
    readonly witness: Witness,
    /** Root certificate of the lab's authority (PEM). */
    readonly rootPem: string,
  ) {}

  /** Starts the machine and its servers. */
  static async start(): Promise<Internet> {
    const machine = await Machine.start("internet");
    try {
      for (const address of ADDRESSES) {
        await machine.must(["ip", "address", "add", `${address}/32`, "dev", "lo"]);
      }
      const main = new URL("./internet/main.ts", import.meta.url);
      const servers = machine.spawn([...denoCommand(main), FOLDER]);
      const receipts = await ReceiptReader.open(machine, servers, `${FOLDER}/receipts`);
      const rootPem = await Deno.readTextFile(machine.path(`${FOLDER}/root.pem`));
      return new Internet(machine, await Witness.start(machine, receipts), rootPem);
    } catch (thrown) {
      await machine[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** Ends the servers and the machine. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.machine[Symbol.asyncDispose]();
  }
}
