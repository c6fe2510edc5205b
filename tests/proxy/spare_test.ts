import { equal } from "node:assert/strict";
import { Ip } from "../../lib/net/ip.ts";
import { SpareUpstream, type Upstream } from "../../lib/proxy/spare.ts";
import { BufferedConn } from "../../lib/proxy/stream.ts";
import { withSockets } from "./sockets.ts";

const ORIGIN = "api.example.com";

/** A live connection, with the other end held open for as long as `run` takes. */
function withUpstream(run: (upstream: Upstream) => void): Promise<void> {
  return withSockets(async ({ connected }) => {
    const [socket, peer] = await connected();
    const stream = new BufferedConn(socket);
    const ip = Ip.fromBytes(Uint8Array.of(127, 0, 0, 1));
    try {
      run({ stream, destination: { ip, isLocal: false } });
    } finally {
      stream.close();
      peer.close();
    }
  });
}

Deno.test("SpareUpstream keeps a connection for the next request to the same origin", async () => {
  await withUpstream((upstream) => {
    const spare = new SpareUpstream();
    equal(spare.take(ORIGIN), null);
    spare.keep(ORIGIN, upstream);
    equal(spare.take(ORIGIN)?.stream, upstream.stream);
  });
});

Deno.test("SpareUpstream does not keep what was dialled before a reload came in between", async () => {
  await withUpstream((upstream) => {
    const spare = new SpareUpstream();
    equal(spare.take(ORIGIN), null);
    spare.drop(); // as a reload does, while the request is under way
    spare.keep(ORIGIN, upstream);
    equal(spare.take(ORIGIN), null);
  });
});
