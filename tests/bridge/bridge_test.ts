import { deepEqual, doesNotMatch, equal, match, notEqual, ok, rejects } from "node:assert/strict";
import { Machine } from "../lab/machine.ts";
import { labTest } from "../lab/requirements.ts";
import {
  ALL_LISTEN,
  DEFAULT_SEGMENT,
  OTHER_SEGMENT,
  RemoteBridges,
  RemoteFailure,
  SERVED,
} from "./remote.ts";

const NEEDS = { tools: ["nft", "ip", "unshare", "nsenter"] };

/** A link as `ip -j` describes it; null when there is none. */
async function link(
  machine: Machine,
  name: string,
): Promise<{ index: number; up: boolean; addresses: string[] } | null> {
  const found = await machine.run(["ip", "-j", "address", "show", "dev", name]);
  if (found.code !== 0) return null;
  const [{ ifindex, flags, addr_info }]: [{
    ifindex: number;
    flags: string[];
    addr_info: { local: string; prefixlen: number }[];
  }] = JSON.parse(found.stdout);
  return {
    index: ifindex,
    up: flags.includes("UP"),
    addresses: addr_info.map(({ local, prefixlen }) => `${local}/${prefixlen}`),
  };
}

function table(machine: Machine): Promise<string> {
  return machine.must(["nft", "list", "table", "inet", "outcall"]);
}

function failsWith(code: string, text: RegExp): (error: unknown) => boolean {
  return (error) => {
    ok(error instanceof RemoteFailure, String(error));
    equal(error.failure.code, code);
    match(error.failure.message, text);
    return true;
  };
}

labTest(
  "S001-AS-001 S001-SC-001 S001-SC-002: up() makes the bridge and the table",
  NEEDS,
  async () => {
    await using host = await Machine.start("host");
    const bridges = new RemoteBridges(host);
    deepEqual(await bridges.status(), {
      name: "outcall0",
      up: false,
      index: null,
      nftables: "inactive",
    }, "S001-AS-004");
    await bridges.up();
    const made = await link(host, "outcall0");
    ok(made?.up);
    deepEqual(await bridges.status(), {
      name: "outcall0",
      up: true,
      index: made.index,
      nftables: "active",
    }, "S001-AS-003");
    match(await table(host), /"outcall0"/);
    match(await table(host), /hook forward priority filter; policy drop;/);
  },
);

labTest(
  "S001-AS-002 S001-AS-007: up() adopts a bridge that exists, whoever made it",
  NEEDS,
  async () => {
    await using host = await Machine.start("host");
    await host.must(["ip", "link", "add", "outcall0", "type", "bridge"]);
    const before = await link(host, "outcall0");
    const bridges = new RemoteBridges(host);
    await bridges.up();
    await bridges.up();
    const after = await link(host, "outcall0");
    ok(after?.up);
    equal(after.index, before?.index);
  },
);

labTest("S001-EC-004: whatever is in the table of an earlier run is replaced", NEEDS, async () => {
  await using host = await Machine.start("host");
  const stale =
    "table inet outcall { chain forward { type filter hook forward priority 7; accept; }; chain x {}; }";
  await host.must(["nft", stale]);
  await new RemoteBridges(host).up();
  doesNotMatch(await table(host), /chain x|priority filter \+ 7/);
});

labTest(
  "attach() gives the bridge its gateway address and no IPv6 (D27), again and again",
  NEEDS,
  async () => {
    await using host = await Machine.start("host");
    const bridges = new RemoteBridges(host);
    await bridges.up();
    for (let i = 0; i < 2; i++) {
      await bridges.attach(DEFAULT_SEGMENT);
      await bridges.attach(OTHER_SEGMENT);
      const made = await link(host, "outcall1");
      ok(made?.up);
      deepEqual(made.addresses, ["10.200.0.1/24"]);
      deepEqual((await link(host, "outcall0"))?.addresses, ["10.200.255.1/24"]);
    }
    doesNotMatch(await table(host), SERVED, "no service is open before it listens");
    await bridges.open(ALL_LISTEN);
    match(await table(host), /"outcall1" \. 10\.200\.0\.0 \. 10\.200\.0\.255 \. 10\.200\.0\.1/);
    deepEqual(await bridges.segments(), [DEFAULT_SEGMENT, OTHER_SEGMENT]);
    equal(await bridges.nextFreeName(), "outcall2");
  },
);

labTest("S001-EC-002: without nft nothing is attached: no table, no bridge", NEEDS, async () => {
  await using host = await Machine.start("host");
  // Hides every program there from this machine only.
  await host.must(["mount", "-t", "tmpfs", "none", "/usr/sbin"]);
  const bridges = new RemoteBridges(host);
  const missing = failsWith(
    "bridge.nft_missing",
    /^nft command not found — is nftables installed\?$/,
  );
  await rejects(bridges.up(), missing);
  await rejects(bridges.attach(OTHER_SEGMENT), missing);
  equal(
    await Deno.readTextFile(`/proc/${host.pid}/net/dev`).then((dev) => /outcall/.test(dev)),
    false,
  );
  await host.must(["umount", "/usr/sbin"]);
  await bridges.up();
  deepEqual(await bridges.segments(), [], "the failed attach left nothing behind");
});

labTest(
  "S001-EC-003: without CAP_NET_ADMIN the message names it and the remedy",
  NEEDS,
  async () => {
    await using host = await Machine.start("host");
    const bridges = new RemoteBridges(host, {}, ["setpriv", "--bounding-set=-net_admin"]);
    await rejects(
      bridges.up(),
      failsWith(
        "bridge.permission",
        /^permission denied running nft — are you root or have CAP_NET_ADMIN\?$/,
      ),
    );
    equal(await link(host, "outcall0"), null);
  },
);

labTest(
  "an interface of that name that is no bridge is refused, and not cut off",
  NEEDS,
  async () => {
    await using host = await Machine.start("host");
    await host.must(["ip", "link", "add", "outcall0", "type", "veth", "peer", "name", "other"]);
    const bridges = new RemoteBridges(host);
    await rejects(
      bridges.up(),
      failsWith("bridge.not_a_bridge", /'outcall0' exists, but it is a veth/),
    );
    await rejects(bridges.attach(DEFAULT_SEGMENT), failsWith("bridge.not_a_bridge", /veth/));
    notEqual((await host.run(["nft", "list", "table", "inet", "outcall"])).code, 0);
  },
);

labTest(
  "a bridge inside another device: its packets would carry another name",
  NEEDS,
  async (t) => {
    await using host = await Machine.start("host");
    const vrf = await host.run(["ip", "link", "add", "vrf0", "type", "vrf", "table", "10"]);
    await t.step({
      name: "is refused [skipped where the kernel has no VRF]",
      ignore: vrf.code !== 0,
      fn: async () => {
        await host.must(["ip", "link", "add", "outcall0", "type", "bridge"]);
        await host.must(["ip", "link", "set", "outcall0", "master", "vrf0"]);
        await rejects(new RemoteBridges(host).up(), failsWith("bridge.enslaved", /outcall0/));
      },
    });
  },
);

labTest("detach() removes the link first and its part of the table after it", NEEDS, async () => {
  await using host = await Machine.start("host");
  const bridges = new RemoteBridges(host);
  await bridges.up();
  await bridges.attach(DEFAULT_SEGMENT);
  await bridges.attach(OTHER_SEGMENT);
  await bridges.detach(OTHER_SEGMENT);
  equal(await link(host, "outcall1"), null);
  doesNotMatch(await table(host), /"outcall1" \.|10\.200\.0\.1/);
  equal((await bridges.status()).nftables, "active");

  await bridges.detach(DEFAULT_SEGMENT);
  const remade = await link(host, "outcall0");
  deepEqual(
    [remade?.up, remade?.addresses],
    [true, []],
    "the default bridge stays, without address",
  );
  match(await table(host), /"outcall0"/);
});

labTest(
  "detach() and down() refuse while something is plugged in, and leave it working",
  NEEDS,
  async () => {
    await using host = await Machine.start("host");
    const bridges = new RemoteBridges(host);
    await bridges.up();
    await bridges.attach(OTHER_SEGMENT);
    await host.must(["ip", "link", "add", "agent7", "type", "veth", "peer", "name", "eth7"]);
    await host.must(["ip", "link", "set", "agent7", "master", "outcall1"]);
    const before = await table(host);
    await rejects(bridges.detach(OTHER_SEGMENT), failsWith("bridge.in_use", /agent7/));
    await rejects(bridges.down(), failsWith("bridge.in_use", /agent7/));
    await rejects(
      bridges.down("sentry-1", "sentry-2"),
      failsWith("bridge.in_use", /sentry-1, sentry-2/),
    );
    equal(await table(host), before);
    ok((await link(host, "outcall1"))?.up);
    await host.must(["nft", "flush", "ruleset"]);
    deepEqual(await bridges.repair(), ["the firewall was changed"], "what stays is kept right");
  },
);

labTest(
  "S001-AS-005 S001-SC-005: down() leaves no table and no link; up() brings both back",
  NEEDS,
  async () => {
    await using host = await Machine.start("host");
    const bridges = new RemoteBridges(host);
    await bridges.down();
    await bridges.up();
    await bridges.attach(DEFAULT_SEGMENT);
    await bridges.attach(OTHER_SEGMENT);
    await bridges.down();
    equal(await link(host, "outcall0"), null);
    equal(await link(host, "outcall1"), null);
    notEqual((await host.run(["nft", "list", "table", "inet", "outcall"])).code, 0);
    equal((await bridges.status()).up, false);
    await bridges.up();
    deepEqual((await link(host, "outcall1"))?.addresses, ["10.200.0.1/24"]);
    equal((await bridges.status()).nftables, "active");
  },
);

labTest(
  "S001-FR-010 S001-AS-006: close() keeps bridge and table and takes the services away",
  NEEDS,
  async () => {
    await using host = await Machine.start("host");
    const first = new RemoteBridges(host);
    await first.up();
    await first.attach(DEFAULT_SEGMENT);
    await first.open(ALL_LISTEN);
    match(await table(host), SERVED);
    await first.close();
    await first.kill();
    const closed = await table(host);
    match(closed, /"outcall0"/);
    doesNotMatch(closed, SERVED);
    ok((await link(host, "outcall0"))?.up);

    const next = new RemoteBridges(host);
    equal((await next.status()).nftables, "inactive", "not ours yet");
    await next.up();
    doesNotMatch(await table(host), SERVED, "start-up opens nothing by itself");
    await next.open(ALL_LISTEN);
    match(await table(host), /set proxy_clients {[^}]*"outcall0" \. 10\.200\.255\.0 /);
    deepEqual((await next.segments()).map((segment) => segment.subnet), ["10.200.255.0/24"]);
  },
);

labTest("status() notices every change to the table, and repair() mends it", NEEDS, async (t) => {
  await using host = await Machine.start("host");
  const bridges = new RemoteBridges(host);
  await bridges.up();
  await bridges.attach(DEFAULT_SEGMENT);
  const changes: readonly string[] = [
    "flush ruleset",
    "delete table inet outcall",
    "flush chain inet outcall forward",
    "insert rule inet outcall forward accept",
    "flush set inet outcall bridges",
    'delete element inet outcall bridges { "outcall0" }',
    'add element inet outcall dns_clients { "outcall0" . 0.0.0.0 . 0.0.0.255 . 10.200.255.1 }',
    "add chain inet outcall forward { policy accept; }",
    "add chain inet outcall extra",
    "add table inet outcall { flags dormant; }",
    "add map inet outcall extra { type ifname : verdict; }",
    "flush chain inet outcall input; delete chain inet outcall input; " +
    "add chain inet outcall input { type filter hook input priority 7; }",
    "flush chain inet outcall input_from_agents",
    "flush chain inet outcall prerouting",
  ];
  for (const change of changes) {
    await t.step(change, async () => {
      equal((await bridges.status()).nftables, "active");
      await host.must(["nft", change]);
      equal((await bridges.status()).nftables, "inactive");
      await bridges.repair();
      equal((await bridges.status()).nftables, "active");
    });
  }
});

labTest(
  "a bridge that is made later is covered from its first packet on, by its name",
  NEEDS,
  async () => {
    await using host = await Machine.start("host");
    await host.must(["ip", "link", "add", "outcall2", "type", "veth", "peer", "name", "else0"]);
    const bridges = new RemoteBridges(host);
    await bridges.up();
    const text = await table(host);
    for (const name of ["outcall1", "outcall255"]) ok(text.includes(`"${name}"`), name);
    ok(!text.includes('"outcall2"'), "an interface that is no bridge is somebody else's");

    const renamed = new RemoteBridges(host, { name: "agents0" });
    await renamed.up();
    const later = await table(host);
    for (const name of ["agents1", "outcall1"]) ok(later.includes(`"${name}"`), name);
  },
);

labTest(
  "bridges that need cover get it: earlier names, other blocks, no address",
  NEEDS,
  async () => {
    await using host = await Machine.start("host");
    const earlier = new RemoteBridges(host, { name: "agents0" });
    await earlier.up();
    await earlier.attach({ ...DEFAULT_SEGMENT, bridge: "agents0" });
    await earlier.kill();
    for (const name of ["outcall4", "outcall5", "docker0"]) {
      await host.must(["ip", "link", "add", name, "type", "bridge"]);
    }
    await host.must(["ip", "address", "add", "10.201.0.1/24", "dev", "outcall5"]);

    const bridges = new RemoteBridges(host);
    await bridges.up();
    const text = await table(host);
    for (const name of ["agents0", "outcall0", "outcall4", "outcall5"]) {
      ok(text.includes(`"${name}"`));
    }
    doesNotMatch(text, /docker0/);
    doesNotMatch(text, SERVED, "none of them has services");

    await host.must(["ip", "link", "delete", "agents0"]);
    await bridges.attach(DEFAULT_SEGMENT);
    match(await table(host), /"agents0"/, "it may come back, with agents on it");
  },
);
