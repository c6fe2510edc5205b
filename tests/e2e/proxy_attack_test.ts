/**
 * Attacks on the proxy, byte by byte, by an agent on the wire: the real daemon refuses them, and the
 * internet is the witness that nothing arrived, or only what was judged. Policy is wide open but for
 * one host and one path, so that what is refused here is refused for what it is.
 */
import assert from "node:assert/strict";
import { DEFAULT_PLACE } from "../lab/agent.ts";
import { type RecordedDecision, recordedDecisions } from "../lab/decisions.ts";
import {
  EXAMPLE_ADDRESS,
  METADATA_ADDRESS,
  PRIVATE_ADDRESS,
  UPSTREAM_RESOLVER,
  ZONE,
} from "../lab/internet/world.ts";
import { HOST_ADDRESS, Lab } from "../lab/lab.ts";
import { positiveControl } from "../lab/probe.ts";
import { labTest } from "../lab/requirements.ts";
import { type Arrival, nothing } from "../lab/witness.ts";
import { textOf } from "../../lib/proxy/bytes.ts";
import { eventually } from "../eventually.ts";
import { get, head, REFUSED_HEADS } from "../proxy/heads.ts";
import { refusedHellos, soundHellos } from "../proxy/hellos.ts";
import { connectRequest } from "../proxy/support.ts";
import { REST, send, until, WireClient, WireServer } from "./wire.ts";
import type { Heard, Step } from "./wire/protocol.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl"];

const HOST = "example.com";
const OTHER = "example.org";
const BLOCKED = "github.com";
const BLOCKED_ADDRESS = ZONE[BLOCKED]?.[0]?.data ?? "";
/** A port that none of the lab's own servers has. */
const PORT = 9000;
const AUTHORITY = `${HOST}:${PORT}`;
const { gateway } = DEFAULT_PLACE;
const AGENT_ADDRESS = "10.200.255.10";
/** Small, so that few connections reach them. */
const AGENT_CONNECTIONS = 8;
const ALL_CONNECTIONS = 12;

const RULES = `
version: "1"
rules:
  - id: block-host
    action: block
    priority: 10
    condition: http.host == "${BLOCKED}"
  - id: block-path
    action: block
    priority: 10
    condition: http.path.startsWith("/admin")
  - id: allow-rest
    action: allow
    condition: "true"
    egress: { ports: [80, 443, ${PORT}] }
`;

/** The refused heads of the parser's tests, about a host that there is, and what is more than a head. */
const HEADS: readonly (readonly [name: string, bytes: string, status: number])[] = [
  ...REFUSED_HEADS.map(([name, text, status]) => [name, about(text), status] as const),
  ["ADV-HTTP-01", about(get() + get()), 400],
  [
    "ADV-HTTP-01 blocked behind allowed",
    about(get()) + about(get()).replaceAll(HOST, BLOCKED),
    400,
  ],
  ["ADV-HTTP-09", `${about(get("Content-Length: 1"))}ab`, 400],
  ["ADV-HTTP-15 bare LF", about(get()).replaceAll("\r\n", "\n"), 400],
  ["ADV-HTTP-15 one bare LF", about(get("X: y")).replace("y\r\n", "y\n"), 400],
  ["ADV-HTTP-17 fields", about(get(...Array.from({ length: 128 }, (_, i) => `X${i}: y`))), 431],
  ["ADV-HTTP-17 bytes", about(get(`X: ${"a".repeat(8192)}`)), 431],
  ["ADV-HTTP-17 target", head(`GET http://${HOST}/${"a".repeat(8192)} HTTP/1.1`), 431],
  ["TLS to the proxy itself", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400],
  ["CONNECT and bytes behind it", `${connectRequest(`${HOST}:443`)}x`, 400],
  ["CONNECT and another behind it", connectRequest(`${HOST}:443`).repeat(2), 400],
];

/** Other spellings of a blocked path: refused, or answered that they can be read in two ways. */
const PATHS: readonly string[] = [
  ...["/admin", "//admin", "/./admin", "/x/../admin", "/%61dmin", "/admin/..;/x", "/;/admin"],
  ...["/x%2f..%2fadmin", "/x/%2e%2e/admin", "/x/..;v=1/admin", "/x\\..\\admin", "/%5cadmin"],
  ...["/admin;x", "/admin%3bx", "/admin%2f..%2fx", "/x/..%2f/admin?y", "/%2fadmin", "/.;/admin"],
];

/** Spellings of hosts that are none, or that name addresses in a way that others read differently. */
const HOSTS: readonly string[] = [
  ...["2130706433", "0177.0.0.1", "0x7f.1", "127.1", "1.2.3.4.5", "[fe80::1%25eth0]", "[::1"],
  ...["%65xample.com", "example%2ecom", "example.com%00", "b\xc3\xbccher.example", "xn--.com"],
  ...["a..example.com", "-a.example.com", "example.com..", "example.com:80:80", "[127.0.0.1]"],
  ...[`${HOST}@${BLOCKED}`, `${BLOCKED}\\@${HOST}`, `${HOST}:80@${BLOCKED}`, `${HOST},${BLOCKED}`],
];

/** What services no agent has any business with listen on (ADV-TLS-05). */
const SERVICE_PORTS: readonly number[] = [
  ...[20, 21, 22, 23, 25, 53, 110, 119, 143, 389, 445, 465, 587, 636, 993, 995, 1433, 1521],
  ...[3306, 3389, 5432, 5672, 5900, 6379, 9200, 9300, 11211, 27017, 853],
];

/** Requests that go on: what the client does, and the exact bytes of each connection upstream. */
const FORWARDED: readonly {
  readonly name: string;
  readonly steps: readonly Step[];
  /** What the server waits for before it answers. */
  readonly after?: string;
  readonly arrives: readonly string[];
  /** What the client hears in the end, among the rest. */
  readonly hears?: RegExp;
}[] = [
  {
    name: "ADV-HTTP-02 a chunked body, with extension and trailer",
    steps: [
      send(post("Transfer-Encoding: chunked")),
      send('3;a="b"\r\nabc\r\n00\r\nContent-Length: 9\r\n\r\n'),
    ],
    after: "0\r\n\r\n$",
    arrives: [
      `POST / HTTP/1.1\r\nHost: ${AUTHORITY}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
    ],
  },
  {
    name: "ADV-HTTP-02 a chunked body with a request behind it, which is judged for itself",
    steps: [
      send(`${post("Transfer-Encoding: chunked")}0\r\n\r\n${on(BLOCKED)}`),
    ],
    after: "0\r\n\r\n$",
    arrives: [
      `POST / HTTP/1.1\r\nHost: ${AUTHORITY}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n`,
    ],
    hears: /^HTTP\/1\.1 200 [^]*HTTP\/1\.1 403 /,
  },
  {
    name: "ADV-HTTP-02 a chunked body that is none breaks off",
    steps: [send(`${post("Transfer-Encoding: chunked")}3\r\nabc\r\n0x0\r\n\r\n`)],
    after: "never",
    arrives: [
      `POST / HTTP/1.1\r\nHost: ${AUTHORITY}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n`,
    ],
    hears: /^HTTP\/1\.1 400 /,
  },
  {
    name: "ADV-HTTP-08 a body that is longer than the rule allows",
    steps: [send(post("Content-Length: 16777217"))],
    arrives: [],
    hears: /^HTTP\/1\.1 413 /,
  },
  {
    name: "ADV-HTTP-09 a body that is shorter than declared breaks off",
    steps: [send(`${post("Content-Length: 9")}abc`)],
    after: "never",
    arrives: [
      `POST / HTTP/1.1\r\nHost: ${AUTHORITY}\r\nContent-Length: 9\r\nConnection: close\r\n\r\nabc`,
    ],
    hears: /^(HTTP\/1\.1 400 |$)/,
  },
  {
    name: "ADV-HTTP-09 what follows a body is another request, which is judged for itself",
    steps: [
      send(post("Content-Length: 3", "Expect: 100-continue")),
      until("^HTTP/1.1 100 Continue\r\n\r\n"),
      send(`abc${on(BLOCKED)}`),
    ],
    after: "abc$",
    arrives: [
      `POST / HTTP/1.1\r\nHost: ${AUTHORITY}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc`,
    ],
    hears: /^HTTP\/1\.1 200 [^]*HTTP\/1\.1 403 /,
  },
  {
    name: "a GET whose body is a request: the server must not read on",
    steps: [send(on(AUTHORITY, `Content-Length: ${on(BLOCKED).length}`) + on(BLOCKED))],
    after: "com\r\n\r\n$",
    arrives: [
      `GET / HTTP/1.1\r\nHost: ${AUTHORITY}\r\nContent-Length: ${on(BLOCKED).length}\r\n` +
      `Connection: close\r\n\r\n${on(BLOCKED)}`,
    ],
  },
  {
    name: "ADV-HTTP-07 another spelling of the same Host, and the default port",
    steps: [
      send(`GET HTTP://EXAMPLE.com.:${PORT}?q HTTP/1.1\r\nhOST: example.COM:${PORT}\r\n\r\n`),
    ],
    arrives: [`GET /?q HTTP/1.1\r\nHost: ${AUTHORITY}\r\n\r\n`],
  },
  {
    name: "ADV-HTTP-19 hop-by-hop fields, Host and framing among those that Connection names",
    steps: [
      send(post(
        "Connection: Host, Content-Length, X-Hop, close",
        "Content-Length: 1",
        "X-Hop: 1",
        "Proxy-Authorization: Basic x",
        "Proxy-Connection: x",
        "TE: trailers",
        "Trailer: x",
        "Keep-Alive: x",
        "X-Kept: 1",
      )),
      send("a"),
    ],
    after: "a$",
    arrives: [
      `POST / HTTP/1.1\r\nHost: ${AUTHORITY}\r\nX-Kept: 1\r\nContent-Length: 1\r\nConnection: close\r\n\r\na`,
    ],
  },
  {
    name: "ADV-HTTP-20 an upgrade to HTTP/2 is none",
    steps: [
      send(
        on(AUTHORITY, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: A"),
      ),
    ],
    arrives: [`GET / HTTP/1.1\r\nHost: ${AUTHORITY}\r\n\r\n`],
  },
  {
    name: "ADV-HTTP-20 Expect is answered here",
    steps: [
      send(post("Content-Length: 1", "Expect: 100-Continue")),
      until("^HTTP/1.1 100 Continue\r\n\r\n"),
      send("a"),
    ],
    after: "a$",
    arrives: [
      `POST / HTTP/1.1\r\nHost: ${AUTHORITY}\r\nContent-Length: 1\r\nConnection: close\r\n\r\na`,
    ],
  },
  {
    name: "ADV-HTTP-21 a method in odd case is the one that was judged",
    steps: [send(on(AUTHORITY).replace("GET", "pRoPFinD"))],
    arrives: [`PROPFIND / HTTP/1.1\r\nHost: ${AUTHORITY}\r\n\r\n`],
  },
  {
    name: "ADV-HTTP-24 the health path is answered here",
    steps: [send(head("GET /outcall-health HTTP/1.1", `Host: ${AUTHORITY}`))],
    arrives: [],
    hears: /^HTTP\/1\.1 200 [^]*\{"status":"ok"\}$/,
  },
];

/** Answers of a hostile server, and all that the client may hear of them. */
const ANSWERS: readonly (readonly [name: string, answer: string, hears: RegExp])[] = [
  ["an answer and another behind it", answer("first") + answer("second"), /\r\n\r\nfirst$/],
  ["more than the length says", `${answer("first")}more`, /\r\n\r\nfirst$/],
  [
    "an interim answer",
    `HTTP/1.1 103 Early Hints\r\n\r\n${answer("first")}`,
    /^HTTP\/1\.1 200 [^]*first$/,
  ],
  ["interim answers without end", "HTTP/1.1 102 Processing\r\n\r\n".repeat(40), /^HTTP\/1\.1 502 /],
  [
    "another protocol, unasked",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    /^HTTP\/1\.1 502 /,
  ],
  [
    "two lengths",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    /^HTTP\/1\.1 502 /,
  ],
  [
    "length and chunks",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    /^HTTP\/1\.1 502 /,
  ],
  ["a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", /^HTTP\/1\.1 502 /],
  [
    "another coding",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    /^HTTP\/1\.1 502 /,
  ],
  [
    "a coding in HTTP/1.0",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    /^HTTP\/1\.1 502 /,
  ],
  [
    "a folded field",
    "HTTP/1.1 200 OK\r\nX: y\r\n Set-Cookie: z\r\nContent-Length: 0\r\n\r\n",
    /^HTTP\/1\.1 502 /,
  ],
  [
    "a bare CR",
    "HTTP/1.1 200 OK\r\nX: y\rSet-Cookie: z\r\nContent-Length: 0\r\n\r\n",
    /^HTTP\/1\.1 502 /,
  ],
  ["bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", /^HTTP\/1\.1 502 /],
  ["NUL", "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n", /^HTTP\/1\.1 502 /],
  ["a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", /^HTTP\/1\.1 502 /],
  ["no such version", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", /^HTTP\/1\.1 502 /],
  ["no such status", "HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n", /^HTTP\/1\.1 502 /],
  ["HTTP/0.9", "hello", /^HTTP\/1\.1 502 /],
  ["a long head", `HTTP/1.1 200 OK\r\nX: ${"y".repeat(70_000)}\r\n\r\n`, /^HTTP\/1\.1 502 /],
  [
    "chunks that break off: no last chunk for the client either",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0x\r\n\r\n",
    /\r\n\r\n3\r\nabc\r\n$/,
  ],
  [
    "a trailer that would be a field",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nSet-Cookie: z\r\n\r\n",
    /\r\n\r\n3\r\nabc\r\n0\r\n\r\n$/,
  ],
  [
    "until it closes",
    "HTTP/1.1 200 OK\r\n\r\nabc",
    /chunked\r\n[^]*\r\n\r\n3\r\nabc\r\n0\r\n\r\n$/,
  ],
  [
    "a refusal in our name",
    answer("first", "X-Outcall-Decision: 1", "x-outcall-block-reason: rule"),
    /^(?![^]*outcall)[^]*first$/i,
  ],
  [
    "hop-by-hop fields",
    answer("first", "Connection: X-Hop, Content-Length", "X-Hop: 1", "Proxy-Authenticate: x"),
    /^(?![^]*(X-Hop|Proxy))[^]*Content-Length: 5\r\n[^]*first$/,
  ],
];

/** The text about the host that this lab has. */
function about(text: string): string {
  return text.replaceAll("a.example", HOST);
}

/** A GET that ends with its answer. */
function on(authority: string, ...fields: string[]): string {
  return head(`GET http://${authority}/ HTTP/1.1`, `Host: ${authority}`, ...fields);
}

function post(...fields: string[]): string {
  return head(`POST http://${AUTHORITY}/ HTTP/1.1`, `Host: ${AUTHORITY}`, ...fields);
}

function answer(body: string, ...fields: string[]): string {
  return head("HTTP/1.1 200 OK", `Content-Length: ${body.length}`, ...fields) + body;
}

labTest("nothing that an agent says to the proxy goes further than what was judged", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const daemon = await lab.startDaemon({
    rules: { "agent.yaml": RULES },
    flags: [
      ...["--proxy-max-connections-per-agent", `${AGENT_CONNECTIONS}`],
      ...["--proxy-max-connections", `${ALL_CONNECTIONS}`],
    ],
  });
  const agent = await lab.agent();
  const client = WireClient.start(agent, gateway, 8080);
  const server = await WireServer.start(lab.internet.machine, PORT);

  /** Runs `attack`, and returns its records; nothing may arrive, though it would. */
  const inVain = async (
    attack: () => Promise<void>,
    control: readonly string[],
    arrives: Arrival,
  ): Promise<readonly RecordedDecision[]> => {
    await positiveControl(lab, control, arrives);
    const known = new Set((await recordedDecisions(lab)).map(({ id }) => id));
    const mark = await lab.witness.mark();
    await attack();
    const seen = await lab.witness.since(mark, { from: HOST_ADDRESS });
    assert.ok(nothing(seen), Deno.inspect(seen));
    return (await recordedDecisions(lab)).filter(({ id, source }) =>
      source === AGENT_ADDRESS && !known.has(id)
    );
  };
  const curl = (url: string): string[] => ["curl", "-s", "-k", "-m", "5", "-o", "/dev/null", url];
  const short = ({ verdict, layer, reason }: RecordedDecision): string =>
    `${verdict} ${layer} ${reason}`;

  // They take ten seconds to be given up: meanwhile the others go on.
  const slowHead = client.hold(send("GET http://example.com/ HT"), REST);
  const slowHello = client.hold(
    send(connectRequest(`${HOST}:443`)),
    until("\r\n\r\n"),
    send("\x16\x03\x01"),
    REST,
  );

  await t.step("a malformed request: no name is looked up, nobody is connected to", async () => {
    const records = await inVain(
      async () => {
        for (const [name, bytes, status] of HEADS) {
          assert.match(
            await client.exchange(bytes),
            new RegExp(`^HTTP/1\\.1 ${status} [^]*\r\nX-Outcall-Decision: `),
            name,
          );
        }
      },
      curl(`http://${HOST}/`),
      { to: EXAMPLE_ADDRESS },
    );
    assert.equal(records.length, HEADS.length);
    assert.deepEqual(
      records.map(short).filter((line) => !/^block http (malformed|limit)$/.test(line)),
      ["block connect malformed", "block connect malformed"],
    );
  });

  await t.step("other spellings of a blocked path, and of hosts (ADV-HTTP-22)", async () => {
    await inVain(
      async () => {
        for (const path of PATHS) {
          const request = on(HOST).replace(`${HOST}/`, `${HOST}${path}`);
          assert.match(await client.exchange(request), /^HTTP\/1\.1 40[03] /, path);
        }
        for (const host of HOSTS) {
          assert.match(await client.exchange(on(host)), /^HTTP\/1\.1 400 /, host);
          assert.match(
            await client.exchange(connectRequest(`${host}:443`)),
            /^HTTP\/1\.1 400 /,
            host,
          );
        }
        for (const host of ["github.com.", "GITHUB.com", "github.com:80"]) {
          assert.match(await client.exchange(on(host)), /^HTTP\/1\.1 403 /, host);
        }
      },
      curl(`http://${HOST}/`),
      { to: EXAMPLE_ADDRESS },
    );
  });

  await t.step(
    "CONNECT to a blocked host, or to the ports of services (ADV-TLS-01, -05)",
    async () => {
      const records = await inVain(
        async () => {
          for (
            const authority of [
              `${BLOCKED}:443`,
              ...SERVICE_PORTS.map((port) => `${HOST}:${port}`),
            ]
          ) {
            const said = await client.exchange(connectRequest(authority));
            assert.match(said, /^HTTP\/1\.1 403 /, authority);
            assert.doesNotMatch(said, /Established/);
          }
        },
        curl(`https://${BLOCKED}/`),
        { to: BLOCKED_ADDRESS, port: 443 },
      );
      const [first, ...others] = records.map(short);
      assert.equal(first, "block connect rule");
      assert.deepEqual(others, SERVICE_PORTS.map(() => "block connect port"));
    },
  );

  await t.step("addresses inside, by number and by name (ADV-HTTP-25, -26)", async () => {
    const numbers = ["127.0.0.1", "[::1]", gateway, HOST_ADDRESS, "10.200.255.99", "[fe80::1]"];
    const literal = [...numbers, PRIVATE_ADDRESS, METADATA_ADDRESS, "[64:ff9b::c0a8:4d07]"];
    const attack = async (): Promise<void> => {
      for (const host of literal) {
        assert.match(await client.exchange(on(host)), /^HTTP\/1\.1 403 [^]*_address\r\n/, host);
        assert.match(
          await client.exchange(connectRequest(`${host}:443`)),
          / 403 [^]*_address\r\n/,
          host,
        );
      }
    };
    await inVain(attack, curl(`http://${PRIVATE_ADDRESS}/`), { to: PRIVATE_ADDRESS });
    const mark = await lab.witness.mark();
    for (const name of ["metadata.attacker.net", "inside.attacker.net", "loopback.attacker.net"]) {
      assert.match(await client.exchange(on(name)), /^HTTP\/1\.1 403 /, name);
      const hello = textOf(soundHellos(name)[0]?.[1] ?? new Uint8Array());
      const { texts } = await client.hold(
        ...[send(connectRequest(`${name}:443`)), until("\r\n\r\n"), send(hello), REST],
      );
      assert.match(texts[0] ?? "", / 200 /);
      assert.equal(texts[1], "");
    }
    const { packets } = await lab.witness.since(mark, { from: HOST_ADDRESS });
    assert.deepEqual(packets.filter(({ to }) => to !== UPSTREAM_RESOLVER), []);
  });

  await t.step("a request that goes on is the one that was judged", async (steps) => {
    for (const { name, steps: said, after = "\r\n\r\n", arrives, hears = / 200 / } of FORWARDED) {
      await steps.step(name, async () => {
        await server.behave({ kind: "answer", after, text: answer("ok") });
        const { texts } = await client.hold(...said, { do: "finish" }, REST);
        const heard = texts.at(-1) ?? "";
        assert.deepEqual(await server.received(arrives.length), arrives, heard);
        assert.match(heard, hears);
      });
    }
  });

  await t.step("what a hostile server answers is one answer, or none", async (steps) => {
    for (const [name, text, hears] of ANSWERS) {
      await steps.step(name, async () => {
        await server.behave({ kind: "last", text });
        const { texts: [heard = "", rest = ""] } = await client.hold(
          send(on(AUTHORITY)),
          until(hears.source),
          send(on(BLOCKED)),
          REST,
        );
        assert.match(heard, hears);
        assert.equal(heard.split("HTTP/1.1 ").length, 2);
        // Nothing of it is left for the next request of the same client.
        assert.doesNotMatch(rest, /HTTP\/1\.1 [^4]|second|more|Set-Cookie/);
      });
    }
  });

  await t.step(
    "first bytes in a tunnel that are no hello for its host (ADV-TLS-06 to -12)",
    async () => {
      const refused = refusedHellos(HOST, OTHER);
      const records = await inVain(
        async () => {
          for (const [name, bytes] of refused) {
            const { texts } = await client.hold(
              ...[
                send(connectRequest(`${HOST}:443`)),
                until("\r\n\r\n"),
                send(textOf(bytes)),
                REST,
              ],
            );
            assert.match(texts[0] ?? "", /^HTTP\/1\.1 200 /, name);
            assert.equal(texts[1], "", name);
          }
        },
        curl(`https://${HOST}/`),
        { to: EXAMPLE_ADDRESS, port: 443 },
      );
      assert.deepEqual(records.map(short), refused.map(([, , reason]) => `block sni ${reason}`));
    },
  );

  await t.step(
    "a hello for its host goes up as it was sent, and so does what follows",
    async () => {
      for (const [name, bytes] of soundHellos(HOST)) {
        await server.behave({ kind: "echo" });
        const { texts } = await client.hold(
          send(connectRequest(AUTHORITY)),
          until("\r\n\r\n"),
          { do: "trickle", text: textOf(bytes) },
          send(`through`),
          until("through$"),
        );
        assert.equal(texts[1], `${textOf(bytes)}through`, name);
        assert.deepEqual(await server.received(1), [`${textOf(bytes)}through`], name);
      }
    },
  );

  await t.step("a redirect to a blocked host leads nowhere (ADV-HTTP-27)", async () => {
    await server.behave({
      kind: "last",
      text: head("HTTP/1.1 302 Found", `Location: http://${BLOCKED}/`, "Content-Length: 0"),
    });
    const mark = await lab.witness.mark();
    const { stdout } = await agent.run([
      ...["curl", "-s", "-L", "-m", "5", "-o", "/dev/null", "-w", "%{num_redirects} %{http_code}"],
      ...["-x", `http://${gateway}:8080`, `http://${AUTHORITY}/`],
    ]);
    assert.equal(stdout, "1 403");
    assert.ok(nothing(await lab.witness.since(mark, { to: BLOCKED_ADDRESS })));
    assert.equal(
      (await lab.witness.since(mark, { to: EXAMPLE_ADDRESS, port: PORT })).packets.length,
      1,
    );
  });

  await t.step(
    "a reload has ended the tunnels that it forbids when it is answered, and no others",
    async () => {
      await server.behave({ kind: "echo" });
      const tunnel = (host: string): Promise<Heard> => {
        const hello = textOf(soundHellos(host)[0]?.[1] ?? new Uint8Array());
        return client.hold(
          ...[send(connectRequest(`${host}:${PORT}`)), until("\r\n\r\n"), send(hello), REST],
        );
      };
      const tunnels = async (): Promise<string | undefined> =>
        /^Tunnels: .* (\d+)$/m.exec((await lab.cli("proxy", "status")).stdout)?.[1];
      const ends = [tunnel(HOST), tunnel(OTHER)] as const;
      await eventually(async () => await tunnels() === "2");
      for (const [index, host] of [HOST, OTHER].entries()) {
        await lab.writeRules({ "agent.yaml": RULES.replace(BLOCKED, host) });
        assert.equal((await lab.cli("rules", "reload")).code, 0);
        assert.equal(await tunnels(), index === 0 ? "1" : undefined);
        assert.equal((await ends[index])?.error, null);
        const record = (await recordedDecisions(lab)).at(-1);
        assert.ok(record !== undefined);
        assert.equal(`${short(record)} ${record.attempt.host}`, `block connect rule ${host}`);
      }
    },
  );

  await t.step("a rule's id cannot write into an answer (ADV-HTTP-23)", async () => {
    await lab.writeRules({ "agent.yaml": RULES.replace("block-host", '"x\\r\\nX-Forged: y"') });
    const { code, stderr } = await lab.cli("rules", "reload");
    assert.equal(code, 1);
    assert.match(stderr, /agent\.yaml:4:/);
    assert.doesNotMatch(await client.exchange(on(OTHER)), /X-Forged/);
  });

  await t.step(
    "a head and a hello that dribble are given up (ADV-HTTP-18, ADV-TLS-12)",
    async () => {
      assert.match((await slowHead).texts.join(), /^HTTP\/1\.1 408 /);
      const { texts } = await slowHello;
      assert.match(texts[0] ?? "", /^HTTP\/1\.1 200 /);
      assert.equal(texts[1], "");
    },
  );

  await t.step("more connections than there may be (ADV-HTTP-28)", async () => {
    const other = await lab.agent({ ...DEFAULT_PLACE, address: "10.200.255.11/24" });
    const second = WireClient.start(other, gateway, 8080);
    const health = head("GET /outcall-health HTTP/1.1", "Host: x");
    const live = async (): Promise<number> => {
      const { body } = await lab.api("GET", "/api/v1/proxy");
      assert.ok(typeof body === "object" && body !== null && "active_connections" in body);
      return Number(body.active_connections);
    };
    const hold = (by: WireClient): void => {
      by.hold(send("GET "), REST).catch(() => {}); // it ends with the lab
    };
    await eventually(async () => await live() === 0);
    for (let i = 0; i < AGENT_CONNECTIONS; i++) hold(client);
    await eventually(async () => await live() === AGENT_CONNECTIONS);
    assert.match(await client.exchange(health), /^HTTP\/1\.1 429 /);
    assert.match(await second.exchange(health), /^HTTP\/1\.1 200 /);
    for (let i = AGENT_CONNECTIONS; i < ALL_CONNECTIONS; i++) hold(second);
    await eventually(async () => await live() === ALL_CONNECTIONS);
    assert.match(await second.exchange(health), /^HTTP\/1\.1 503 /);
    const records = (await recordedDecisions(lab)).map(short).slice(-2);
    assert.deepEqual(records, ["block connect limit", "block connect limit"]);
  });

  await t.step("none of this is a defect to the daemon", () => {
    assert.deepEqual(daemon.log.filter((line) => /"level":"(error|fatal)"/i.test(line)), []);
  });
});
