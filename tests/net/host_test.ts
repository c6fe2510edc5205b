import assert from "node:assert/strict";
import fc from "fast-check";
import { Hostname, isUnder, parseHost } from "../../lib/net/host.ts";

const ACCEPTED: readonly (readonly [string, string])[] = [
  ["api.openai.com", "api.openai.com"],
  ["API.OpenAI.COM", "api.openai.com"],
  ["api.openai.com.", "api.openai.com"],
  ["localhost", "localhost"],
  ["_dmarc.example.com", "_dmarc.example.com"],
  ["r3---sn-4g5e6.googlevideo.com", "r3---sn-4g5e6.googlevideo.com"],
  ["1.0.0.10.in-addr.arpa", "1.0.0.10.in-addr.arpa"],
  ["bücher.example", "xn--bcher-kva.example"],
  ["BÜCHER.example", "xn--bcher-kva.example"],
  ["XN--BCHER-KVA.example", "xn--bcher-kva.example"],
  ["faß.de", "xn--fa-hia.de"],
  ["☃.net", "xn--n3h.net"],
  ["127.0.0.1", "127.0.0.1"],
  ["::1", "::1"],
  ["[2001:DB8::1]", "2001:db8::1"],
  ["[::ffff:1.2.3.4]", "1.2.3.4"],
  ["::FFFF:102:304", "1.2.3.4"],
  [`${"a".repeat(63)}.com`, `${"a".repeat(63)}.com`],
];
for (const [text, name] of ACCEPTED) {
  Deno.test(`parseHost() reads ${text} as ${name}`, () => {
    assert.equal(String(parseHost(text)), name);
  });
}

for (
  const text of [
    "",
    ".",
    "..",
    "a..b",
    ".a",
    "a b",
    "a.b\n",
    "a\0b.com",
    "a\tb",
    "user@example.com",
    "user:pass@example.com",
    "example.com:443",
    "http://example.com",
    "example.com/",
    "*.example.com",
    "a,b",
    "a%2eb",
    "-a.com",
    "a-.com",
    `${"a".repeat(64)}.com`,
    `${"a.".repeat(127)}com`,
    "127.1",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "1.2.3.4.5",
    "example.1",
    "example.0x1f",
    "example.0x",
    "[127.0.0.1]",
    "[::1",
    "::1]",
    "[::1]:80",
    "[fe80::1%eth0]",
    "fe80::1%25eth0",
    "127。0。0。1",
    "１２７.0.0.1",
    "ｅxample.com",
    "exa­mple.com",
    "xn--a.example",
    "xn--.example",
    "xn--example.com-",
    "example.com．",
    "ex‮ample.com",
    "\ud800.com",
  ]
) {
  Deno.test(`parseHost() refuses ${JSON.stringify(text)} (ADV-HTTP-22)`, () => {
    assert.equal(parseHost(text), null);
  });
}

Deno.test("Hostname.parse() never reads an address", () => {
  assert.equal(Hostname.parse("10.0.0.1"), null);
  assert.equal(Hostname.parse("::1"), null);
});

Deno.test("under() respects label boundaries", () => {
  const under = (name: string, parent: string): boolean => {
    const host = Hostname.parse(name);
    const above = Hostname.parse(parent);
    assert.ok(host !== null && above !== null);
    return host.under(above);
  };
  assert.ok(under("example.com", "example.com"));
  assert.ok(under("a.b.example.com", "example.com"));
  assert.ok(!under("evilexample.com", "example.com"));
  assert.ok(!under("example.com.evil.net", "example.com"));
  assert.ok(!under("com", "example.com"));
  assert.ok(!isUnder("", "example.com"));
});

const host = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.domain(),
  fc.string({ unit: fc.constantFrom("a", "-", ".", "1", "x", "n", "_", "ü", "０", "0x", "xn--") }),
);

Deno.test("parseHost() never throws, and reads its own output as the same host", () => {
  fc.assert(
    fc.property(host, (text) => {
      const parsed = parseHost(text);
      if (parsed === null) return;
      assert.equal(String(parseHost(String(parsed))), String(parsed));
      assert.match(String(parsed), /^[a-z0-9_.:-]{1,253}$/);
    }),
    { numRuns: 5000 },
  );
});

Deno.test("parseHost(): a name that URL parsers take for another host is refused", () => {
  fc.assert(
    fc.property(host, (text) => {
      const parsed = parseHost(text);
      if (!(parsed instanceof Hostname)) return;
      assert.equal(new URL(`http://${parsed.name}/`).hostname, parsed.name);
    }),
    { numRuns: 5000 },
  );
});
