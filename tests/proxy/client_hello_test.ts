import assert from "node:assert/strict";
import fc from "fast-check";
import { bytesOf } from "../../lib/proxy/bytes.ts";
import {
  type ClientHello,
  type HelloResult,
  parseClientHello,
} from "../../lib/proxy/client_hello.ts";
import { fuzz } from "./fuzz.ts";
import {
  clientHello,
  handshake,
  helloMessage,
  type HelloOptions,
  join,
  records,
  serverNames,
  vector,
} from "./hello.ts";

function hello(bytes: Uint8Array): ClientHello {
  const result = parseClientHello(bytes);
  assert.ok(result.kind === "hello", JSON.stringify(result));
  return result;
}

function assertRefused(
  result: HelloResult,
  reason: "malformed" | "not_tls",
  problem: RegExp,
): void {
  assert.ok(result.kind === "refused", JSON.stringify(result));
  assert.equal(result.reason, reason, result.problem);
  assert.match(result.problem, problem);
}

/** The first bytes a real TLS client sends when it means `name`. */
async function realHello(name: string): Promise<Uint8Array> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const client = Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port });
  const [plain, server] = await Promise.all([client, listener.accept()]);
  const tls = await Deno.startTls(plain, { hostname: name, alpnProtocols: ["h2", "http/1.1"] });
  const handshaking = tls.handshake().catch(() => {});
  let bytes: Uint8Array = new Uint8Array(0);
  while (parseClientHello(bytes).kind === "more") {
    const buffer = new Uint8Array(4096);
    const count = await server.read(buffer);
    assert.ok(count !== null);
    bytes = join(bytes, buffer.subarray(0, count));
  }
  server.close();
  await handshaking;
  tls.close();
  return bytes;
}

Deno.test("server name, ALPN and ECH are read", () => {
  const { serverName, alpn, ech } = hello(
    clientHello({ names: ["a.example"], alpn: ["h2", "x"], ech: true }),
  );
  assert.equal(serverName?.name, "a.example");
  assert.deepEqual(alpn, ["h2", "x"]);
  assert.equal(ech, true);
  assert.equal(hello(clientHello()).serverName, null); // ADV-TLS-09
  assert.equal(hello(clientHello({ names: ["A.Example."] })).serverName?.name, "a.example"); // ADV-TLS-10
});

Deno.test("the hello of a real TLS library is read", async () => {
  const parsed = hello(await realHello("real.example"));
  assert.equal(parsed.serverName?.name, "real.example");
  assert.deepEqual(parsed.alpn, ["h2", "http/1.1"]);
});

Deno.test("a hello is assembled from any segments and records (ADV-TLS-08, property)", () => {
  const message = helloMessage({ names: ["a.example"], paddingBytes: 300 });
  const expected = hello(records(message));
  fc.assert(
    fc.property(fc.integer({ min: 10, max: message.length }), fc.nat(), (fragmentBytes, at) => {
      const bytes = join(records(message, fragmentBytes), bytesOf("early data"));
      const wholeBytes = bytes.length - 10;
      assert.deepEqual(hello(bytes), expected);
      const seen = at % bytes.length;
      assert.equal(
        parseClientHello(bytes.subarray(0, seen)).kind,
        seen < wholeBytes ? "more" : "hello",
      );
    }),
    { numRuns: 500 },
  );
});

Deno.test("a hello of 16 KiB passes, a longer one and one in crumbs do not (ADV-TLS-08, ADV-TLS-12)", () => {
  const empty = helloMessage({ names: ["a.example"], paddingBytes: 0 }).length;
  const largest = helloMessage({ names: ["a.example"], paddingBytes: 16_384 - empty });
  assert.equal(largest.length, 16_384);
  assert.equal(hello(records(largest)).serverName?.name, "a.example");
  const longer = helloMessage({ names: ["a.example"], paddingBytes: 16_385 - empty });
  assertRefused(parseClientHello(records(longer)), "malformed", /more than 16 KiB/);
  assertRefused(parseClientHello(join([22, 3, 1, 0x40, 0x01])), "malformed", /more than 16 KiB/);
  assertRefused(parseClientHello(join([22, 3, 1, 0, 0])), "malformed", /empty/);
  assertRefused(parseClientHello(records(largest, 100)), "malformed", /too many records/);
});

Deno.test("what is no TLS is told by its first byte (ADV-TLS-11)", () => {
  for (const text of ["SSH-2.0-x\r\n", "GET / HTTP/1.1\r\n", "S", "\x80\x2e\x01\x03\x01"]) {
    assertRefused(parseClientHello(bytesOf(text)), "not_tls", /no handshake/);
  }
  assertRefused(parseClientHello(join([22, 2])), "not_tls", /version/);
  assertRefused(parseClientHello(join([21, 3, 1, 0, 2, 1, 0])), "not_tls", /no handshake/); // an alert
  assertRefused(
    parseClientHello(records(join([2], vector(3, new Uint8Array(40))))),
    "not_tls",
    /no ClientHello/,
  );
});

Deno.test("a server name that could be read otherwise is refused (ADV-TLS-10)", () => {
  const refused: readonly (readonly [string, HelloOptions])[] = [
    ["two names", { names: ["a.example", "b.example"] }],
    ["the same twice", { names: ["a.example", "a.example"] }],
    ["no name in the list", { names: [] }],
    ["empty", { names: [""] }],
    ["control character", { names: ["a\0.example"] }],
    ["space", { names: ["a. example"] }],
    ["not ASCII", { names: ["bücher.example"] }],
    ["wildcard", { names: ["*.example"] }],
    ["IPv4", { names: ["192.0.2.1"] }],
    ["IPv4 in hexadecimal", { names: ["0x7f.1"] }],
    ["IPv6", { names: ["2001:db8::1"] }],
    ["port", { names: ["a.example:443"] }],
    ["label too long", { names: [`${"a".repeat(64)}.example`] }],
    ["extension twice", { names: ["a.example"], extensions: [[0, serverNames(["b.example"])]] }],
    ["unknown name type", {
      extensions: [[0, vector(2, join([1], vector(2, bytesOf("a.example"))))]],
    }],
    ["bytes behind the list", { extensions: [[0, join(serverNames(["a.example"]), [0])]] }],
    ["list length short", { extensions: [[0, join([0, 3, 0, 0, 5], bytesOf("a.b.c"))]] }],
    ["name length long", { extensions: [[0, join([0, 8, 0, 0, 9], bytesOf("a.b.c"))]] }],
    ["empty extension", { extensions: [[0, new Uint8Array(0)]] }],
  ];
  for (const [name, options] of refused) {
    const result = parseClientHello(clientHello(options));
    assert.equal(result.kind, "refused", name);
  }
});

Deno.test("lengths that do not add up are refused", () => {
  const message = helloMessage({ names: ["a.example"] });
  const body = message.subarray(4);
  assertRefused(
    parseClientHello(records(join(message, [0]))),
    "malformed",
    /follow the ClientHello/,
  );
  assertRefused(parseClientHello(records(handshake(join(body, [0])))), "malformed", /left over/);
  assertRefused(
    parseClientHello(records(handshake(body.subarray(0, -1)))),
    "malformed",
    /past the end/,
  );
  assertRefused(
    parseClientHello(records(handshake(body.subarray(0, 20)))),
    "malformed",
    /past the end/,
  );
  assertRefused(
    parseClientHello(records(handshake(join([2, 0], body.subarray(2))))),
    "malformed",
    /version/,
  );
});

Deno.test("fuzz: any bytes give a hello, a wish for more, or a refusal, and nothing behind changes it", () => {
  const seeds = [
    clientHello({ names: ["a.example"], alpn: ["h2"], ech: true }),
    records(helloMessage({ names: ["a.example"] }), 60),
    clientHello(),
  ];
  const spice = join([0, 1, 3, 22, 0xff, 0x40]);
  fuzz((random) => {
    const seed = random.pick(seeds);
    return random.below(10) === 0
      ? seed.subarray(0, random.below(seed.length))
      : random.mutate(seed, spice);
  }, (input) => {
    const result = parseClientHello(input);
    if (result.kind === "more") return;
    assert.deepEqual(parseClientHello(join(input, [1, 2, 3])), result);
    if (result.kind === "hello" && result.serverName !== null) {
      assert.match(result.serverName.name, /^[a-z0-9_.-]+$/);
    }
  });
});
