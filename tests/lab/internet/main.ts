/**
 * Every server of the lab's internet, in one process. Argument: the folder for `receipts` and for
 * `root.pem`. Prints `ready`; later sends back each line of input, which tells the reader that what
 * had arrived before has its receipt.
 */
import readline from "node:readline";
import process from "node:process";
import { CertificateAuthority } from "../ca.ts";
import { serveDns } from "./dns.ts";
import { serveEcho } from "./echo.ts";
import { ReceiptBook } from "./receipts.ts";
import { serveWeb } from "./web.ts";
import { ECHO_TCP_PORTS, ECHO_UDP_PORTS } from "./world.ts";

const [folder = "."] = Deno.args;
const book = new ReceiptBook(`${folder}/receipts`);
const ca = await CertificateAuthority.create();
await Deno.writeTextFile(`${folder}/root.pem`, ca.rootPem);
serveDns(book);
serveWeb(ca, book);
serveEcho({ tcp: ECHO_TCP_PORTS, udp: ECHO_UDP_PORTS }, book);
console.log("ready");

for await (const line of readline.createInterface({ input: process.stdin })) {
  // A turn of the event loop, so that sockets that were readable already come first.
  await new Promise((resolve) => setTimeout(resolve, 0));
  console.log(line);
}
