import { deepEqual, equal, notDeepEqual, notEqual, ok } from "node:assert/strict";
import { type FirewallState, firewallTable } from "../../lib/bridge/firewall.ts";
import { renderUpdate } from "../../lib/bridge/table.ts";
import type { Machine } from "../lab/machine.ts";
import { labTest } from "../lab/requirements.ts";
import { ALL_LISTEN, DEFAULT_SEGMENT, OTHER_SEGMENT, RemoteBridges } from "./remote.ts";
import {
  AGENT,
  BYSTANDER,
  HOST,
  INTERNET,
  NEIGHBOUR,
  type Seen,
  seen,
  sender,
  World,
} from "./world.ts";

const NEEDS = { tools: ["nft", "ip", "unshare", "nsenter", "nc", "ping", "sysctl"] };
const GATEWAY = "10.200.255.1";
const OTHER_GATEWAY = "10.200.0.1";

const udp = (address: string, port: number): string[] => [
  "bash",
  "-c",
  `echo hello > /dev/udp/${address}/${port}`,
];
/** Longer than any answer takes here: who waits is witness to nothing, the receivers' counters are. */
const PATIENCE_SECS = "0.5";
const tcp = (address: string, port: number, patienceSecs = PATIENCE_SECS): string[] => [
  ...["timeout", patienceSecs, "nc", "-z", address, `${port}`],
];
const ping = (...args: string[]): string[] => ["ping", "-c1", "-W", PATIENCE_SECS, ...args];

/** How many packets `what` counts on `witness` while `from` runs `argv`, whatever its outcome. */
async function arrivals(
  from: Machine,
  argv: readonly string[],
  witness: Machine,
  what: Seen,
): Promise<number> {
  const before = await seen(witness, what);
  await from.run(argv);
  return await seen(witness, what) - before;
}

labTest(
  "S001-SC-003 ADV-NET-01 ADV-NET-14: nothing of an agent reaches the internet",
  NEEDS,
  async (t) => {
    await using world = await World.create();
    const { internet, agent, bystander } = world;
    const attempts: Readonly<Record<string, readonly string[]>> = {
      "TCP": tcp(INTERNET, 443),
      "UDP": udp(INTERNET, 53),
      "ICMP": ping(INTERNET),
      "ICMP in fragments": ping("-s", "4000", INTERNET),
      "a packet of full size": ping("-s", "1472", "-M", "do", INTERNET),
      "SCTP": sender("raw", "132", INTERNET),
      "GRE": sender("raw", "47", INTERNET),
      "an unassigned protocol": sender("raw", "253", INTERNET),
    };
    for (const [name, argv] of Object.entries(attempts)) {
      await t.step(name, async () => {
        ok(await arrivals(bystander, argv, internet, "from network") > 0, "positive control");
        equal(await arrivals(agent, argv, internet, "from network"), 0);
      });
    }
    await t.step("with a source address that is not the agent's (ADV-NET-04)", async () => {
      for (const machine of [agent, bystander]) {
        await machine.must(["ip", "address", "add", "5.6.7.8/32", "dev", "lo"]);
      }
      const argv = ping("-I", "5.6.7.8", INTERNET);
      ok(await arrivals(bystander, argv, internet, "from network") > 0, "positive control");
      equal(await arrivals(agent, argv, internet, "from network"), 0);
    });
    await t.step("routed IPv6 is not forwarded (ADV-NET-02, D27)", async () => {
      await world.host.must(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]);
      for (
        const [machine, net, name] of [
          [internet, "1", "eth0"],
          [agent, "2", "eth0"],
          [bystander, "3", "eth0"],
          [world.host, "1", "up0"],
          [world.host, "2", "outcall0"],
          [world.host, "3", "docker9"],
        ] as const
      ) {
        const own = machine === world.host ? "1" : "2";
        await machine.must(["sysctl", "-qw", `net.ipv6.conf.${name}.disable_ipv6=0`]);
        await machine.must([
          ...["ip", "address", "add", `2a00:${net}::${own}/64`, "dev", name, "nodad"],
        ]);
        if (machine !== world.host) {
          await machine.must(["ip", "route", "add", "default", "via", `2a00:${net}::1`]);
        }
      }
      ok(await arrivals(bystander, ping("2a00:1::2"), internet, "from network") > 0, "control");
      equal(await arrivals(agent, ping("2a00:1::2"), internet, "from network"), 0);
      ok(await arrivals(bystander, ping("2a00:3::1"), world.host, "admitted from bystander") > 0);
      equal(await arrivals(agent, ping("2a00:2::1"), world.host, "admitted from agents"), 0);
      equal(await arrivals(agent, ping("ff02::1%eth0"), world.host, "admitted from agents"), 0);
      equal(await arrivals(world.host, ping("2a00:2::2"), agent, "from network"), 0);
    });
    await t.step("status stays active: counters are no change", async () => {
      equal((await world.bridges.status()).nftables, "active");
    });
  },
);

labTest(
  "D14 ADV-NET-06 ADV-NET-09: of the host an agent reaches its gateway's services only",
  NEEDS,
  async (t) => {
    await using world = await World.create();
    const { host, agent, bystander, internet } = world;

    await t.step("DNS over UDP and TCP, and the proxy, are reached", async () => {
      for (const port of [53, 8080]) {
        host.spawn(["nc", "-lk", GATEWAY, `${port}`]);
        while ((await host.run(tcp(GATEWAY, port))).code !== 0);
        equal((await agent.run(tcp(GATEWAY, port, "5"))).code, 0);
      }
      equal(await arrivals(agent, udp(GATEWAY, 53), host, "admitted from agents"), 1);
    });

    // The bystander's gateway is 172.18.0.1: the same packet in its network.
    const refused: Readonly<Record<string, { argv: string[]; control: string[] }>> = {
      "another TCP port of the gateway": { argv: tcp(GATEWAY, 22), control: tcp("172.18.0.1", 22) },
      "another UDP port of the gateway": {
        argv: udp(GATEWAY, 123),
        control: udp("172.18.0.1", 123),
      },
      "the proxy's port over UDP": { argv: udp(GATEWAY, 8080), control: udp("172.18.0.1", 8080) },
      "ICMP to the gateway": { argv: ping(GATEWAY), control: ping("172.18.0.1") },
      "the host's public address": { argv: tcp(HOST, 22), control: tcp(HOST, 22) },
      "DNS at the host's public address": { argv: udp(HOST, 53), control: udp(HOST, 53) },
      "ICMP to the host": { argv: ping(HOST), control: ping(HOST) },
      "another bridge's gateway": {
        argv: tcp("172.18.0.1", 8080),
        control: tcp("172.18.0.1", 8080),
      },
      "another managed network's DNS": {
        argv: udp(OTHER_GATEWAY, 53),
        control: udp("172.18.0.1", 53),
      },
      "another managed network's proxy": {
        argv: tcp(OTHER_GATEWAY, 8080),
        control: tcp(HOST, 8080),
      },
      "broadcast (ADV-NET-03)": {
        argv: ping("-b", "10.200.255.255"),
        control: ping("-b", "172.18.0.255"),
      },
      "multicast": { argv: udp("224.0.0.1", 5353), control: udp("224.0.0.1", 5353) },
      "SCTP to the gateway": {
        argv: sender("raw", "132", GATEWAY),
        control: sender("raw", "132", HOST),
      },
    };
    for (const [name, { argv, control }] of Object.entries(refused)) {
      await t.step(`${name} is not`, async () => {
        ok(await arrivals(bystander, control, host, "admitted from bystander") > 0, "control");
        equal(await arrivals(agent, argv, host, "admitted from agents"), 0);
      });
    }

    await t.step("127.0.0.1 is not, even with route_localnet", async () => {
      for (
        const [machine, gateway, port] of [
          [bystander, "172.18.0.1", "docker9"],
          [agent, GATEWAY, "outcall0"],
        ] as const
      ) {
        await host.must(["sysctl", "-qw", `net.ipv4.conf.${port}.route_localnet=1`]);
        await machine.must(["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"]);
        await machine.must(["ip", "-4", "address", "flush", "dev", "lo"]);
        await machine.must(["ip", "route", "add", "127.0.0.1/32", "via", gateway]);
      }
      const argv = udp("127.0.0.1", 53);
      ok(await arrivals(bystander, argv, host, "admitted from bystander") > 0, "control");
      equal(await arrivals(agent, argv, host, "admitted from agents"), 0);
    });

    await t.step(
      "ports that Docker publishes are not, nor a gateway port taken over by one",
      async () => {
        await host.must(["nft", "-f", "-"], {
          input: `table ip nat {
        chain prerouting {
          type nat hook prerouting priority dstnat
          fib daddr type local tcp dport { 9000, 8080 } dnat to ${BYSTANDER}:80
        }
      }`,
        });
        const at = (machine: Machine, argv: string[]): Promise<number> =>
          arrivals(machine, argv, bystander, "from network");
        ok(await at(internet, tcp(HOST, 9000)) > 0, "positive control");
        equal(await at(agent, tcp(HOST, 9000)), 0);
        equal(await at(agent, tcp(GATEWAY, 9000)), 0);
        equal(await at(agent, tcp(GATEWAY, 8080)), 0);
        equal((await agent.run(tcp(GATEWAY, 8080))).code, 0, "our own service answers");
      },
    );
  },
);

labTest(
  "a foreign source address gets an agent nothing from the host, nor sends it anything",
  NEEDS,
  async (t) => {
    await using world = await World.create();
    const { host, agent, internet } = world;
    const ask = (source: string): string[] => [
      ...["bash", "-c", `echo x | nc -u -w1 -s ${source} ${GATEWAY} 53`],
    ];
    await agent.must(["ip", "address", "add", `${INTERNET}/32`, "dev", "lo"]);
    await agent.must(["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0"]);
    for (const name of ["all", "outcall0", "up0"]) {
      await host.must(["sysctl", "-qw", `net.ipv4.conf.${name}.rp_filter=0`]);
    }

    await t.step("no answer of the DNS filter can be sent to the internet", async () => {
      equal(
        await arrivals(agent, ["nc", "-u", "-w1", GATEWAY, "53"], host, "admitted from agents"),
        0,
      );
      equal(await arrivals(agent, ask(AGENT), host, "admitted from agents"), 1, "positive control");
      equal(await arrivals(agent, ask(INTERNET), host, "admitted from agents"), 0);
      equal(await arrivals(agent, ask(INTERNET), internet, "from network"), 0);
    });

    await t.step(
      "nothing can be put into a connection that the host has with that address",
      async () => {
        const forged = [
          ...["bash", "-c", `echo x | nc -u -w1 -s ${INTERNET} -p 5353 ${HOST} 5555`],
        ];
        await host.must(["bash", "-c", `echo x | nc -u -w1 -s ${HOST} -p 5555 ${INTERNET} 5353`]);
        equal(await arrivals(agent, forged, host, "admitted from agents"), 0);
      },
    );

    await t.step("a network of one size is not taken for one of another", async () => {
      // Without the ports' table, which would not let these packets come that far.
      await world.bridges.kill();
      await host.must(["nft", "delete", "table", "bridge", "outcall"]);
      const small = { ...DEFAULT_SEGMENT, subnet: "10.200.255.0/28" };
      const state: FirewallState = {
        listening: ALL_LISTEN,
        segments: [small, OTHER_SEGMENT],
        extraBridges: [],
        granted: [],
        dnsPort: 53,
        proxyPort: 8080,
      };
      await host.must(["nft", "-f", "-"], { input: renderUpdate(firewallTable(state)) });
      const foreign = ["10.200.255.20", "10.200.255.250", NEIGHBOUR];
      for (const address of foreign) {
        await agent.must(["ip", "address", "add", `${address}/32`, "dev", "lo"]);
      }
      equal(await arrivals(agent, ask(AGENT), host, "admitted from agents"), 1, "positive control");
      for (const address of foreign) {
        equal(await arrivals(agent, ask(address), host, "admitted from agents"), 0, address);
      }
    });
  },
);

labTest(
  "agents do not reach each other, and nobody reaches them or their gateways, but the host",
  NEEDS,
  async (t) => {
    await using world = await World.create();
    const { host, agent, neighbour, bystander, internet } = world;

    await t.step("T-2: nothing of one agent arrives at another", async () => {
      ok(await arrivals(host, ping(NEIGHBOUR), neighbour, "from network") > 0, "positive control");
      for (const argv of [ping(NEIGHBOUR), tcp(NEIGHBOUR, 22), udp(NEIGHBOUR, 53)]) {
        equal(await arrivals(agent, argv, neighbour, "from network"), 0);
      }
    });

    await t.step("nothing from outside arrives at an agent", async () => {
      ok(await arrivals(internet, ping(BYSTANDER), bystander, "from network") > 0, "control");
      for (const from of [internet, bystander]) {
        equal(await arrivals(from, ping(AGENT), agent, "from network"), 0);
      }
    });

    await t.step("D6: outside to a gateway's services", async () => {
      ok(await arrivals(bystander, udp(HOST, 53), host, "admitted from bystander") > 0, "control");
      equal(await arrivals(bystander, udp(GATEWAY, 53), host, "admitted from bystander"), 0);
      equal(await arrivals(bystander, tcp(GATEWAY, 8080), host, "admitted from bystander"), 0);
    });

    await t.step("the host opens a connection to an agent, and is answered", async () => {
      agent.spawn(["nc", "-lk", AGENT, "8000"]);
      while ((await agent.run(tcp(AGENT, 8000))).code !== 0);
      equal((await host.run(tcp(AGENT, 8000, "5"))).code, 0);
    });

    await t.step("S001-FR-007: other networks of the host notice nothing", async () => {
      equal((await bystander.run(ping(INTERNET))).code, 0);
      equal((await internet.run(ping(BYSTANDER))).code, 0);
      equal((await bystander.run(ping(HOST))).code, 0);
    });
  },
);

labTest(
  "neither queries nor connections leave an entry in the host's connection tracking",
  NEEDS,
  async () => {
    await using world = await World.create();
    const { host, agent } = world;
    const tracked = async (): Promise<string[]> =>
      (await host.must(["cat", "/proc/net/nf_conntrack"])).split("\n")
        .filter((entry) => entry.includes(`=${AGENT} `));
    // Answered by the kernel's "port unreachable", which leaves the gateway too.
    for (let i = 0; i < 5; i++) await agent.run(udp(GATEWAY, 53));
    equal(await arrivals(agent, udp(GATEWAY, 53), host, "admitted from agents"), 1, "control");
    for (const port of [53, 8080]) {
      host.spawn(["nc", "-lk", GATEWAY, `${port}`]);
      while ((await agent.run(tcp(GATEWAY, port))).code !== 0);
    }
    deepEqual(await tracked(), []);
    agent.spawn(["nc", "-lk", AGENT, "8000"]);
    while ((await host.run(tcp(AGENT, 8000))).code !== 0);
    notDeepEqual(await tracked(), [], "what the host begins is tracked as ever");
  },
);

labTest("S001-FR-010: closed, an agent does not even reach its gateway", NEEDS, async () => {
  await using world = await World.create();
  const { host, agent, internet } = world;
  equal(await arrivals(agent, udp(GATEWAY, 53), host, "admitted from agents"), 1, "control");
  await world.bridges.close();
  for (const argv of [udp(GATEWAY, 53), tcp(GATEWAY, 53), tcp(GATEWAY, 8080), ping(GATEWAY)]) {
    equal(await arrivals(agent, argv, host, "admitted from agents"), 0);
  }
  equal(await arrivals(agent, udp(INTERNET, 53), internet, "from network"), 0);
});

labTest(
  "D2: not one packet of a flood gets through while the daemon dies, starts, applies and closes",
  NEEDS,
  async () => {
    await using world = await World.create();
    const { host, agent, bystander, internet } = world;
    ok(await arrivals(bystander, udp(INTERNET, 9), internet, "from network") > 0, "control");
    ok(await arrivals(bystander, udp(HOST, 9), host, "admitted from bystander") > 0, "control");
    const atInternet = await seen(internet, "from network");
    const atHost = await seen(host, "admitted from agents");
    const filtered = await seen(host, "from agents");

    const floods = [
      agent.spawn(sender("flood", INTERNET, "9")),
      agent.spawn(sender("flood", HOST, "9")),
    ];
    for (const flood of floods) await flood.line("stdout", (line) => line === "flooding");
    await world.bridges.kill();
    for (let restart = 0; restart < 3; restart++) {
      const next = new RemoteBridges(host);
      await next.up();
      for (let i = 0; i < 10; i++) await next.attach(DEFAULT_SEGMENT);
      await next.close();
      await next.kill();
    }
    for (const flood of floods) await flood.tell("");
    const sent = await Promise.all(
      floods.map((flood) => flood.line("stdout", (line) => /^\d+$/.test(line))),
    );

    ok(sent.every((count) => Number(count) > 0));
    notEqual(await seen(host, "from agents"), filtered, "the flood reached the firewall");
    equal(await seen(internet, "from network"), atInternet);
    equal(await seen(host, "admitted from agents"), atHost);
  },
);
