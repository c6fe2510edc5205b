import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import {
  DirectGrants,
  type DirectTarget,
  MAX_DIRECT_GRANTS_PER_AGENT,
} from "../../lib/bridge/direct.ts";
import type { Machine } from "../lab/machine.ts";
import { labTest } from "../lab/requirements.ts";
import type { DirectRequest } from "./bridges_program.ts";
import { DEFAULT_SEGMENT, RemoteFailure } from "./remote.ts";
import { AGENT, INTERNET, NEIGHBOUR, World } from "./world.ts";

const TARGET: DirectTarget = { agent: AGENT, destination: INTERNET, protocol: "tcp", port: 443 };
const TERMS = { agentName: "coder", host: "x.org", lifeMs: 60_000 };

Deno.test("DirectGrants: a later end is told to the kernel, a sooner one changes nothing", () => {
  const grants = new DirectGrants();
  const first = grants.open(TARGET, TERMS, 0);
  ok(first?.isNew && first.isChanged);
  const sooner = grants.open(TARGET, { ...TERMS, lifeMs: 10_000 }, 1000);
  deepEqual([sooner?.isNew, sooner?.isChanged, sooner?.grant.expiresAtMs], [false, false, 60_000]);
  const slightlyLater = grants.open(TARGET, TERMS, 999);
  deepEqual([slightlyLater?.isChanged, slightlyLater?.grant.expiresAtMs], [false, 60_000]);
  const later = grants.open(TARGET, TERMS, 1000);
  deepEqual([later?.isNew, later?.isChanged, later?.grant.expiresAtMs], [false, true, 61_000]);
  equal(later?.grant.id, first.grant.id);
  const again = grants.open(TARGET, TERMS, 61_000);
  deepEqual([again?.isNew, again?.grant.grantedAtMs], [true, 61_000]);
});

Deno.test("DirectGrants: the names that a target follows from are known, those of one agent", () => {
  const grants = new DirectGrants();
  for (const host of ["a.org", "b.org", "a.org"]) grants.open(TARGET, { ...TERMS, host }, 0);
  deepEqual(grants.all()[0]?.hosts, ["b.org", "a.org"]);
  for (let i = 0; i < 100; i++) grants.open(TARGET, { ...TERMS, host: `${i}.org` }, 0);
  equal(grants.all()[0]?.hosts.length, 16);
  grants.open(TARGET, { ...TERMS, agentName: "another" }, 0);
  deepEqual(grants.all()[0]?.hosts, ["x.org"]);
});

Deno.test("D12: an agent has at most 256 direct grants, the longest expired one makes room", () => {
  const grants = new DirectGrants();
  const nth = (port: number): DirectTarget => ({ ...TARGET, port });
  for (let n = 1; n <= MAX_DIRECT_GRANTS_PER_AGENT; n++) {
    grants.open(nth(n), { ...TERMS, lifeMs: n === 7 ? 1000 : n === 8 ? 500 : 60_000 }, 0);
  }
  equal(grants.open(nth(900), TERMS, 0), null);
  ok(grants.open(nth(1), TERMS, 0), "one that is there needs no room");
  ok(grants.open({ ...nth(900), agent: NEIGHBOUR }, TERMS, 0));
  equal(grants.open(nth(900), TERMS, 1000)?.evicted?.port, 8);
  equal(grants.open(nth(901), TERMS, 1000)?.evicted?.port, 7);
  equal(grants.open(nth(902), TERMS, 1000), null);
});

const NEEDS = { tools: ["nft", "ip", "unshare", "nsenter", "nc", "python3"] };

/** Sends a line every 50 ms to whoever connects. */
const SERVER = `
import socket, sys, time, threading
def serve(conn):
    try:
        while True:
            conn.sendall(b"line\\n"); time.sleep(0.05)
    except OSError: pass
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    conn, _ = server.accept()
    threading.Thread(target=serve, args=(conn,), daemon=True).start()`;

async function served(world: World, port: number): Promise<void> {
  world.internet.spawn(["python3", "-c", SERVER, `${port}`]);
  while ((await world.bystander.run(["nc", "-z", "-w1", INTERNET, `${port}`])).code !== 0);
}

labTest("D12: an answer opens what it names to its agent alone", NEEDS, async (t) => {
  await using world = await World.create();
  const { agent, neighbour, host, bridges } = world;
  await served(world, 443);
  await served(world, 80);
  const ask = (lifeMs: number, ...ports: readonly number[]): DirectRequest => ({
    ...TERMS,
    agent: AGENT,
    lifeMs,
    targets: ports.map((port) => ({ destination: INTERNET, protocol: "tcp", port })),
  });
  const connects = async (from: Machine = agent, port = 443): Promise<boolean> =>
    (await from.run(["nc", "-z", "-w1", INTERNET, `${port}`])).code === 0;
  const isStopped = async (transfer: { stdout: readonly string[] }): Promise<boolean> => {
    await new Promise((resolve) => setTimeout(resolve, 300));
    const received = transfer.stdout.length;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return transfer.stdout.length === received;
  };

  await t.step("opens its destination, port and agent, and nothing else", async () => {
    equal(await connects(), false);
    const [opened] = await bridges.openDirect(ask(60_000, 443));
    ok(opened?.isNew);
    equal(await connects(), true);
    equal(await connects(agent, 80), false);
    equal(await connects(neighbour), false);
    equal((await bridges.status()).nftables, "active");
    deepEqual(await bridges.repair(), [], "its elements are no foreign change");
  });

  await t.step("outlives a change of the firewall, and what others do to the tables", async () => {
    await bridges.attach(DEFAULT_SEGMENT);
    equal(await connects(), true);
    await host.must(["nft", "flush", "ruleset"]);
    await bridges.repair();
    equal(await connects(), true);
    await host.must(["nft", "flush", "ruleset"]);
    await bridges.attach(DEFAULT_SEGMENT);
    equal(await connects(), true);
    await host.must(["nft", "add", "chain", "inet", "outcall", "forward2"]);
    equal((await bridges.repair()).length, 1);
    equal(await connects(), true);
  });

  await t.step("expired, no connection begins and a transfer goes on", async () => {
    await bridges.reviewDirect();
    await bridges.openDirect(ask(1000, 443));
    const transfer = agent.spawn(["nc", INTERNET, "443"]);
    await transfer.line("stdout", () => true);
    while (await connects());
    const received = transfer.stdout.length;
    await transfer.line("stdout", () => true, received + 10);
    const [again] = await bridges.openDirect(ask(60_000, 443));
    ok(again?.isNew);
    equal(await connects(), true);
    transfer.kill("SIGKILL");
  });

  await t.step("revoked by new rules, a transfer stops at its next packet", async () => {
    await bridges.openDirect({ ...ask(60_000, 80), host: "other.org" });
    const transfers = [443, 80].map((port) => agent.spawn(["nc", INTERNET, `${port}`]));
    for (const transfer of transfers) await transfer.line("stdout", () => true);
    equal(await bridges.reviewDirect("other.org"), 1);
    const [revoked, kept] = transfers;
    ok(revoked !== undefined && kept !== undefined);
    const received = kept.stdout.length;
    equal(await isStopped(revoked), true);
    ok(kept.stdout.length > received + 10, "the other one goes on");
    equal(await connects(), false);
    equal(await bridges.flushGrants(), 1);
    equal(await isStopped(kept), true);
    for (const transfer of transfers) transfer.kill("SIGKILL");
  });

  await t.step("what many answers ask for at once is opened together", async () => {
    const ports = Array.from({ length: 50 }, (_, i) => i + 1);
    const before = await host.must(["nft", "-j", "list", "set", "inet", "outcall", "direct"]);
    await bridges.openDirect(...ports.map((port) => ask(60_000, port)));
    const listed = await host.must(["nft", "-j", "list", "set", "inet", "outcall", "direct"]);
    equal(before.split("concat").length, 1);
    equal(listed.split("concat").length, 51);
    equal(await bridges.flushGrants(), 50);
  });

  await t.step(
    "one address of two names with different lives is opened once, for the longer",
    async () => {
      const both = [ask(10_000, 443), { ...ask(60_000, 443), host: "other.org" }, ask(10_000, 443)];
      const opened = await bridges.openDirect(...both, { ...ask(60_000, 80), agent: NEIGHBOUR });
      equal(opened.length, 4);
      equal(await connects(), true);
      equal(
        await connects(neighbour, 80),
        true,
        "nor does it cost another agent what it asked for",
      );
      equal(await bridges.flushGrants(), 2);
      equal(await connects(), false);
    },
  );

  await t.step(
    "what made room and is asked for at the same time stays known, and revocable",
    async () => {
      const ports = Array.from({ length: MAX_DIRECT_GRANTS_PER_AGENT - 1 }, (_, i) => 1000 + i);
      await bridges.openDirect(ask(1, 443));
      await bridges.openDirect(ask(2, ...ports));
      await new Promise((resolve) => setTimeout(resolve, 10));
      await bridges.openDirect(ask(60_000, 80), ask(60_000, 443));
      equal(await connects(), true);
      equal(await bridges.flushGrants(), 2);
      equal(await connects(), false);
    },
  );

  await t.step("who has no pinned port gets none", async () => {
    await rejects(
      bridges.openDirect({ ...ask(60_000, 443), agent: "10.200.255.99" }),
      (error) => error instanceof RemoteFailure && error.failure.code === "grant.no_agent",
    );
  });

  await t.step("without the table nothing is granted, and it is repaired", async () => {
    await host.must(["nft", "delete", "table", "inet", "outcall"]);
    await rejects(
      bridges.openDirect(ask(60_000, 443)),
      (error) => error instanceof RemoteFailure && error.failure.code === "grant.kernel",
    );
    await bridges.repair();
    equal(await connects(), false);
  });

  await t.step("it ends with its agent's port", async () => {
    await bridges.openDirect(ask(60_000, 443));
    await host.must(["ip", "link", "delete", "port-outcall0"]);
    await bridges.repair();
    const table = await host.must(["nft", "list", "table", "inet", "outcall"]);
    equal(table.includes(INTERNET), false);
  });

  await t.step("it ends with the daemon", async () => {
    const request = { ...ask(60_000, 443), agent: NEIGHBOUR };
    await bridges.openDirect(request);
    equal(await connects(neighbour), true);
    await bridges.close();
    equal(await connects(neighbour), false);
  });
});
