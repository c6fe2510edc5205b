/** One TCP port that writes receipts. Arguments: the port, and the file for the receipts. */
import { serveEcho } from "./echo.ts";
import { ReceiptBook } from "./receipts.ts";
import { answerRollCalls } from "./roll_call.ts";

const [port = "", path = ""] = Deno.args;
serveEcho({ tcp: [Number(port)], udp: [] }, new ReceiptBook(path));
await answerRollCalls();
