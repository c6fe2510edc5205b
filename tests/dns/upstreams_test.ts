import assert from "node:assert/strict";
import { parseUpstreams, upstreamsFromResolvConf, upstreamText } from "../../lib/dns/upstreams.ts";
import { OutcallError } from "../../lib/errors.ts";

const accepted: readonly (readonly [string, readonly string[]])[] = [
  ["1.1.1.1", ["1.1.1.1:53"]],
  ["1.1.1.1:5353", ["1.1.1.1:5353"]],
  ["10.0.0.1:53, 8.8.8.8", ["10.0.0.1:53", "8.8.8.8:53"]],
  ["2606:4700::1111", ["[2606:4700::1111]:53"]],
  ["[2606:4700::1111]", ["[2606:4700::1111]:53"]],
  ["[2606:4700:0::1111]:853", ["[2606:4700::1111]:853"]],
];
for (const [text, upstreams] of accepted) {
  Deno.test(`parseUpstreams() reads ${text} (S007-FR-012)`, () => {
    assert.deepEqual(parseUpstreams(text).map(upstreamText), upstreams);
  });
}

for (
  const entry of [
    "",
    "dns.example",
    "1.1.1",
    "1.1.1.1:",
    "1.1.1.1:0",
    "1.1.1.1:65536",
    "1.1.1.1:5x",
    "1.1.1.1:-1",
    "[1.1.1.1]:53",
    "[::1",
    "[::1]53",
    "[::1]:",
    "1.1.1.1#53",
    "fe80::1%eth0",
  ]
) {
  Deno.test(`parseUpstreams() names the bad entry ${JSON.stringify(entry)}`, () => {
    assert.throws(
      () => parseUpstreams(`9.9.9.9,${entry}`),
      (thrown) =>
        thrown instanceof OutcallError && thrown.code === "dns.upstream_invalid" &&
        thrown.message.includes(JSON.stringify(entry)),
    );
  });
}

Deno.test("upstreamsFromResolvConf() takes nameserver lines in order (S007-FR-013)", () => {
  const text = "# nameserver 9.9.9.9\nsearch lan\n nameserver\t192.168.1.1 # router\n" +
    "nameserver fe80::1%eth0\nnameserver 2001:4860:4860::8888\noptions edns0\nnameserver\n";
  assert.deepEqual(upstreamsFromResolvConf(text).map(upstreamText), [
    "192.168.1.1:53",
    "[2001:4860:4860::8888]:53",
  ]);
});

Deno.test("upstreamsFromResolvConf() has no fallback that nobody named", () => {
  assert.throws(
    () => upstreamsFromResolvConf("search lan\n"),
    (thrown) => thrown instanceof OutcallError && thrown.code === "dns.no_upstream",
  );
});
