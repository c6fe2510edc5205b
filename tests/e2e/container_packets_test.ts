/**
 * Packets and frames of hostile containers (ADV-NET, T-1 to T-6): root and an ordinary user, with
 * and without the right to forge. What is tried works on an ordinary Docker network; that shows that
 * the attack is one.
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import type { Container } from "../lab/container.ts";
import { DecisionWatch } from "../lab/decisions.ts";
import {
  EXAMPLE_ADDRESS,
  METADATA_ADDRESS,
  PRIVATE_ADDRESS,
  UPSTREAM_RESOLVER,
} from "../lab/internet/world.ts";
import { HOST_ADDRESS, UNFILTERED_ADDRESS, UNFILTERED_GATEWAY } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";
import { nothing } from "../lab/witness.ts";
import {
  GATEWAYS,
  hostile,
  HostileLab,
  IMAGE,
  MANAGED,
  ORDINARY,
  type Pair,
  Sniffer,
  TOOLS,
} from "./hostile.ts";

/** What the victim may do, and nobody else. */
const RULES = `
version: "1"
rules:
  - id: victim-only
    action: allow
    condition: agent.name == "victim" && http.host == "api.openai.com"
`;

/** Addresses on the internet that must not be reached, and those of the host. */
const OUTSIDE = ["1.1.1.1", EXAMPLE_ADDRESS, METADATA_ADDRESS, PRIVATE_ADDRESS];
const PUBLISHED_PORT = 9000;

const PROXY = "http://10.200.0.1:8080";
const ASK = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"];
const API = "https://api.openai.com/v1/models";

/** A resolver on the host. */
const FORWARDER = `
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("127.0.0.1", 53))
there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    question, sender = here.recvfrom(4096)
    there.sendto(question, ("${UPSTREAM_RESOLVER}", 53))
    here.sendto(there.recv(4096), sender)
`;

/** A wait in which nothing is expected: what the attack took on the ordinary network, and more. */
const QUIET_MS = 300;

function quiet(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, QUIET_MS));
}

/** Who has `address`, to `at`. */
async function neighbour(
  at: { must(argv: readonly string[]): Promise<string> },
  address: string,
): Promise<string> {
  const listing = await at.must(["ip", "neigh", "show", address]);
  return /lladdr (\S+)/.exec(listing)?.[1] ?? "nobody";
}

labTest("packets of hostile containers reach nobody", { tools: TOOLS }, async (t) => {
  await using stage = await HostileLab.create(RULES);
  const { lab } = stage;
  const managed = await stage.pair(MANAGED);
  const ordinary = await stage.pair(ORDINARY);
  const pairs = [ordinary, managed];
  const published = await stage.run("published", ORDINARY, "-p", `${PUBLISHED_PORT}:80`);
  const atVictim = await Sniffer.start(managed.victim);
  const atPublished = await Sniffer.start(published);
  const onTheHost = [
    ...[HOST_ADDRESS, UNFILTERED_GATEWAY, GATEWAYS[ORDINARY] ?? "", "10.200.255.1"],
    managed.gateway,
  ];
  const amongAgents = [managed.victimAddress, "10.200.0.255", "255.255.255.255", "224.0.0.1"];

  await t.step("positive control: an unfiltered machine reaches all of it", async () => {
    const mark = await lab.witness.mark();
    const admitted = await stage.admitted("others");
    const tried = await lab.control(hostile("everything", ...OUTSIDE, HOST_ADDRESS));
    assert.doesNotMatch(tried.stdout, /EPERM|ENETUNREACH/);
    const { packets } = await lab.witness.since(mark, { from: UNFILTERED_ADDRESS });
    const seen = new Set(packets.map(({ to, protocol }) => `${to} ${protocol}`));
    for (const to of OUTSIDE) {
      for (const protocol of ["tcp", "udp", "icmp"]) assert.ok(seen.has(`${to} ${protocol}`), to);
    }
    assert.ok(await stage.admitted("others") >= admitted + 10);
    await atPublished.frame(0, UNFILTERED_ADDRESS);
    const beside = atVictim.count;
    await lab.host.must(["ping", "-c", "1", managed.victimAddress]);
    await atVictim.frame(beside, managed.gateway, managed.victimAddress);
  });

  const bare = await stage.run("bare", MANAGED, "--cap-drop", "ALL");
  const usual = await stage.run("usual", MANAGED);
  const created = await stage.create("created");
  const profiles = [
    { name: "root with NET_ADMIN and NET_RAW", from: managed.attacker, forges: true },
    { name: "root with Docker's usual rights", from: usual, forges: true },
    { name: "root without capabilities", from: bare, forges: false },
    { name: "an ordinary user in what `container create` makes", from: created, forges: false },
  ];
  const mark = await lab.witness.mark();
  const admitted = await stage.admitted("agents");
  const [victimFrames, publishedFrames] = [atVictim.count, atPublished.count];
  const attempts = profiles.map(({ from }) =>
    from.run(hostile("everything", ...OUTSIDE, ...onTheHost, ...amongAgents))
  );
  await Promise.all(attempts);
  assert.equal(await stage.admitted("agents"), admitted);
  for (const [i, { name, from, forges }] of profiles.entries()) {
    await t.step(`ADV-NET-01 06 08 09 14: ${name}`, async () => {
      const address = await from.address(MANAGED);
      const tried = await attempts[i];
      assert.ok(tried !== undefined);
      assert.equal(tried.code, 0, tried.stderr);
      const raw = /^protocol-132 1\.1\.1\.1 (.*)$/m.exec(tried.stdout)?.[1];
      assert.equal(raw, forges ? "sent" : "EPERM");
      assert.deepEqual(
        [...tried.stdout.matchAll(/^tcp (.*) connected$/gm)].map(([, where]) => where),
        [`${managed.gateway} 53`],
      );
      for (const sender of [HOST_ADDRESS, address]) {
        const seen = await lab.witness.since(mark, { from: sender });
        assert.ok(nothing(seen), `${name}: ${JSON.stringify(seen)}`);
      }
      await lab.host.must(["ping", "-c", "1", managed.victimAddress]); // the sniffer is awake
      await atVictim.frame(victimFrames, managed.gateway, managed.victimAddress);
      assert.deepEqual(atVictim.frames(victimFrames, address), []);
      assert.deepEqual(atPublished.frames(publishedFrames, address), []);
      assert.deepEqual(atPublished.frames(publishedFrames, "0800"), []);
    });
  }

  await t.step(
    "nor does one that sends from its first moment on, before its port is pinned",
    async () => {
      const mark = await lab.witness.mark();
      const [admitted, frames] = [await stage.admitted("agents"), atVictim.count];
      const targets = [...OUTSIDE, ...onTheHost, managed.victimAddress];
      const printed = await stage.engine.must([
        ...[
          "run",
          "--rm",
          "--ip",
          "10.200.0.90",
          "--network",
          MANAGED,
          "--cap-add",
          "NET_RAW",
          IMAGE,
        ],
        ...hostile("everything", ...targets),
      ]);
      assert.match(printed, /^icmp 1\.1\.1\.1 sent$/m);
      for (const from of [HOST_ADDRESS, "10.200.0.90"]) {
        assert.ok(nothing(await lab.witness.since(mark, { from })));
      }
      assert.equal(await stage.admitted("agents"), admitted);
      assert.deepEqual(atVictim.frames(frames, "10.200.0.90"), []);
    },
  );

  const atAttacker = new Map<Pair, Sniffer>();
  for (const pair of pairs) atAttacker.set(pair, await Sniffer.start(pair.attacker));
  /** Frames of or to the victim that the attacker saw since `from`. */
  const overheard = (pair: Pair, from: number): string[] =>
    atAttacker.get(pair)?.frames(from, pair.victimAddress) ?? [];
  const attackerFrames = (pair: Pair): number => atAttacker.get(pair)?.count ?? 0;
  const works = async (): Promise<void> => {
    const { stdout } = await managed.victim.run([...ASK, "-m", "5", API]);
    assert.equal(stdout, "401", "the victim works as before");
  };

  await t.step("T-6: the bridge does not learn the victim's MAC from the attacker", async () => {
    for (const pair of pairs) {
      const { attacker, gatewayMac, victimMac, victimAddress } = pair;
      const before = attackerFrames(pair);
      await attacker.must(hostile("frames", victimMac, gatewayMac, "88b5"));
      await lab.host.run(["ping", "-c", "1", "-W", "1", victimAddress]);
      if (pair === ordinary) {
        await eventually(() => overheard(pair, before).length > 0, "the attack is one");
      } else {
        await quiet();
        assert.deepEqual(overheard(pair, before), []);
      }
    }
    await works();
  });

  await t.step("ADV-NET-03: ARP replies of the attacker convince nobody", async () => {
    await Promise.all(pairs.map(async (pair) => {
      const { attacker, gateway, gatewayMac, victim, victimMac, victimAddress } = pair;
      const attackerMac = await attacker.mac(pair.network);
      await victim.run(["bash", "-c", `echo > /dev/udp/${gateway}/53`]); // makes the entries
      await Promise.all([
        attacker.must(hostile("arp", "own", gateway, victimMac, victimAddress)),
        attacker.must(hostile("arp", "own", victimAddress, gatewayMac, gateway)),
      ]);
      const believed = [await neighbour(victim, gateway), await neighbour(lab.host, victimAddress)];
      const expected = pair === ordinary ? [attackerMac, attackerMac] : [gatewayMac, victimMac];
      assert.deepEqual(believed, expected, pair.network);
    }));
    await works();
  });

  await t.step("ADV-NET-02 03, BYPASS-08: no frame but one's own IPv4 goes anywhere", async () => {
    const atOther = await Sniffer.start(ordinary.victim);
    const sniffers = new Map([[ordinary, atOther], [managed, atVictim]]);
    for (const pair of pairs) {
      const sniffer = sniffers.get(pair);
      assert.ok(sniffer !== undefined);
      const before = sniffer.count;
      const attackerMac = await pair.attacker.mac(pair.network);
      const receivers = ["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", pair.victimMac].join();
      // IPv6, VLAN tags, ARP, and a protocol for experiments.
      await pair.attacker.must(hostile("frames", "own", receivers, "86dd,8100,0806,88b5"));
      await pair.attacker.run(["ping", "-c", "1", "-W", "1", "ff02::1%eth0"]);
      if (pair === ordinary) {
        for (const type of ["86dd", "0806", "88b5"]) await sniffer.frame(before, attackerMac, type);
      } else {
        await lab.host.must(["ping", "-c", "1", pair.victimAddress]);
        await sniffer.frame(before, pair.gateway);
        assert.deepEqual(sniffer.frames(before, attackerMac), []);
      }
    }
  });

  /** SYNs with all mixtures of the two agents' addresses. */
  const forgedSyns = async (pair: Pair, to: string): Promise<void> => {
    const { attacker, attackerAddress, victimAddress, victimMac, gatewayMac } = pair;
    for (
      const [mac, address] of [
        ["own", victimAddress],
        [victimMac, victimAddress],
        [victimMac, attackerAddress],
      ] as const
    ) {
      await attacker.must(hostile("tcp", mac, gatewayMac, address, to, "443"));
    }
  };

  await t.step(
    "ADV-NET-04: a grant serves no packet that only looks like its agent's",
    async () => {
      const granted = await lab.cli(
        ...["grants", "allow", "--agent", "victim", "--to", EXAMPLE_ADDRESS, "--for", "5m"],
      );
      assert.equal(granted.code, 0, granted.stderr);
      const arrival = { from: HOST_ADDRESS, to: EXAMPLE_ADDRESS };
      const control = await lab.witness.mark();
      await managed.victim.must(["nc", "-z", "-w", "1", EXAMPLE_ADDRESS, "443"]);
      assert.ok(!nothing(await lab.witness.since(control, arrival)), "the victim's own arrives");
      const forged = await lab.witness.mark();
      await forgedSyns(ordinary, EXAMPLE_ADDRESS);
      await eventually(async () => !nothing(await lab.witness.since(forged, arrival)));
      const mark = await lab.witness.mark();
      await forgedSyns(managed, EXAMPLE_ADDRESS);
      await quiet();
      assert.ok(nothing(await lab.witness.since(mark, arrival)));
    },
  );

  /** What `as` is told and what is recorded when it asks as the victim might, from `address`. */
  const askFrom = async (
    as: Container,
    address: string,
  ): Promise<readonly [string, number, readonly string[]]> => {
    const watch = await DecisionWatch.start(lab);
    const dig = await as.run([
      ...["dig", "-b", address, "+short", "+time=1", "+tries=1", "api.openai.com", "@10.200.0.1"],
    ]);
    const seconds = as === managed.victim ? "5" : "1";
    const curl = await as.run([
      ...[...ASK, "-m", seconds, "--interface", address, "-x", PROXY, API],
    ]);
    const { records } = await watch.decided(managed.victimAddress);
    const addresses = dig.stdout.split("\n").filter((line) => /^[\d.]+$/.test(line));
    return [curl.stdout, addresses.length, records.map(({ verdict }) => verdict)];
  };

  await t.step("ADV-NET-04: an attacker with the victim's address is not the victim", async () => {
    const { attacker, attackerAddress, victimAddress, victimMac, gatewayMac, gateway } = managed;
    const [allowed, , verdicts] = await askFrom(managed.victim, victimAddress);
    assert.equal(allowed, "401", "positive control");
    assert.ok(verdicts.length > 0 && verdicts.every((verdict) => verdict === "allow"));
    assert.deepEqual(await askFrom(attacker, attackerAddress), ["000", 0, []]);

    await attacker.must(["ip", "address", "add", `${victimAddress}/24`, "dev", "eth0"]);
    assert.deepEqual(await askFrom(attacker, victimAddress), ["000", 0, []]);
    for (const mac of ["own", victimMac]) {
      const watch = await DecisionWatch.start(lab);
      await attacker.must(
        hostile("dns", mac, gatewayMac, victimAddress, gateway, "api.openai.com"),
      );
      await quiet();
      assert.deepEqual((await watch.decided(victimAddress)).records, []);
    }
    // The forged question is one: with the attacker's own addresses it is recorded.
    const watch = await DecisionWatch.start(lab);
    await attacker.must(
      hostile("dns", "own", gatewayMac, attackerAddress, gateway, "api.openai.com"),
    );
    await eventually(async () => (await watch.decided(attackerAddress)).records.length === 1);
    await works();
  });

  await t.step("ADV-NET-04: nor is one with the victim's MAC and address", async () => {
    const { attacker, attackerAddress, victimAddress, victimMac, gateway } = managed;
    await attacker.must([
      "bash",
      "-ec",
      `ip address flush dev eth0; ip link set eth0 down address ${victimMac}; ip link set eth0 up
      ip address add ${victimAddress}/24 dev eth0; ip route add default via ${gateway}`,
    ]);
    const mark = await lab.witness.mark();
    assert.deepEqual(await askFrom(attacker, victimAddress), ["000", 0, []]);
    await attacker.run(["nc", "-z", "-w", "1", EXAMPLE_ADDRESS, "443"]);
    assert.ok(nothing(await lab.witness.since(mark, { from: HOST_ADDRESS, to: EXAMPLE_ADDRESS })));
    await works();
    // Whoever takes the place of the gateway is heard by nobody either.
    await attacker.must(["ip", "address", "add", `${gateway}/24`, "dev", "eth0"]);
    await works();
    await attacker.must([
      "bash",
      "-ec",
      `ip address flush dev eth0; ip link set eth0 down address ${await attacker.mac(
        MANAGED,
      )}; ip link set eth0 up
      ip address add ${attackerAddress}/24 dev eth0; ip route add default via ${gateway}`,
    ]);
    assert.equal((await askFrom(attacker, attackerAddress))[0], "000");
  });

  await t.step("T-6: in all this the attacker saw nothing of the victim's", () => {
    assert.notDeepEqual(atAttacker.get(managed)?.frames(0, managed.gateway), []);
    assert.deepEqual(overheard(managed, 0), []);
  });

  await t.step("ADV-NET-13: who gets the address of a dead agent inherits no grant", async () => {
    const at = ["--ip", "10.200.0.99"];
    await stage.run("mortal", MANAGED, ...at);
    const granted = await lab.cli(
      ...["grants", "allow", "--agent", "mortal", "--to", "1.1.1.1", "--for", "5m"],
    );
    assert.equal(granted.code, 0, granted.stderr);
    const arrival = { from: HOST_ADDRESS, to: "1.1.1.1" };
    const knock = async (name: string): Promise<boolean> => {
      const mark = await lab.witness.mark();
      await stage.engine.docker(["exec", name, "nc", "-z", "-w", "1", "1.1.1.1", "443"]);
      return !nothing(await lab.witness.since(mark, arrival));
    };
    assert.ok(await knock("mortal"), "positive control");
    await stage.engine.must(["rm", "-f", "mortal"]);
    await stage.run("heir", MANAGED, ...at);
    assert.equal(await knock("heir"), false);
    assert.doesNotMatch((await lab.cli("grants", "list")).stdout, /mortal|10\.200\.0\.99/);
  });

  const health = async (): Promise<string> =>
    JSON.stringify((await lab.api("GET", "/api/v1/health")).body);

  await t.step("ADV-NET-05: an agent on a network beside the managed ones is told of", async () => {
    assert.doesNotMatch(await health(), /also on network/);
    await stage.engine.must(["network", "connect", ORDINARY, "usual"]);
    await eventually(async () => /\\"usual\\" is also on network/.test(await health()));
    assert.match(stage.daemon.log.join("\n"), /the firewall is bypassed: container \\"usual\\"/);
    await stage.engine.must(["network", "disconnect", ORDINARY, "usual"]);
    await eventually(async () => !/also on network/.test(await health()));
  });

  await t.step(
    "ADV-NET-07: Docker's resolver asks the filter where the gateway is given",
    async () => {
      const ask = async (name: string): Promise<boolean> => {
        const mark = await lab.witness.mark();
        await stage.engine.docker(["exec", name, "dig", "+time=1", "+tries=1", "github.com"]);
        return !nothing(await lab.witness.since(mark, { name: "github.com" }));
      };
      // One that knows no --dns asks the host's resolver, from inside: the filter drops that.
      assert.equal(await ask("usual"), false);
      // A resolver on the host itself is asked by Docker in the host's name.
      await lab.host.must(["bash", "-c", "echo nameserver 127.0.0.1 > /etc/resolv.conf"]);
      lab.host.spawn(["python3", "-c", FORWARDER]);
      await eventually(async () => {
        return (await lab.host.run(["dig", "+time=1", "+tries=1", "github.com"])).code === 0;
      });
      await stage.start("careless", MANAGED);
      await eventually(async () => await ask("careless"), "the way past is one");
      await eventually(async () => /--dns 10\.200\.0\.1/.test(await health()), "it is told of");
      await stage.start("careful", MANAGED, "--dns", managed.gateway);
      assert.equal(await ask("careful"), false);
      assert.equal(await ask("created"), false);
      assert.doesNotMatch(await health(), /careful|created/);
    },
  );
});
