import assert from "node:assert/strict";
import fc from "fast-check";
import { Ip } from "../../lib/net/ip.ts";

Deno.test("Ip.parse() reads dotted decimal", () => {
  assert.equal(Ip.parse("10.200.0.1")?.text, "10.200.0.1");
  assert.deepEqual([...Ip.parse("255.0.1.2")?.bytes ?? []], [255, 0, 1, 2]);
});

for (
  const text of [
    "",
    "1",
    "1.2",
    "1.2.3",
    "1.2.3.4.5",
    "01.2.3.4",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "127.1",
    "256.0.0.1",
    "1.2.3.4 ",
    " 1.2.3.4",
    "1.2.3.4\n",
    "-1.2.3.4",
    "+1.2.3.4",
    "1.2.3.",
    ".1.2.3.4",
    "1..2.3",
    "1e1.0.0.1",
    "١.٢.٣.٤",
    "1.2.3.4/32",
    "1.2.3.4:80",
    ":",
    "::1::",
    ":::",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7::8",
    "12345::",
    "g::",
    "::1.2.3",
    "::1.2.3.4.5",
    "1.2.3.4::",
    "::1.2.3.4:1",
    "fe80::1%eth0",
    "[::1]",
    "::ffff:01.2.3.4",
  ]
) {
  Deno.test(`Ip.parse() refuses ${JSON.stringify(text)} (ADV-HTTP-22)`, () => {
    assert.equal(Ip.parse(text), null);
  });
}

const RFC5952: readonly (readonly [string, string])[] = [
  ["2001:0db8::0001", "2001:db8::1"],
  ["2001:db8:0:0:0:0:2:1", "2001:db8::2:1"],
  ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
  ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
  ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
  ["2001:DB8::A", "2001:db8::a"],
  ["0:0:0:0:0:0:0:0", "::"],
  ["::ffff:c000:0280", "::ffff:192.0.2.128"],
  ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"],
];
for (const [text, canonical] of RFC5952) {
  Deno.test(`Ip.text of ${text} is ${canonical} (RFC 5952)`, () => {
    assert.equal(Ip.parse(text)?.text, canonical);
  });
}

Deno.test("Ip: text and bytes stand for each other", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
    // Runs of zeros are where the spelling is hard.
    fc.array(fc.constantFrom(0, 0, 0, 1, 255), { minLength: 16, maxLength: 16 })
      .map((each) => Uint8Array.from(each)),
  );
  fc.assert(fc.property(bytes, (each) => {
    const ip = Ip.fromBytes(each);
    assert.deepEqual(Ip.parse(ip.text)?.bytes, each);
    assert.ok(Ip.parse(ip.text)?.equals(ip));
  }));
});

Deno.test("Ip.parse() reads the IPv6 addresses that the URL standard reads, as the same", () => {
  const group = fc.constantFrom("0", "1", "ffff", "A0", "", "1.2.3.4", "00", "10000", "1.2.3.04");
  const text = fc.array(group, { minLength: 2, maxLength: 9 }).map((groups) => groups.join(":"));
  fc.assert(
    fc.property(text, (each) => {
      const theirs = URL.parse(`http://[${each}]/`)?.hostname.slice(1, -1) ?? null;
      const ours = Ip.parse(each);
      assert.equal(ours === null, theirs === null);
      if (theirs !== null) assert.deepEqual(ours?.bytes, Ip.parse(theirs)?.bytes);
    }),
    { numRuns: 5000 },
  );
});

Deno.test("Ip.fromBytes() copies, and refuses other lengths", () => {
  const bytes = Uint8Array.of(1, 2, 3, 4);
  const ip = Ip.fromBytes(bytes);
  bytes[0] = 9;
  assert.equal(ip.text, "1.2.3.4");
  assert.throws(() => Ip.fromBytes(new Uint8Array(5)), RangeError);
});

Deno.test("Ip.mappedIpv4() gives the address inside ::ffff:0:0/96 alone", () => {
  assert.equal(Ip.parse("::ffff:10.0.0.1")?.mappedIpv4()?.text, "10.0.0.1");
  assert.equal(Ip.parse("::10.0.0.1")?.mappedIpv4(), null);
  assert.equal(Ip.parse("10.0.0.1")?.mappedIpv4(), null);
});
