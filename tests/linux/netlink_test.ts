import { deepEqual, equal, ok, throws } from "node:assert/strict";
import fc from "fast-check";
import { SystemError } from "../../lib/linux/libc.ts";
import {
  attribute,
  concat,
  cString,
  encodeMessage,
  nested,
  NetlinkFormatError,
  parseAcknowledgement,
  parseAttributes,
  parseMessages,
  readCString,
  readU32,
  u32,
} from "../../lib/linux/netlink.ts";
import { NetlinkSocket } from "../../lib/linux/netlink_socket.ts";
import { parseAddress, parseLink, parseRoute } from "../../lib/linux/rtnetlink_messages.ts";
import { SEED } from "../random.ts";

const u32s = fc.nat(0xffff_ffff);
const bytes = fc.uint8Array({ maxLength: 300 });
const messages = fc.record({
  type: fc.nat(0xffff),
  flags: fc.nat(0xffff),
  sequence: u32s,
  portId: u32s,
  body: bytes,
});

Deno.test("parseMessages() reads back what encodeMessage() wrote, one or many in a datagram", () => {
  fc.assert(fc.property(fc.array(messages, { maxLength: 5 }), (written) => {
    deepEqual(parseMessages(concat(...written.map(encodeMessage))), written);
  }));
});

Deno.test("parseAttributes() reads back what attribute() wrote; the last of a type counts", () => {
  const attributes = fc.array(fc.tuple(fc.nat(0x3fff), bytes), { maxLength: 8 });
  fc.assert(fc.property(attributes, (written) => {
    const encoded = concat(...written.map(([type, value]) => attribute(type, value)));
    deepEqual(parseAttributes(encoded), new Map(written));
  }));
});

Deno.test("nested() sets the flag that parseAttributes() takes off", () => {
  const encoded = nested(18, attribute(1, cString("bridge")));
  equal(new DataView(encoded.buffer).getUint16(2, true), 0x8000 | 18);
  const inner = parseAttributes(parseAttributes(encoded).get(18) ?? new Uint8Array());
  equal(readCString(inner.get(1) ?? new Uint8Array()), "bridge");
});

Deno.test("the last message and attribute may come without padding", () => {
  const encoded = encodeMessage({
    type: 1,
    flags: 0,
    sequence: 0,
    portId: 0,
    body: new Uint8Array([7]),
  });
  equal(parseMessages(encoded.subarray(0, 17))[0]?.body.length, 1);
  equal(parseAttributes(attribute(1, new Uint8Array([7])).subarray(0, 5)).get(1)?.[0], 7);
});

Deno.test("impossible lengths are refused: nothing after them can be trusted", () => {
  const header = (length: number): Uint8Array => concat(u32(length), u32(0), u32(0), u32(0));
  for (const length of [0, 15, 17, 0xffff_ffff]) {
    throws(() => parseMessages(header(length)), NetlinkFormatError);
  }
  throws(() => parseMessages(new Uint8Array(15)), NetlinkFormatError);
  for (const length of [0, 3, 5, 0xffff]) {
    throws(() => parseAttributes(u32(length)), NetlinkFormatError);
  }
  throws(() => parseAttributes(new Uint8Array(3)), NetlinkFormatError);
  throws(() => readU32(new Uint8Array(3)), NetlinkFormatError);
  throws(() => attribute(1, new Uint8Array(65_532)), RangeError);
});

Deno.test("parseAcknowledgement() reads the error and the kernel's words, capped or not", () => {
  const words = attribute(1, cString("Address already assigned"));
  const request = concat(u32(20), new Uint8Array(12));
  const payload = new Uint8Array(4);
  const message = (flags: number, body: Uint8Array) => ({
    ...{ type: 2, flags, sequence: 1, portId: 0, body },
  });
  const errno = u32(-17 >>> 0);
  const said = { errno: 17, detail: "Address already assigned" };
  deepEqual(parseAcknowledgement(message(0x300, concat(errno, request, words))), said);
  deepEqual(parseAcknowledgement(message(0x200, concat(errno, request, payload, words))), said);
  deepEqual(parseAcknowledgement(message(0, concat(errno, request))), {
    errno: 17,
    detail: undefined,
  });
  deepEqual(parseAcknowledgement(message(0, u32(0))), { errno: 0, detail: undefined });
});

Deno.test("whatever the bytes are, parsing ends with a value or a NetlinkFormatError", () => {
  const link = concat(
    u32(0),
    u32(7),
    u32(1),
    u32(0),
    attribute(3, cString("outcall0")),
    attribute(4, u32(1500)),
    nested(18, attribute(1, cString("bridge"))),
  );
  const address = concat(
    Uint8Array.of(2, 24, 0, 0),
    u32(7),
    attribute(2, Uint8Array.of(10, 200, 0, 1)),
  );
  const route = concat(
    Uint8Array.of(2, 24, 0, 0, 254, 0, 0, 1),
    u32(0),
    attribute(1, Uint8Array.of(10, 200, 0, 0)),
    attribute(4, u32(7)),
  );
  const seeds = [link, address, route].map((body) =>
    encodeMessage({ type: 16, flags: 2, sequence: 1, portId: 0, body })
  );
  const mutations = fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 4 });
  const inputs = fc.tuple(fc.constantFrom(...seeds), mutations, fc.nat(200)).map(
    ([original, changes, cut]) => {
      const changed = original.slice();
      for (const [at, value] of changes) changed[at % changed.length] = value;
      return cut < 100 ? changed.subarray(0, Math.max(0, changed.length - cut)) : changed;
    },
  );
  const read = (input: Uint8Array): void => {
    for (const message of parseMessages(input)) {
      for (const parse of [parseLink, parseAddress, parseRoute, parseAcknowledgement]) {
        try {
          parse(message);
        } catch (error) {
          if (!(error instanceof NetlinkFormatError)) throw error;
        }
      }
    }
  };
  fc.assert(
    fc.property(fc.oneof(inputs, bytes), (input) => {
      try {
        read(input);
      } catch (error) {
        if (!(error instanceof NetlinkFormatError)) throw error;
      }
    }),
    { seed: SEED, numRuns: 5000 }, // a failure prints the seed and the shrunken input
  );
  for (const seed of seeds) read(seed);
});

Deno.test("NetlinkSocket reports the kernel's refusal by name", () => {
  using socket = new NetlinkSocket(0);
  const deleteLink = 17;
  throws(
    () =>
      socket.request(
        "delete nothing",
        deleteLink,
        0,
        concat(u32(0), u32(0x7fff_ffff), new Uint8Array(8)),
      ),
    (error: unknown) =>
      error instanceof SystemError && /^delete nothing: /.test(error.message) &&
      ["ENODEV", "EPERM"].includes(error.code),
  );
});

Deno.test("NetlinkSocket.dump() leaves out what earlier answers left behind", () => {
  using socket = new NetlinkSocket(0);
  const getLink = 18;
  const names = (): (string | undefined)[] =>
    socket.dump("list links", getLink, new Uint8Array(16)).map((message) =>
      parseLink(message).name
    );
  ok(names().includes("lo"));
  deepEqual(names(), names());
});
