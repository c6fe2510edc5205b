import { deepEqual, equal, match, ok } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { connect, Machine } from "../lab/machine.ts";
import { labTest } from "../lab/requirements.ts";
import { ALL_LISTEN, DEFAULT_SEGMENT, RemoteBridges } from "./remote.ts";
import { AGENT, seen, World } from "./world.ts";

const NEEDS = { tools: ["nft", "ip", "unshare", "nsenter", "nc", "ping", "bridge", "python3"] };
const GATEWAY = DEFAULT_SEGMENT.gateway;
const THIEF = "10.200.255.66";
const HOSTILE = fileURLToPath(new URL("../e2e/hostile.py", import.meta.url));

/** What comes in by the cable for whomever, as a neighbour that listens sees it. */
const WIRETAP = `
table netdev wiretap {
  chain heard {
    type filter hook ingress device eth0 priority 0; policy accept;
    ip daddr ${THIEF} counter
  }
}
`;

/** A further agent on the default network's bridge, not pinned yet. */
async function plugThief(world: World, port: string): Promise<Machine> {
  const thief = await Machine.start("thief");
  await thief.useResolver("127.0.0.1");
  await connect({ machine: world.host, interface: port }, {
    machine: thief,
    interface: "eth0",
    address: `${THIEF}/24`,
  });
  await world.host.must(["ip", "link", "set", port, "master", "outcall0"]);
  return thief;
}

/** What the table holds of ports, but for those that were reported of late: the kernel forgets them. */
async function knownPorts(host: Machine): Promise<string> {
  const sets = ["ports", "pinned", "macs"].map((set) =>
    host.must(["nft", "list", "set", "bridge", "outcall", set])
  );
  return (await Promise.all(sets)).join("");
}

/** One datagram to the gateway's DNS port; whether the host's filters admitted it. */
async function isAdmitted(world: World, from: Machine, source: string): Promise<boolean> {
  const before = await seen(world.host, "admitted from agents");
  await from.run(["bash", "-c", `echo x | nc -u -w1 -s ${source} ${GATEWAY} 53`]);
  return await seen(world.host, "admitted from agents") > before;
}

/** Whether what the host sends to the agent's address arrives at the agent. */
async function isReached(world: World): Promise<boolean> {
  const before = await seen(world.agent, "from network");
  await world.host.run(["ping", "-c1", "-W1", AGENT]);
  return await seen(world.agent, "from network") > before;
}

/** Frames to the thief's address that have come to `machine`, which has a {@linkcode WIRETAP}. */
async function heard(machine: Machine): Promise<number> {
  const listing = await machine.must(["nft", "list", "table", "netdev", "wiretap"]);
  return Number(/packets (\d+)/.exec(listing)?.[1]);
}

async function macOf(machine: Machine): Promise<string> {
  const [{ address }]: [{ address: string }] = JSON.parse(
    await machine.must(["ip", "-j", "link", "show", "eth0"]),
  );
  return address;
}

labTest(
  "D13 ADV-NET: a port speaks as the one it was pinned to, or not at all",
  NEEDS,
  async (t) => {
    await using world = await World.create();
    const { host, agent } = world;
    await using thief = await plugThief(world, "thief0");

    await t.step("a port that nobody has looked at yet reaches nothing", async () => {
      ok(await isAdmitted(world, agent, AGENT), "positive control");
      equal(await isAdmitted(world, thief, THIEF), false);
    });
    await t.step("nor does it speak as another agent behind VLAN tags, pinned or not", async () => {
      const [{ address: gatewayMac }]: [{ address: string }] = JSON.parse(
        await host.must(["ip", "-j", "link", "show", "outcall0"]),
      );
      const agentMac = await macOf(agent);
      const believed = ["ip", "neigh", "show", AGENT, "dev", "outcall0"];
      for (const isPinned of [false, true]) {
        if (isPinned) await world.bridges.repair();
        ok(await isReached(world), "makes the entry");
        const before = await seen(host, "admitted from agents");
        await Promise.all(["0", "1", "2", "3"].map(async (depth) => {
          const tagged = ["python3", HOSTILE, "tagged", depth];
          await thief.must([...tagged, "dns", "own", gatewayMac, AGENT, GATEWAY, "example.com"]);
          await thief.must([...tagged, "arp", "own", AGENT, gatewayMac, GATEWAY]);
        }));
        match(await host.must(believed), new RegExp(agentMac));
        equal(await seen(host, "admitted from agents"), before);
      }
    });
    await t.step("once pinned it reaches its gateway, under its own address", async () => {
      await world.bridges.repair();
      ok(await isAdmitted(world, thief, THIEF));
      match(await host.must(["bridge", "-d", "link", "show", "dev", "thief0"]), /isolated on/);
    });
    await t.step(
      "another agent's address is not admitted from it, nor believed by ARP",
      async () => {
        ok(await isReached(world), "positive control");
        await thief.must(["ip", "address", "add", `${AGENT}/32`, "dev", "eth0"]);
        equal(await isAdmitted(world, thief, AGENT), false);
        await host.must(["ip", "neigh", "flush", "dev", "outcall0"]);
        // Fresh questions from the thief, with the agent's address as their sender.
        await thief.must(["ip", "neigh", "flush", "dev", "eth0"]);
        await thief.run(["ping", "-c1", "-W1", "-I", AGENT, GATEWAY]);
        ok(await isReached(world));
        const neighbour = await host.must(["ip", "neigh", "show", AGENT, "dev", "outcall0"]);
        match(neighbour, new RegExp(await macOf(agent)));
      },
    );
    await t.step("a free address is not admitted from it either", async () => {
      await thief.must(["ip", "address", "add", "10.200.255.77/32", "dev", "eth0"]);
      equal(await isAdmitted(world, thief, "10.200.255.77"), false);
    });
    await t.step(
      "another agent's MAC is not admitted from it, nor learnt by the bridge",
      async () => {
        const own = await macOf(thief);
        await thief.must(["ip", "link", "set", "eth0", "address", await macOf(agent)]);
        equal(await isAdmitted(world, thief, THIEF), false);
        equal(await isAdmitted(world, thief, AGENT), false);
        ok(await isReached(world));
        await thief.must(["ip", "link", "set", "eth0", "address", own]);
        ok(await isAdmitted(world, thief, THIEF), "its own again");
      },
    );
    await t.step("agents on one bridge exchange no frame, IPv6 included (T-2, D27)", async () => {
      for (const machine of [agent, thief]) {
        await machine.must(["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0"]);
      }
      await agent.must(["ip", "address", "add", "2a00:9::1/64", "dev", "eth0", "nodad"]);
      await thief.must(["ip", "address", "add", "2a00:9::2/64", "dev", "eth0", "nodad"]);
      const before = await seen(agent, "from network");
      await thief.run(["ping", "-c1", "-W1", AGENT]);
      await thief.run(["ping", "-c1", "-W1", "2a00:9::1"]);
      await thief.run(["ping", "-c1", "-W1", "ff02::1%eth0"]);
      equal(await seen(agent, "from network"), before);
    });
    await t.step(
      "a pin outlives the daemon, and what changed meanwhile counts for nothing",
      async () => {
        await world.bridges.kill();
        equal(await isAdmitted(world, thief, "10.200.255.77"), false);
        await thief.must(["ip", "address", "flush", "dev", "eth0"]);
        await thief.must(["ip", "address", "add", "10.200.255.77/24", "dev", "eth0"]);
        const next = new RemoteBridges(host);
        await next.up();
        await next.open(ALL_LISTEN);
        equal(await isAdmitted(world, thief, "10.200.255.77"), false);
        ok(await isAdmitted(world, agent, AGENT), "who has changed nothing works on");
        await host.must(["ip", "link", "delete", "thief0"]);
        await next.repair();
        equal(
          /thief0|10\.200\.255\.66/.test(await knownPorts(host)),
          false,
          "a port that is gone takes its pin along",
        );
      },
    );
  },
);

labTest("T-6: what the host sends to one agent comes to no other port", NEEDS, async (t) => {
  await using world = await World.create();
  const { host, agent } = world;
  await using thief = await plugThief(world, "thief0");
  await world.bridges.repair();
  await using late = await plugThief(world, "late0");
  await late.must(["ip", "address", "flush", "dev", "eth0"]);
  const ears = [thief, agent, late];
  for (const ear of ears) await ear.must(["nft", "-f", "-"], { input: WIRETAP });
  const thiefMac = await macOf(thief);
  const entry = ["ip", "neigh", "replace", THIEF, "lladdr", thiefMac, "dev", "outcall0"];
  await host.must([...entry, "nud", "permanent"]);
  /** How many frames each of them hears of one that the host sends to the thief. */
  const overheard = async (): Promise<number[]> => {
    const before = await Promise.all(ears.map(heard));
    await host.must(["bash", "-c", `echo answer > /dev/udp/${THIEF}/9`]);
    const after = await Promise.all(ears.map(heard));
    return after.map((count, i) => count - (before[i] ?? 0));
  };

  await t.step("positive control", async () => {
    await thief.run(["ping", "-c1", "-W1", GATEWAY]); // the bridge learns where it is
    deepEqual(await overheard(), [1, 0, 0]);
  });
  await t.step("also when the bridge has forgotten an agent that was silent for long", async () => {
    await host.must(["ip", "link", "set", "outcall0", "type", "bridge", "fdb_flush"]);
    deepEqual(await overheard(), [1, 0, 0]);
  });
  await t.step(
    "nor when the bridge has learnt it from a port that nobody has looked at",
    async () => {
      await host.must(["bridge", "fdb", "replace", thiefMac, "dev", "late0", "master", "dynamic"]);
      deepEqual(await overheard(), [0, 0, 0]);
    },
  );
  await t.step("nor when its port is gone and the host goes on answering", async () => {
    await host.must(["ip", "link", "delete", "thief0"]);
    await host.must(["ip", "link", "set", "outcall0", "type", "bridge", "fdb_flush"]);
    ears.shift();
    deepEqual(await overheard(), [0, 0]);
    await world.bridges.repair();
    deepEqual(await overheard(), [0, 0]);
  });
});

labTest("D5: two new ports with one address are both cut off", NEEDS, async () => {
  await using world = await World.create();
  await using first = await plugThief(world, "twin0");
  await using second = await plugThief(world, "twin1");
  await world.bridges.repair();
  ok(await isAdmitted(world, world.agent, AGENT), "positive control");
  equal(await isAdmitted(world, first, THIEF), false);
  equal(await isAdmitted(world, second, THIEF), false);
});

labTest("200 agents come and go, each pinned, and leave nothing in the table", NEEDS, async () => {
  await using host = await Machine.start("host");
  await using agents = await Machine.start("agents");
  const bridges = new RemoteBridges(host);
  await bridges.up();
  await bridges.attach(DEFAULT_SEGMENT);
  const empty = await knownPorts(host);
  const script = `
for n in {2..201}; do
  ip link add many$n type veth peer name eth$n netns ${agents.pid}
  ip link set many$n master outcall0 up
done`;
  await nsenterFromOutside(host, script);
  await agents.must([
    "bash",
    "-c",
    "for n in {2..201}; do ip address add 10.200.255.$n/24 dev eth$n; done",
  ]);
  await bridges.repair();
  const pinned = await host.must(["nft", "list", "set", "bridge", "outcall", "pinned"]);
  equal(pinned.match(/"many\d+"/g)?.length, 200);
  await host.must(["bash", "-c", "for n in {2..201}; do ip link delete many$n; done"]);
  await bridges.repair();
  equal(await knownPorts(host), empty);
});

/** Runs a script in the host's network, but with process numbers of the real machine. */
async function nsenterFromOutside(host: Machine, script: string): Promise<void> {
  const { success } = await new Deno.Command("nsenter", {
    args: [`--net=/proc/${host.pid}/ns/net`, "--", "bash", "-c", script],
  }).output();
  ok(success);
}
