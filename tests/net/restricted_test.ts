import assert from "node:assert/strict";
import ipaddr from "ipaddr.js";
import fc from "fast-check";
import { Ip } from "../../lib/net/ip.ts";
import { restrictedRange } from "../../lib/net/restricted.ts";

/** First and last address of every range, and the neighbours outside. */
const TABLE: readonly (readonly [string, string | null])[] = [
  ["0.0.0.0", "unspecified"],
  ["0.255.255.255", "unspecified"],
  ["1.0.0.0", null],
  ["9.255.255.255", null],
  ["10.0.0.0", "private"],
  ["10.255.255.255", "private"],
  ["11.0.0.0", null],
  ["100.63.255.255", null],
  ["100.64.0.0", "cgnat"],
  ["100.100.100.200", "metadata"],
  ["100.127.255.255", "cgnat"],
  ["100.128.0.0", null],
  ["126.255.255.255", null],
  ["127.0.0.0", "loopback"],
  ["127.255.255.255", "loopback"],
  ["128.0.0.0", null],
  ["168.63.129.16", "metadata"],
  ["169.253.255.255", null],
  ["169.254.0.0", "link-local"],
  ["169.254.169.254", "metadata"],
  ["169.254.170.2", "metadata"],
  ["169.254.255.255", "link-local"],
  ["169.255.0.0", null],
  ["172.15.255.255", null],
  ["172.16.0.0", "private"],
  ["172.31.255.255", "private"],
  ["172.32.0.0", null],
  ["191.255.255.255", null],
  ["192.0.0.0", "reserved"],
  ["192.0.0.8", "reserved"],
  ["192.0.0.9", null],
  ["192.0.0.10", null],
  ["192.0.0.11", "reserved"],
  ["192.0.0.192", "metadata"],
  ["192.0.0.255", "reserved"],
  ["192.0.1.0", null],
  ["192.0.2.0", "documentation"],
  ["192.0.3.0", null],
  ["192.88.98.255", null],
  ["192.88.99.0", "transition"],
  ["192.88.100.0", null],
  ["192.167.255.255", null],
  ["192.168.0.0", "private"],
  ["192.168.255.255", "private"],
  ["192.169.0.0", null],
  ["198.17.255.255", null],
  ["198.18.0.0", "benchmarking"],
  ["198.19.255.255", "benchmarking"],
  ["198.20.0.0", null],
  ["198.51.100.7", "documentation"],
  ["203.0.113.7", "documentation"],
  ["203.0.114.0", null],
  ["223.255.255.255", null],
  ["224.0.0.0", "multicast"],
  ["239.255.255.255", "multicast"],
  ["240.0.0.0", "reserved"],
  ["255.255.255.254", "reserved"],
  ["255.255.255.255", "broadcast"],
  ["::", "unspecified"],
  ["::1", "loopback"],
  ["::7f00:1", "loopback"],
  ["::808:808", null],
  ["::ffff:127.0.0.1", "loopback"],
  ["::ffff:10.0.0.1", "private"],
  ["::ffff:169.254.169.254", "metadata"],
  ["::ffff:8.8.8.8", null],
  ["::ffff:0:192.168.0.1", "private"],
  ["64:ff9b::10.1.2.3", "private"],
  ["64:ff9b::127.0.0.1", "loopback"],
  ["64:ff9b::8.8.8.8", null],
  ["64:ff9b:1::8.8.8.8", "transition"],
  ["2002:a00:1::", "private"],
  ["2002:7f00:1::1", "loopback"],
  ["2002:808:808::1", null],
  ["2001::1", "transition"],
  ["2001:0:808:808::1", "transition"],
  ["2001:2::1", "benchmarking"],
  ["2001:10::1", "reserved"],
  ["2001:20::1", "reserved"],
  ["2001:db8::1", "documentation"],
  ["2001:4860:4860::8888", null],
  ["2606:4700:4700::1111", null],
  ["3fff::1", "documentation"],
  ["3fff:fff:ffff::1", "documentation"],
  ["3fff:1000::1", null],
  ["100::1", "reserved"],
  ["4000::1", "reserved"],
  ["5f00::1", "reserved"],
  ["fc00::1", "private"],
  ["fd00:ec2::254", "metadata"],
  ["fd12:3456::1", "private"],
  ["fe80::1", "link-local"],
  ["febf::1", "link-local"],
  ["fec0::1", "private"],
  ["ff02::1", "multicast"],
];
for (const [text, name] of TABLE) {
  Deno.test(`restrictedRange() of ${text} is ${name} (D23, ADV-DNS-06)`, () => {
    const ip = Ip.parse(text);
    assert.ok(ip !== null);
    assert.equal(restrictedRange(ip), name);
  });
}

Deno.test("restrictedRange(): an address is judged the same in every form that embeds it", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 4, maxLength: 4 }), (bytes) => {
      const inner = Ip.fromBytes(bytes);
      // ::0.0.0.0 and ::0.0.0.1 have names of their own.
      fc.pre(!inner.text.startsWith("0.0.0."));
      const expected = restrictedRange(inner);
      for (const prefix of ["::ffff:", "::ffff:0:", "::", "64:ff9b::"]) {
        const ip = Ip.parse(prefix + inner.text);
        assert.ok(ip !== null);
        assert.equal(restrictedRange(ip), expected, ip.text);
      }
      const sixToFour = new Uint8Array(16);
      sixToFour.set([0x20, 0x02, ...bytes, 0, 1, 2]);
      assert.equal(restrictedRange(Ip.fromBytes(sixToFour)), expected);
    }),
    { numRuns: 3000 },
  );
});

Deno.test("restrictedRange() restricts every IPv4 address that ipaddr.js does not call unicast", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 4, maxLength: 4 }), (bytes) => {
      const ip = Ip.fromBytes(bytes);
      fc.pre(ip.text !== "192.0.0.9" && ip.text !== "192.0.0.10");
      const theirs = new ipaddr.IPv4([...bytes]).range();
      // Services of the public internet that happen to be registered by name.
      const isPublicService = theirs === "as112" || theirs === "amt";
      if (theirs !== "unicast" && !isPublicService) {
        assert.notEqual(restrictedRange(ip), null, `${ip.text}: ${theirs}`);
      }
    }),
    { numRuns: 20_000 },
  );
});
