/**
 * One hostile side of the DNS filter, in a machine of its own: `upstream ADDRESS PORT SEED` answers
 * with damaged replies until it is ended; `client ADDRESS PORT SEED PACKETS` sends damaged queries,
 * and ends with code 0 when every reply was as it must be. It prints what it has sent so far.
 */
import { pause } from "../../../lib/pause.ts";
import {
  checkReply,
  hostileQuery,
  hostileReplies,
  sendHostileStream,
} from "../../dns/fuzz_sides.ts";
import { Random } from "../../random.ts";
import { READY } from "./lines.ts";

/** Packets sent before others get their turn: few enough to fit into the sockets' memory. */
const BURST = 200;
const STREAM_EVERY = 1000;
const REPORT_EVERY = 10_000;

const [side, hostname = "", portText, seed, packets] = Deno.args;
const port = Number(portText);
const random = new Random(Number(seed));

async function answer(): Promise<void> {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port });
  console.log(READY);
  for await (const [query, from] of socket) {
    for (const reply of hostileReplies(random, query)) await socket.send(reply, from);
  }
}

async function attack(): Promise<void> {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
  const reading = (async (): Promise<void> => {
    for await (const [reply] of socket) checkReply(reply);
  })();
  // A reply that must not be ends the program, and so does whatever else is thrown.
  reading.catch((thrown) => {
    console.error(`OUTCALL_FUZZ_SEED=${seed}`, thrown);
    Deno.exit(1);
  });
  for (let sent = 0; sent < Number(packets);) {
    await socket.send(hostileQuery(random), { transport: "udp", hostname, port });
    if (++sent % BURST === 0) await pause(1);
    if (sent % STREAM_EVERY === 0) await sendHostileStream(random, { hostname, port });
    if (sent % REPORT_EVERY === 0) console.log(sent);
  }
  socket.close();
}

await (side === "upstream" ? answer() : attack());
