import { deepEqual, equal, ok } from "node:assert/strict";
import fc from "fast-check";
import type { Agent } from "../../lib/agents.ts";
import { attribute, type Drop, PinIndex } from "../../lib/bridge/drops/attribution.ts";
import { DropRecords } from "../../lib/bridge/drops/records.ts";
import type { Pin } from "../../lib/bridge/ports.ts";
import { DROP_GROUP } from "../../lib/bridge/report.ts";
import { type Decision, DecisionLog } from "../../lib/decision.ts";
import type { LoggedPacket } from "../../lib/linux/nflog.ts";
import { Ip } from "../../lib/net/ip.ts";
import { eventually } from "../eventually.ts";
import { Machine } from "../lab/machine.ts";
import { denoCommand } from "../lab/product.ts";
import { labTest } from "../lab/requirements.ts";
import { SEED } from "../random.ts";

const PIN: Pin = {
  port: "veth7",
  index: 7,
  bridge: "outcall0",
  mac: "02:42:0a:c8:ff:02",
  address: "10.200.255.2",
};
const BRIDGE_INDEX = 3;
const OWN = { pins: new PinIndex([PIN]), deviceName: deviceOf };

function deviceOf(index: number): string | null {
  return index === BRIDGE_INDEX ? "outcall0" : index === 4 ? "outcall1" : null;
}

/** A TCP packet to 1.1.1.1 port 443. */
function tcpFrom(source: string): Uint8Array {
  const bytes = new Uint8Array(40);
  bytes.set([0x45, 0, 0, 40]);
  bytes[9] = 6;
  bytes.set(Ip.parse(source)?.bytes ?? [], 12);
  bytes.set([1, 1, 1, 1], 16);
  bytes.set([0x80, 0, 1, 187], 20);
  return bytes;
}

const BEHIND_BRIDGE: LoggedPacket = {
  prefix: "forward_denied",
  device: BRIDGE_INDEX,
  port: null,
  mac: PIN.mac,
  etherType: 0x0800,
  isTagged: false,
  payload: tcpFrom(PIN.address),
  sequence: 0,
};
const AT_PORT: LoggedPacket = { ...BEHIND_BRIDGE, prefix: "not_as_pinned", port: PIN.index };
const TARGET = { address: "1.1.1.1", protocol: "tcp", port: 443 };

Deno.test("D28: a packet is an agent's by address, MAC and bridge together", () => {
  deepEqual(attribute(BEHIND_BRIDGE, OWN), {
    reason: "forward_denied",
    pin: PIN,
    sender: "agent 7",
    source: PIN.address,
    attempt: TARGET,
  });
  const others: readonly Partial<LoggedPacket>[] = [
    { mac: "02:42:0a:c8:ff:03" },
    { mac: null },
    { device: 4 },
    { device: 99 },
    { device: null },
    { payload: tcpFrom("10.200.255.3") },
    { payload: new Uint8Array(3) },
  ];
  for (const other of others) equal(attribute({ ...BEHIND_BRIDGE, ...other }, OWN)?.pin, null);
});

Deno.test("D13: at a port the port alone tells who it is; what the packet claims is a claim", () => {
  const forged = attribute({ ...AT_PORT, payload: tcpFrom("10.200.255.9") }, OWN);
  deepEqual([forged?.reason, forged?.pin, forged?.source], ["spoofed", PIN, PIN.address]);
  deepEqual(forged?.attempt, { ...TARGET, claimedSource: "10.200.255.9" });
  equal(attribute({ ...AT_PORT, mac: "02:00:00:00:00:09" }, OWN)?.reason, "spoofed");
  equal(attribute({ ...AT_PORT, port: 8 }, OWN)?.pin, null);
});

Deno.test("the reason of a drop at a port is told from the frame", () => {
  const rows: readonly [Partial<LoggedPacket>, string | undefined][] = [
    [{}, "unpinned"],
    [{ etherType: 0x86dd, payload: new Uint8Array(40).fill(0x60, 0, 1) }, "ipv6"],
    [{ etherType: 0x88cc }, "foreign_ethertype"],
    [{ isTagged: true }, "foreign_ethertype"],
    [{ payload: new Uint8Array(5) }, "malformed"],
    [{ prefix: "agent_to_agent" }, "agent_to_agent"],
    [{ prefix: "foreign_port", payload: tcpFrom("10.200.255.9") }, "spoofed"],
    [{ prefix: "somebody else's" }, undefined],
  ];
  for (const [change, reason] of rows) {
    equal(attribute({ ...AT_PORT, ...change }, OWN)?.reason, reason);
  }
});

/** A question by ARP for an address. */
function arpFor(target: string): Uint8Array {
  const bytes = new Uint8Array(28);
  bytes.set([0, 1, 8, 0, 6, 4, 0, 1]);
  bytes.set(Ip.parse(PIN.address)?.bytes ?? [], 14);
  bytes.set(Ip.parse(target)?.bytes ?? [], 24);
  return bytes;
}

Deno.test("T-2: whoever looks for a neighbour wants to reach it; who announces itself does not", () => {
  const asking = { ...AT_PORT, prefix: "neighbour", etherType: 0x0806 };
  const drop = attribute({ ...asking, payload: arpFor("10.200.255.3") }, OWN);
  deepEqual([drop?.reason, drop?.source, drop?.attempt], ["agent_to_agent", PIN.address, {
    address: "10.200.255.3",
    protocol: "arp",
  }]);
  equal(attribute({ ...asking, payload: arpFor(PIN.address) }, OWN), null);
});

Deno.test("what comes from outside is nobody's of ours, whatever address it has", () => {
  const drop = attribute({ ...BEHIND_BRIDGE, prefix: "outside_denied" }, OWN);
  deepEqual([drop?.pin, drop?.sender, drop?.source], [null, "outside", PIN.address]);
});

Deno.test("no packet makes the attribution throw, or blames an agent at another port", () => {
  const packets = fc.record({
    prefix: fc.constantFrom("not_as_pinned", "foreign_port", "forward_denied", "spoofed", "x"),
    device: fc.constantFrom(null, BRIDGE_INDEX, 4),
    port: fc.constantFrom(null, 8),
    mac: fc.constantFrom(null, PIN.mac, "02:00:00:00:00:01"),
    etherType: fc.constantFrom(0x0800, 0x0806, 0x86dd, 0x88cc),
    isTagged: fc.boolean(),
    payload: fc.uint8Array({ maxLength: 128 }),
    sequence: fc.nat(),
  });
  fc.assert(
    fc.property(packets, (packet) => {
      const drop = attribute(packet, OWN);
      if (packet.port !== null) equal(drop?.pin ?? null, null);
    }),
    { seed: SEED, numRuns: 5000 },
  );
});

const AGENT: Agent = { name: "a", address: PIN.address, network: "outcall-default" };

function dropTo(port: number, sender = "agent 7", reason: Drop["reason"] = "forward_denied"): Drop {
  return { reason, pin: PIN, sender, source: PIN.address, attempt: { ...TARGET, port } };
}

function recording(
  identify: (address: string) => Agent | null | Promise<Agent | null> = () => AGENT,
): { records: DropRecords; log: DecisionLog } {
  const log = new DecisionLog();
  const records = new DropRecords({
    identify,
    generation: () => 3,
    record: (decision) => log.record(decision),
    update: (decision, changes) => log.update(decision, changes),
  });
  return { records, log };
}

const summary = ({ reason, count, targets }: Decision): unknown[] => [
  reason,
  count ?? 1,
  targets?.distinct ?? 1,
];

Deno.test("D28: a scan is one record that grows, written once however many packets there are", () => {
  const { records, log } = recording();
  const changes: string[] = [];
  log.addSink((_, change) => changes.push(change));
  for (let port = 1; port <= 1000; port++) records.add(dropTo(port), port);
  records.add(dropTo(1), 1000);
  records.flush(1001);
  records.flush(1002);
  deepEqual(changes, ["new", "update"]);
  const [record, ...others] = log.recent();
  deepEqual(others, []);
  deepEqual(record && summary(record), ["forward_denied", 1001, 1000]);
  deepEqual(record?.targets?.first, [1, 2, 3, 4, 5].map((port) => `1.1.1.1:${port} tcp`));
  deepEqual(
    [record?.layer, record?.agent, record?.verdict, record?.rule, record?.generation],
    ["kernel", AGENT, "block", null, 3],
  );
});

Deno.test("each agent, each reason, and each time after a pause has a record of its own", () => {
  const { records, log } = recording();
  records.add(dropTo(1), 0);
  records.add(dropTo(1, "agent 8"), 0);
  records.add(dropTo(1, "agent 7", "input_denied"), 0);
  equal(log.recent().length, 3);
  records.add(dropTo(1), 59_999);
  equal(log.recent().length, 3);
  records.add(dropTo(1), 59_999 + 60_000);
  equal(log.recent().length, 4);
  deepEqual(summary(log.recent()[0] ?? log.record(NEVER)), ["forward_denied", 2, 1]);
});

const NEVER = {
  generation: 0,
  layer: "kernel",
  agent: null,
  source: "",
  attempt: {},
  verdict: "block",
  reason: "ipv6",
  rule: null,
} as const;

Deno.test("a record that never falls quiet ends all the same, and another begins", () => {
  const { records, log } = recording();
  for (let ms = 0; ms <= 600_000; ms += 1000) {
    records.add(dropTo(1), ms);
    records.flush(ms);
  }
  deepEqual(log.recent().map(summary), [["forward_denied", 600, 1], ["forward_denied", 1, 1]]);
});

Deno.test("memory is bounded in records and in targets", () => {
  const { records, log } = recording();
  for (let i = 0; i < 3000; i++) records.add(dropTo(1, `port ${i}`), i);
  equal(records.growing, 1024);
  for (let i = 0; i < 10_000; i++) {
    records.add({ ...dropTo(1), attempt: { address: `1.1.${i >> 8}.${i & 255}` } }, 3000);
  }
  records.flush(3001);
  const record = log.recent().at(-1);
  deepEqual(record && summary(record), ["forward_denied", 10_000, 2048]);
  records.flush(3001 + 60_000);
  equal(records.growing, 0);
});

Deno.test("packets that come while it is looked up whose they are count too", async () => {
  const asked = Promise.withResolvers<Agent | null>();
  const { records, log } = recording(() => asked.promise);
  records.add(dropTo(1), 0);
  records.add(dropTo(2), 1);
  records.flush(2);
  deepEqual(log.recent(), []);
  asked.resolve(AGENT);
  await asked.promise;
  records.flush(3);
  deepEqual(log.recent().map(summary), [["forward_denied", 2, 2]]);
});

Deno.test("an agent that cannot be looked up is recorded by its address", async () => {
  const failed = Promise.reject(new Error("Docker is away"));
  const { records, log } = recording(() => failed);
  records.add(dropTo(1), 0);
  await failed.catch(() => {});
  await Promise.resolve();
  const [record] = log.recent();
  ok(record !== undefined);
  deepEqual([record.agent, record.source], [null, PIN.address]);
});

interface ReaderState {
  readonly state: string;
  readonly reported: number;
  readonly restarts: number;
}

labTest("a reader that has lost the log says so, joins it anew, and reads on", {
  tools: ["nft", "unshare", "nsenter", "bash"],
}, async () => {
  await using machine = await Machine.start("host");
  await machine.must(["nft", "-f", "-"], {
    input: `table inet t {
      chain output {
        type filter hook output priority 0
        udp dport 9 log prefix "outside_denied" group ${DROP_GROUP} snaplen 64 drop
      }
    }`,
  });
  const reader = machine.spawn(denoCommand(new URL("drops_program.ts", import.meta.url)));
  await reader.line("stdout", (line) => line === "started");
  const ask = async (line: string): Promise<ReaderState> => {
    const printed = reader.stdout.length;
    await reader.tell(line);
    return JSON.parse(await reader.line("stdout", () => true, printed));
  };
  const send = (): Promise<unknown> => machine.run(["bash", "-c", "echo x > /dev/udp/127.0.0.1/9"]);

  await send();
  await eventually(async () => (await ask("?")).reported === 1);
  await ask("break");
  await eventually(async () => {
    const { state, restarts } = await ask("?");
    return state === "degraded" && restarts === 1;
  });
  await eventually(async () => (await ask("?")).state === "ok");
  await send();
  await eventually(async () => (await ask("?")).reported === 2);
});
