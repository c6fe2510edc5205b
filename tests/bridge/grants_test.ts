import { deepEqual, equal, match, ok, rejects, throws } from "node:assert/strict";
import { type GrantRequest, Grants, MAX_GRANTS_PER_AGENT } from "../../lib/bridge/grants.ts";
import { OutcallError } from "../../lib/errors.ts";
import { labTest } from "../lab/requirements.ts";
import { RemoteFailure } from "./remote.ts";
import { AGENT, INTERNET, NEIGHBOUR, World } from "./world.ts";

const NEEDS = { tools: ["nft", "ip", "unshare", "nsenter", "nc", "ping", "sysctl"] };

const REQUEST: GrantRequest = {
  agent: AGENT,
  destination: INTERNET,
  protocol: "tcp",
  port: 443,
  ttlSecs: 60,
  host: null,
};

function failsWith(code: string): (error: unknown) => boolean {
  return (error) => error instanceof OutcallError && error.code === code;
}

Deno.test("Grants: the same grant again moves its deadline and keeps its id (S009-EC-003)", () => {
  const grants = new Grants();
  const { id } = grants.add(REQUEST, 0);
  const again = grants.add({ ...REQUEST, destination: `${INTERNET}/32` }, 30_000);
  deepEqual([again.id, again.expiresAtMs], [id, 90_000]);
  equal(grants.list(89_999).length, 1);
  equal(grants.list(90_000).length, 0);
  equal(grants.elements().length, 1, "connections of an expired grant go on");
});

Deno.test("Grants: what makes no sense is refused, and nothing is granted (S009-EC-005, EC-007)", () => {
  const bad: readonly Partial<GrantRequest>[] = [
    { destination: "example.com" },
    { destination: "93.184.216.1/24" },
    { destination: "2a00::1" },
    { destination: "1.1.1.1 . tcp" },
    { port: 0 },
    { port: 65_536 },
    { port: 1.5 },
    { ttlSecs: 0 },
    { ttlSecs: 86_401 },
    { ttlSecs: Number.NaN },
  ];
  const grants = new Grants();
  for (const part of bad) {
    throws(() => grants.add({ ...REQUEST, ...part }, 0), failsWith("grant.invalid"));
  }
  equal(grants.elements().length, 0);
});

Deno.test("Grants: one without an end goes on until it is revoked", () => {
  const grants = new Grants();
  const { id } = grants.add({ ...REQUEST, ttlSecs: null, host: "x.org" }, 0);
  equal(grants.list(Number.MAX_SAFE_INTEGER)[0]?.host, "x.org");
  match(grants.renderOpen("inet", "t", 0), /add element inet t grants \{ [0-9. ]+tcp \. 443 \}/);
  ok(grants.revoke(id));
});

Deno.test("Grants: overlapping networks are one decision, not two", () => {
  const grants = new Grants();
  grants.add({ ...REQUEST, destination: "1.1.0.0/16" }, 0);
  throws(() => grants.add(REQUEST, 0), failsWith("grant.overlap"));
  grants.add({ ...REQUEST, port: 80 }, 0);
  grants.add({ ...REQUEST, agent: NEIGHBOUR }, 0);
  grants.add(REQUEST, 60_000);
  equal(grants.elements().length, 3, "the expired one made way");
});

Deno.test("D12: an agent has at most 256 grants, expired ones make room", () => {
  const grants = new Grants();
  const nth = (n: number, ttlSecs: number): GrantRequest => ({ ...REQUEST, port: n + 1, ttlSecs });
  for (let n = 0; n < MAX_GRANTS_PER_AGENT; n++) grants.add(nth(n, n === 7 ? 1 : 60), 0);
  throws(() => grants.add(nth(900, 60), 0), failsWith("grant.limit"));
  grants.add({ ...REQUEST, agent: NEIGHBOUR }, 0);
  grants.add(nth(900, 60), 1000);
  throws(() => grants.add(nth(901, 60), 1000), failsWith("grant.limit"));
});

labTest(
  "D12: a grant opens one destination to one agent; revoked, it stops live connections",
  NEEDS,
  async (t) => {
    await using world = await World.create();
    const { agent, neighbour, internet, bridges } = world;
    await internet.must(["ip", "address", "add", "8.8.8.8/32", "dev", "lo"]);
    for (const port of [443, 80]) {
      internet.spawn([
        "python3",
        "-c",
        `import socket, time, threading
def serve(conn):
    try:
        while True:
            conn.sendall(b"line\\n"); time.sleep(0.05)
    except OSError: pass
server = socket.create_server(("0.0.0.0", ${port}))
while True:
    conn, _ = server.accept()
    threading.Thread(target=serve, args=(conn,), daemon=True).start()`,
      ]);
      while ((await world.bystander.run(["nc", "-z", "-w1", INTERNET, `${port}`])).code !== 0);
    }
    const connects = async (from = agent, to = INTERNET, port = 443): Promise<boolean> =>
      (await from.run(["nc", "-z", "-w1", to, `${port}`])).code === 0;

    await t.step("before: nothing; with it: that destination and port, that agent", async () => {
      equal(await connects(), false);
      await bridges.grant(REQUEST);
      ok(await connects());
      equal(await connects(agent, INTERNET, 80), false);
      equal(await connects(agent, "8.8.8.8"), false);
      equal(await connects(neighbour), false);
      equal((await bridges.status()).nftables, "active");
      equal(await bridges.flushGrants(), 1);
      equal(await connects(), false);
    });

    await t.step("expired: no new connection, but a transfer goes on", async () => {
      await bridges.grant({ ...REQUEST, ttlSecs: 1 });
      const transfer = agent.spawn(["nc", INTERNET, "443"]);
      await transfer.line("stdout", () => true);
      while (await connects());
      const received = transfer.stdout.length;
      await transfer.line("stdout", () => true, received + 10);
      transfer.kill("SIGKILL");
    });

    await t.step(
      "revoked: a transfer stops within a second, and retries do not revive it",
      async () => {
        const { id } = await bridges.grant(REQUEST);
        const transfer = agent.spawn(["nc", INTERNET, "443"]);
        await transfer.line("stdout", () => true);
        equal(await bridges.revoke(id), true);
        const received = transfer.stdout.length;
        await new Promise((resolve) => setTimeout(resolve, 1000));
        const later = transfer.stdout.length;
        await new Promise((resolve) => setTimeout(resolve, 1500));
        equal(transfer.stdout.length, later);
        ok(later - received <= 20, "the server sends 20 lines a second");
        equal(await bridges.revoke(id), false, "there is none any more");
      },
    );

    await t.step("who has no pinned port gets none", async () => {
      await rejects(
        bridges.grant({ ...REQUEST, agent: "10.200.255.99" }),
        (error) => error instanceof RemoteFailure && error.failure.code === "grant.no_agent",
      );
    });

    await t.step("a grant ends with its agent's port", async () => {
      await bridges.grant(REQUEST);
      await world.host.must(["ip", "link", "delete", "port-outcall0"]);
      await bridges.repair();
      equal(await bridges.flushGrants(), 0);
      const table = await world.host.must(["nft", "list", "table", "inet", "outcall"]);
      equal(table.includes(INTERNET), false);
    });
  },
);
