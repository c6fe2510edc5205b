import assert from "node:assert/strict";
import fc from "fast-check";
import { hostnameOf, isWithin, nameText, readName, ROOT, wireNameOf } from "../../lib/dns/name.ts";
import { Hostname } from "../../lib/net/host.ts";

/** A message whose header is zeros, followed by `parts`: text is a label, a number a raw byte. */
function message(...parts: readonly (string | number)[]): Uint8Array {
  const bytes = new Array<number>(12).fill(0);
  for (const part of parts) {
    if (typeof part === "number") bytes.push(part);
    else bytes.push(part.length, ...[...part].map((char) => char.charCodeAt(0)));
  }
  return Uint8Array.from(bytes);
}

function host(text: string): Hostname {
  const hostname = Hostname.parse(text);
  assert(hostname !== null);
  return hostname;
}

Deno.test("readName() lower-cases, so that 0x20 spellings are one name (ADV-DNS-11)", () => {
  assert.deepEqual(readName(message("WwW", "eXample", "COM", 0), 12), {
    name: "\x03www\x07example\x03com\0",
    end: 12 + 17,
  });
});

Deno.test("readName() follows pointers to earlier names and ends behind the first pointer", () => {
  const bytes = message("example", "com", 0, "www", 0xc0, 12, 99);
  assert.deepEqual(readName(bytes, 25), { name: "\x03www\x07example\x03com\0", end: 31 });
});

const refused: readonly (readonly [string, Uint8Array, number])[] = [
  ["an empty message", new Uint8Array(0), 12],
  ["a label that is cut off", message(5, 0x61), 12],
  ["a name without its final zero", message("a"), 12],
  ["half a pointer", message(0xc0), 12],
  ["a pointer to itself", message(0xc0, 12), 12],
  ["a forward pointer", message(0xc0, 14, "a", 0), 12],
  ["a pointer into the header", message(0xc0, 4), 12],
  ["a loop of two pointers", message("a", 0xc0, 16, "b", 0xc0, 12), 16],
  ["a label that leads back into itself", message("a", 0xc0, 12), 12],
  ["a label of 64 bytes", message(64, ...new Array<number>(64).fill(0x61), 0), 12],
  ["a label type that is reserved", message(0x80, 0x61, 0), 12],
  ["a name of 256 bytes", message(...new Array<string>(127).fill("a"), 0x01, 0x61, 0), 12],
];
for (const [what, bytes, start] of refused) {
  Deno.test(`readName() refuses ${what} (ADV-DNS-12)`, () => {
    assert.equal(readName(bytes, start), null);
  });
}

Deno.test("readName() takes a name of 255 bytes, the longest there is", () => {
  const name = readName(message(...new Array<string>(127).fill("a"), 0), 12);
  assert.equal(name?.name.length, 255);
});

Deno.test("readName() follows as many pointers as a name can have labels, and no more (ADV-DNS-12)", () => {
  // Pointer by pointer back to the root at offset 12.
  const pointers = Array.from({ length: 128 }, (_, i) => 0xc000 | (i === 0 ? 12 : 11 + 2 * i));
  const bytes = message(0, ...pointers.flatMap((pointer) => [pointer >> 8, pointer & 0xff]));
  const last = (count: number): number => 11 + 2 * count;
  assert.deepEqual(readName(bytes, last(127)), { name: ROOT, end: last(127) + 2 });
  assert.equal(readName(bytes, last(128)), null);
});

Deno.test("hostnameOf() gives null for what no rule could name", () => {
  for (
    const name of [
      ROOT,
      "\x03a.b\x03com\0", // a dot inside a label: "a.b.com" only once it is text
      "\x04a\0bc\x03com\0",
      "\x03\xc3\xa4b\x03com\0",
      "\x01 \x03com\0",
      "\x011\x012\x013\x014\0", // an address is no name
    ]
  ) assert.equal(hostnameOf(name), null, JSON.stringify(name));
});

Deno.test("hostnameOf() and wireNameOf() are inverse for every hostname", () => {
  const label = fc.stringMatching(/^[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?$/);
  fc.assert(fc.property(fc.array(label, { minLength: 1, maxLength: 6 }), (labels) => {
    const hostname = Hostname.parse(labels.join("."));
    fc.pre(hostname !== null);
    assert.equal(hostnameOf(wireNameOf(hostname))?.name, hostname.name);
  }));
});

Deno.test("nameText() never lets a name write control characters", () => {
  assert.equal(nameText("\x04\x1b[2J\x03c.m\0"), "\\027\\0912\\074".toLowerCase() + ".c\\046m");
  assert.equal(nameText(ROOT), ".");
});

Deno.test("isWithin() compares whole labels", () => {
  const zone = wireNameOf(host("example.com"));
  assert(isWithin(zone, zone));
  assert(isWithin(wireNameOf(host("a.b.example.com")), zone));
  assert(isWithin(zone, ROOT));
  assert(!isWithin(wireNameOf(host("evilexample.com")), zone));
  assert(!isWithin(wireNameOf(host("com")), zone));
  assert(!isWithin(wireNameOf(host("example.com.evil.net")), zone));
});
