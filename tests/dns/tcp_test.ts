/** Slow clients, against a listener whose patience is short. */
import assert from "node:assert/strict";
import { DecisionLog } from "../../lib/decision.ts";
import { DnsCache } from "../../lib/dns/cache.ts";
import { DnsFilter } from "../../lib/dns/filter.ts";
import { readTcpMessage, writeTcpMessage } from "../../lib/dns/framing.ts";
import { Resolver } from "../../lib/dns/resolver.ts";
import { listenTcp } from "../../lib/dns/tcp.ts";
import { UpstreamClient } from "../../lib/dns/upstream.ts";
import { LookupLimits } from "../../lib/dns/limits.ts";
import { beginConnect, closeDescriptor, discardUnsent } from "../../lib/linux/tcp.ts";
import { Ip } from "../../lib/net/ip.ts";
import { eventually } from "../eventually.ts";
import { encodeQuery } from "./oracle.ts";
import { NO_OPENER, ownAddress, ownPort, TestDirectory, TestPolicy } from "./support.ts";

/** A listener that waits 200 ms for progress. */
async function withListener(
  run: (server: { readonly hostname: string; readonly port: number }) => Promise<void>,
): Promise<void> {
  const agents = new TestDirectory();
  agents.add("127.0.0.1", "coder");
  const filter = new DnsFilter({
    generation: () => 1,
    agents,
    judge: new TestPolicy([]).judge,
    decisions: new DecisionLog(),
    resolver: new Resolver(new DnsCache(), new UpstreamClient([])),
    limits: new LookupLimits(),
    opener: NO_OPENER,
  });
  const [hostname, port] = [ownAddress(), ownPort()];
  const listener = listenTcp(filter, hostname, port, { idleMs: 200 });
  await run({ hostname, port });
  await listener.close();
}

async function withClient(run: (conn: Deno.TcpConn) => Promise<void>): Promise<void> {
  await withListener(async (server) => {
    using conn = await Deno.connect(server);
    await run(conn);
  });
}

/** Settles when the server closed the connection. */
async function closed(conn: Deno.Conn): Promise<void> {
  while (await readTcpMessage(conn).catch(() => null) !== null);
}

Deno.test("an idle TCP connection is closed (S007-FR-020)", async () => {
  await withClient(closed);
});

Deno.test("a client that sends a byte now and then is closed (ADV-DNS-13)", async () => {
  await withClient(async (conn) => {
    const dribble = setInterval(() => void conn.write(Uint8Array.of(0)).catch(() => {}), 50);
    await conn.write(Uint8Array.of(0x40));
    await closed(conn);
    clearInterval(dribble);
  });
});

Deno.test("a client that asks without ever reading is closed", async () => {
  await withClient(async (conn) => {
    const query = encodeQuery("blocked.test", "A", { opt: {} });
    // Writing fails once the server gave up, however large the socket buffers are.
    await assert.rejects(async () => {
      for (;;) await writeTcpMessage(conn, query);
    });
  });
});

Deno.test("a client that resets connections before they are accepted holds nobody up", async () => {
  await withListener(async (server) => {
    const ip = Ip.parse(server.hostname);
    assert(ip !== null);
    // All before the listener gets its turn, as a client elsewhere can.
    for (let i = 0; i < 400; i++) {
      const fd = beginConnect(ip, server.port);
      discardUnsent(fd);
      closeDescriptor(fd);
    }
    using conn = await Deno.connect(server);
    await writeTcpMessage(conn, encodeQuery("blocked.test", "A"));
    let isAnswered = false;
    void readTcpMessage(conn).then((reply) => isAnswered = reply !== null);
    await eventually(() => isAnswered);
  });
});
