import { deepEqual, equal, ok, throws } from "node:assert/strict";
import fc from "fast-check";
import {
  attribute,
  concat,
  cString,
  encodeMessage,
  NetlinkFormatError,
  type NetlinkMessage,
  parseMessages,
} from "../../lib/linux/netlink.ts";
import { listenerOf, parseLoggedPacket } from "../../lib/linux/nflog.ts";
import { eventually } from "../eventually.ts";
import { Machine } from "../lab/machine.ts";
import { denoCommand } from "../lab/product.ts";
import { labTest } from "../lab/requirements.ts";
import { SEED } from "../random.ts";

const PACKET = 4 << 8;

function message(...attributes: readonly Uint8Array[]): NetlinkMessage {
  const body = concat(new Uint8Array([7, 0, 0x6f, 0x63]), ...attributes);
  return { type: PACKET, flags: 0, sequence: 0, portId: 0, body };
}

const HEADER = attribute(1, new Uint8Array([8, 0, 0, 0]));
const MAC = attribute(8, new Uint8Array([0, 6, 0, 0, 2, 0x42, 10, 200, 0, 2, 0, 0]));

Deno.test("a logged packet is read with all that the kernel tells of it", () => {
  const read = parseLoggedPacket(message(
    HEADER,
    attribute(4, new Uint8Array([0, 0, 1, 2])),
    attribute(6, new Uint8Array([0, 0, 0, 9])),
    MAC,
    attribute(9, new Uint8Array([0x45, 0])),
    attribute(10, cString("not_as_pinned")),
    attribute(12, new Uint8Array([0xff, 0, 0, 1])),
    attribute(20, new Uint8Array(8)),
  ));
  deepEqual(read, {
    prefix: "not_as_pinned",
    device: 258,
    port: 9,
    mac: "02:42:0a:c8:00:02",
    etherType: 0x0800,
    isTagged: true,
    payload: new Uint8Array([0x45, 0]),
    sequence: 0xff000001,
  });
});

Deno.test("what the kernel leaves out is unknown, and another message is none", () => {
  deepEqual(parseLoggedPacket(message(HEADER)), {
    prefix: "",
    device: null,
    port: null,
    mac: null,
    etherType: 0x0800,
    isTagged: false,
    payload: new Uint8Array(),
    sequence: null,
  });
  equal(parseLoggedPacket({ ...message(HEADER), type: 3 }), null);
});

Deno.test("a message that is not as documented is refused", () => {
  const bad: readonly NetlinkMessage[] = [
    message(),
    { ...message(), body: new Uint8Array(3) },
    message(attribute(1, new Uint8Array(1))),
    message(HEADER, attribute(4, new Uint8Array(3))),
    message(HEADER, attribute(8, new Uint8Array([0, 6, 0, 0, 1, 2]))),
    message(HEADER, attribute(12, new Uint8Array(2))),
  ];
  for (const one of bad) throws(() => parseLoggedPacket(one), NetlinkFormatError);
});

Deno.test("whatever arrives is read or refused, and nothing else is thrown", () => {
  const attributes = fc.array(fc.tuple(fc.nat(22), fc.uint8Array({ maxLength: 24 })), {
    maxLength: 12,
  });
  const cut = fc.nat(200);
  fc.assert(
    fc.property(attributes, cut, (written, length) => {
      const encoded = encodeMessage(
        message(...written.map(([type, value]) => attribute(type, value))),
      );
      try {
        parseMessages(encoded.subarray(0, length)).map(parseLoggedPacket);
      } catch (error) {
        ok(error instanceof NetlinkFormatError);
      }
    }),
    { seed: SEED, numRuns: 5000 },
  );
});

Deno.test("the listener of a group is found in the kernel's list, if it is told at all", () => {
  const listing = "    1   4711     0 2 65535    100  1\n28515    815     0 2     0     10  1\n" +
    "   77 2326845311     0 2     0     10  1\n";
  deepEqual([28515, 2, 77].map((group) => listenerOf(group, listing)), [815, null, null]);
  equal(listenerOf(1, ""), null);
});

/** Reads the log in a machine of the lab. */
const READER = denoCommand(new URL("nflog_program.ts", import.meta.url));

labTest("packets that nobody fetched in time are counted as lost, exactly", {
  tools: ["nft", "unshare", "nsenter", "ping", "ip"],
}, async () => {
  await using machine = await Machine.start("host");
  await machine.must(["nft", "-f", "-"], {
    input: `table inet t {
      chain output {
        type filter hook output priority 0
        udp dport 9 counter log group 4711 snaplen 64 drop
      }
    }`,
  });
  const reader = machine.spawn(READER);
  await reader.line("stdout", (line) => line === "joined");
  // 100,000 packets are more than the receive buffer holds; the reader sleeps meanwhile.
  await machine.must([
    "python3",
    "-c",
    `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(100000):
    try: s.sendto(b"x", ("127.0.0.1", 9))
    except PermissionError: pass
`,
  ]);
  await reader.tell("read");
  const counted: { read: number; lost: number } = JSON.parse(
    await reader.line("stdout", (line) => line.startsWith("{")),
  );
  ok(counted.lost > 0, "some were lost");
  ok(counted.read > 0, "some were read");
  equal(counted.read + counted.lost, 100_001, "with the last one, which shows the loss");
});

labTest("a group has one reader at a time", { tools: ["unshare", "nsenter"] }, async () => {
  await using machine = await Machine.start("host");
  const first = machine.spawn(READER);
  await first.line("stdout", (line) => line === "joined");
  const second = machine.spawn(READER);
  const refused = await second.line("stdout", () => true);
  ok(refused.includes("netfilter log group 4711 is taken by process"), refused);
  await first.tell("end");
  await first.ended;
  await eventually(async () => {
    const third = machine.spawn(READER);
    return await third.line("stdout", () => true) === "joined";
  });
});
