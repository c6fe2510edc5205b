import assert from "node:assert/strict";
import fc from "fast-check";
import { Cidr } from "../../lib/net/cidr.ts";
import { Ip } from "../../lib/net/ip.ts";

function cidr(text: string): Cidr {
  const parsed = Cidr.parse(text);
  assert.ok(parsed !== null, text);
  return parsed;
}

function ip(text: string): Ip {
  const parsed = Ip.parse(text);
  assert.ok(parsed !== null, text);
  return parsed;
}

const PROBLEMS: readonly (readonly [string, string])[] = [
  ["10.0.0.0", "it has no prefix length, such as /24"],
  ["10.0.0.1/8", "it has host bits set; the block is 10.0.0.0/8"],
  ["10.0.0.0/33", "its prefix length must be a number from 0 to 32"],
  ["::/129", "its prefix length must be a number from 0 to 128"],
  ["10.0.0.0/08", "its prefix length must be a number from 0 to 32"],
  ["10.0.0.0/ 8", "its prefix length must be a number from 0 to 32"],
  ["10.0.0.0/8/8", "its prefix length must be a number from 0 to 32"],
  ["10.0.0/8", "'10.0.0' is not an IP address"],
  ["fe80::%1/64", "'fe80::%1' is not an IP address"],
];
for (const [text, problem] of PROBLEMS) {
  Deno.test(`Cidr.parse() refuses ${text}: ${problem} (ADV-NET-12)`, () => {
    assert.equal(Cidr.parse(text), null);
    assert.equal(Cidr.problem(text), problem);
  });
}

Deno.test("Cidr.contains() is decided by the prefix, bit for bit", () => {
  const block = cidr("100.64.0.0/10");
  assert.ok(block.contains(ip("100.64.0.0")));
  assert.ok(block.contains(ip("100.127.255.255")));
  assert.ok(!block.contains(ip("100.128.0.0")));
  assert.ok(!block.contains(ip("100.63.255.255")));
  assert.ok(!block.contains(ip("::ffff:100.64.0.1")));
  assert.ok(cidr("0.0.0.0/0").contains(ip("255.255.255.255")));
  assert.ok(!cidr("0.0.0.0/0").contains(ip("::")));
  assert.ok(cidr("1.2.3.4/32").contains(ip("1.2.3.4")));
});

Deno.test("Cidr.overlaps() is true exactly when one block holds the other", () => {
  assert.ok(cidr("10.200.0.0/16").overlaps(cidr("10.200.7.0/24")));
  assert.ok(cidr("10.200.7.0/24").overlaps(cidr("10.0.0.0/8")));
  assert.ok(!cidr("10.200.0.0/24").overlaps(cidr("10.200.1.0/24")));
  assert.ok(!cidr("0.0.0.0/0").overlaps(cidr("::/0")));
});

Deno.test("Cidr.within() needs the whole block inside", () => {
  assert.ok(cidr("172.16.5.0/24").within(cidr("172.16.0.0/12")));
  assert.ok(!cidr("172.0.0.0/8").within(cidr("172.16.0.0/12")));
});

Deno.test("Cidr.subnets() lists the /24s of the default block from the bottom (D4)", () => {
  const slots = [...cidr("10.200.0.0/16").subnets(24)].map(String);
  assert.equal(slots.length, 256);
  assert.equal(slots[0], "10.200.0.0/24");
  assert.equal(slots[255], "10.200.255.0/24");
  assert.equal(String(cidr("10.200.0.0/24").address(1n)), "10.200.0.1");
  assert.equal(cidr("10.200.0.0/24").subnetCount(16), 0n);
  assert.throws(() => cidr("10.200.0.0/24").subnet(24, 1n), RangeError);
  assert.throws(() => cidr("10.200.0.0/24").subnet(33, 0n), RangeError);
});

Deno.test("Cidr: every address of a random block is in it, and its neighbours are not", () => {
  const input = fc.record({
    bytes: fc.uint8Array({ minLength: 4, maxLength: 4 }),
    prefix: fc.integer({ min: 8, max: 32 }),
  });
  fc.assert(fc.property(input, ({ bytes, prefix }) => {
    const whole = cidr("0.0.0.0/0");
    const value = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
    const index = value >> BigInt(32 - prefix);
    const block = whole.subnet(prefix, index);
    assert.equal(String(Cidr.parse(String(block))), String(block));
    assert.ok(block.contains(Ip.fromBytes(bytes)));
    if (index > 0n) assert.ok(!whole.subnet(prefix, index - 1n).overlaps(block));
  }));
});

Deno.test("Cidr: masks and last address are those that people know", () => {
  assert.equal(String(cidr("10.200.7.0/24").mask), "255.255.255.0");
  assert.equal(String(cidr("10.200.7.0/24").hostMask), "0.0.0.255");
  assert.equal(String(cidr("10.200.7.0/24").last), "10.200.7.255");
  assert.equal(String(cidr("0.0.0.0/0").last), "255.255.255.255");
  assert.equal(String(cidr("1.2.3.4/32").last), "1.2.3.4");
  assert.equal(String(cidr("fd00::/126").last), "fd00::3");
});

Deno.test("Cidr: an address with the masks of one size leads to a block's ends only from inside", () => {
  const bytes = fc.uint8Array({ minLength: 4, maxLength: 4 });
  const sizes = fc.integer({ min: 0, max: 32 });
  fc.assert(fc.property(bytes, bytes, sizes, sizes, (one, other, prefix, otherPrefix) => {
    const block = Cidr.containing(Ip.fromBytes(one), prefix);
    const { mask, hostMask } = Cidr.containing(Ip.fromBytes(one), otherPrefix);
    // Near the block, or even in it, which chance would hardly find.
    for (
      const address of [other, one, block.last.bytes, block.network.bytes.with(3, other[3] ?? 0)]
    ) {
      const first = address.map((byte, i) => byte & (mask.bytes[i] ?? 0));
      const last = address.map((byte, i) => byte | (hostMask.bytes[i] ?? 0));
      const leadsThere = Ip.fromBytes(first).equals(block.network) &&
        Ip.fromBytes(last).equals(block.last);
      const isInside = block.contains(Ip.fromBytes(address));
      assert.equal(leadsThere, isInside && prefix === otherPrefix);
    }
  }));
});
