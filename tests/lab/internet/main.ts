/**
 * Every server of the lab's internet, in one process. Argument: the folder for `receipts` and for
 * `root.pem`.
 */
import { CertificateAuthority } from "../ca.ts";
import { serveDns } from "./dns.ts";
import { serveEcho } from "./echo.ts";
import { ReceiptBook } from "./receipts.ts";
import { answerRollCalls } from "./roll_call.ts";
import { serveWeb } from "./web.ts";
import { ECHO_TCP_PORTS, ECHO_UDP_PORTS } from "./world.ts";

const [folder = "."] = Deno.args;
const book = new ReceiptBook(`${folder}/receipts`);
const ca = await CertificateAuthority.create();
await Deno.writeTextFile(`${folder}/root.pem`, ca.rootPem);
serveDns(book);
serveWeb(ca, book);
serveEcho({ tcp: ECHO_TCP_PORTS, udp: ECHO_UDP_PORTS }, book);
await answerRollCalls();
