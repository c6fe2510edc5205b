import { equal } from "node:assert/strict";
import { Ip } from "../../lib/net/ip.ts";
import { SpareUpstream, type Upstream } from "../../lib/proxy/spare.ts";
import { BufferedConn } from "../../lib/proxy/stream.ts";

const ORIGIN = "api.example.com";

/** A live connection, with the other end held open for as long as `run` takes. */
async function withUpstream(run: (upstream: Upstream) => void): Promise<void> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const [conn, other] = await Promise.all([
    Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port }),
    listener.accept(),
  ]);
  const ip = Ip.parse("127.0.0.1");
  if (ip === null) throw new TypeError("not an address");
  const stream = new BufferedConn(conn);
  try {
    run({ stream, ip });
  } finally {
    stream.close();
    other.close();
    await new Promise((resolve) => setTimeout(resolve)); // the kept stream's read ends
  }
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
