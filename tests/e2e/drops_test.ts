/** What the kernel drops becomes decision records (D28), seen by packets and by the operator. */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { DEFAULT_PLACE } from "../lab/agent.ts";
import { type RecordedDecision, recordedDecisions } from "../lab/decisions.ts";
import { EXAMPLE_ADDRESS } from "../lab/internet/world.ts";
import { HOST_ADDRESS, Lab } from "../lab/lab.ts";
import { expectBlocked } from "../lab/probe.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = [
  ...["nft", "ip", "iptables", "unshare", "nsenter", "dockerd", "docker"],
  ...["nc", "ping", "python3", "sysctl"],
];
const IMAGE = "lab/agent:1";
const AGENT_ADDRESS = "10.200.255.10";

/** Connects to ports 1 to 1000 of an address and does not wait for answers. */
const SCAN = `
import socket, sys
for port in range(1, 1001):
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex((sys.argv[1], port))
    s.close()
`;

/** One frame from interface eth0 with the ethertype in the first argument. */
const FRAME = `
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
own = s.getsockname()[4]
s.send(b"\\xff" * 6 + own + int(sys.argv[1], 16).to_bytes(2, "big") + bytes(46))
`;

async function kernelRecords(lab: Lab): Promise<RecordedDecision[]> {
  return (await recordedDecisions(lab)).filter(({ layer }) => layer === "kernel");
}

/** The first kernel record that fits, once there is one. */
async function recorded(
  lab: Lab,
  fits: (record: RecordedDecision) => boolean,
): Promise<RecordedDecision> {
  let found: RecordedDecision | undefined;
  await eventually(async () => {
    found = (await kernelRecords(lab)).find(fits);
    return found !== undefined;
  }, `a kernel record that fits ${fits}`);
  assert.ok(found !== undefined);
  return found;
}

labTest("D28: a container's scan of 1000 ports is one record that grows, and nothing arrives", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: true });
  const { engine } = lab;
  assert.ok(engine !== null);
  await engine.importClients(IMAGE, lab.internet.rootPem);
  const daemon = await lab.startDaemon({ rules: {} });
  const made = await lab.cli(
    ...["container", "create", "--image", IMAGE, "--name", "scanner", "--", "sleep", "1000"],
  );
  assert.equal(made.code, 0, made.stderr);
  const scan = ["python3", "-c", SCAN, EXAMPLE_ADDRESS];
  const scanner = {
    run: (argv: readonly string[]) => engine.docker(["exec", "scanner", ...argv]),
  };

  await t.step("the whole scan, under the agent's name", async () => {
    await expectBlocked(lab, {
      client: scanner,
      argv: scan,
      arrives: { to: EXAMPLE_ADDRESS, protocol: "tcp" },
    });
    const record = await recorded(lab, ({ count }) => (count ?? 1) >= 1000);
    assert.equal(record.agent?.name, "scanner");
    assert.match(record.source, /^10\.200\.255\.\d+$/);
    assert.deepEqual(
      [record.verdict, record.reason, record.rule],
      ["block", "forward_denied", null],
    );
    assert.deepEqual(record.attempt, { address: EXAMPLE_ADDRESS, protocol: "tcp", port: 1 });
    assert.equal(record.targets?.distinct, 1000);
    assert.deepEqual(record.targets.first.slice(0, 2), [
      `${EXAMPLE_ADDRESS}:1 tcp`,
      `${EXAMPLE_ADDRESS}:2 tcp`,
    ]);
  });

  await t.step("is one record, and one line of the log", async () => {
    const records = await kernelRecords(lab);
    assert.equal(records.filter(({ reason }) => reason === "forward_denied").length, 1);
    const lines = daemon.log.filter((line) => line.includes(records[0]?.id ?? "-"));
    assert.equal(lines.length, 1, lines.join("\n"));
  });

  await t.step("after a repair of the tables drops are recorded as before", async () => {
    await lab.host.must(["nft", "flush", "ruleset"]);
    await eventually(async () =>
      (await lab.host.run(["nft", "list", "chain", "inet", "outcall", "forward_denied"])).code === 0
    );
    await scanner.run(["bash", "-c", "echo x > /dev/udp/9.9.9.9/53"]);
    await recorded(lab, ({ count }) => count === 1001);
  });
});

labTest("D28: ping, IPv6, a foreign address and foreign frames each give a record", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  await lab.startDaemon();
  const agent = await lab.agent();
  const ofAgent = (reason: string) => (record: RecordedDecision): boolean =>
    record.reason === reason && record.source === AGENT_ADDRESS;

  await t.step("ping to the outside, and to the host", async () => {
    const ping = (address: string): string[] => ["ping", "-c1", "-W1", address];
    await expectBlocked(lab, {
      client: agent,
      argv: ping(EXAMPLE_ADDRESS),
      arrives: { to: EXAMPLE_ADDRESS, protocol: "icmp" },
    });
    const outside = await recorded(lab, ofAgent("forward_denied"));
    assert.deepEqual(outside.attempt, { address: EXAMPLE_ADDRESS, protocol: "icmp" });
    await agent.run(ping(HOST_ADDRESS));
    const host = await recorded(lab, ofAgent("input_denied"));
    assert.deepEqual(host.attempt, { address: HOST_ADDRESS, protocol: "icmp" });
  });

  await t.step(
    "another agent of the same network, which the port's isolation hides (T-2)",
    async () => {
      await using neighbour = await lab.agent({ ...DEFAULT_PLACE, address: "10.200.255.11/24" });
      const listening = neighbour.spawn(["nc", "-lkv", "8000"]);
      await listening.line("stderr", (line) => line.startsWith("Listening"));
      assert.notEqual((await agent.run(["nc", "-z", "-w1", "10.200.255.11", "8000"])).code, 0);
      const record = await recorded(lab, ofAgent("agent_to_agent"));
      assert.deepEqual(record.attempt, { address: "10.200.255.11", protocol: "arp" });
    },
  );

  await t.step("an IPv6 packet is recorded with where it was going (D27)", async () => {
    await agent.must(["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0"]);
    await agent.must(["ip", "address", "add", "2a00:2::2/64", "dev", "eth0", "nodad"]);
    await agent.run(["bash", "-c", "ping -c1 -W1 ff02::1%eth0"]);
    const record = await recorded(lab, ofAgent("ipv6"));
    assert.deepEqual([record.attempt.address, record.attempt.protocol], ["ff02::1", "icmpv6"]);
  });

  await t.step("an address that is not its own (D13)", async () => {
    await agent.must(["ip", "address", "add", "5.6.7.8/32", "dev", "lo"]);
    await agent.run(["ping", "-c1", "-W1", "-I", "5.6.7.8", EXAMPLE_ADDRESS]);
    const record = await recorded(lab, ofAgent("spoofed"));
    assert.deepEqual(record.attempt, {
      address: EXAMPLE_ADDRESS,
      protocol: "icmp",
      claimedSource: "5.6.7.8",
    });
  });

  await t.step("frames that are neither IPv4 nor ARP (D27)", async () => {
    await agent.must(["python3", "-c", FRAME, "0x88cc"]);
    const record = await recorded(lab, ofAgent("foreign_ethertype"));
    assert.deepEqual(record.attempt, { protocol: "0x88cc" });
  });

  await t.step("the reader's state is a part of health", async () => {
    const { body } = await lab.api("GET", "/api/v1/health");
    assert.match(JSON.stringify(body), /"kernel_log","state":"ok","detail":"reading drops/);
  });
});

/** Joins the log group of drops before the daemon does, and keeps it. */
const RIVAL = `
import socket, struct, sys
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.bind((0, 0))
group = 0x6f63
body = struct.pack("!BBH", 0, 0, group) + struct.pack("=HHB3x", 5, 1, 1)
s.send(struct.pack("=IHHII", 16 + len(body), 0x401, 5, 1, 0) + body)
assert struct.unpack_from("=i", s.recv(4096), 16)[0] == 0
print("joined", flush=True)
sys.stdin.readline()
`;

labTest("a log group that another program has taken is told, and taken over when it is free", {
  tools: TOOLS,
}, async () => {
  await using lab = await Lab.create({ docker: false });
  const rival = lab.host.spawn(["python3", "-c", RIVAL]);
  await rival.line("stdout", (line) => line === "joined");
  const daemon = await lab.startDaemon();
  const agent = await lab.agent();
  const health = async (): Promise<string> =>
    JSON.stringify((await lab.api("GET", "/api/v1/ready")).body);
  assert.match(
    await health(),
    /"kernel_log","state":"degraded","detail":"drops are not recorded: netfilter log group 28515 is taken by process \d+ \(python3\); end it"/,
  );
  await expectBlocked(lab, {
    client: agent,
    argv: ["ping", "-c1", "-W1", EXAMPLE_ADDRESS],
    arrives: { to: EXAMPLE_ADDRESS, protocol: "icmp" },
  });
  await rival.tell("");
  await eventually(async () => (await health()).includes("reading drops"));
  await agent.run(["ping", "-c1", "-W1", EXAMPLE_ADDRESS]);
  await recorded(lab, ({ reason }) => reason === "forward_denied");
  assert.equal(daemon.log.filter((line) => line.includes("drops are not recorded")).length, 1);
});
