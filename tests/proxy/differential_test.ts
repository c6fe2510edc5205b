/**
 * What comes out of the proxy, read by parsers of other makes: upstream the one request that was
 * judged, towards the client one answer. The inputs are requests and answers with damaged framing,
 * over real sockets.
 */
import assert from "node:assert/strict";
import { Hostname } from "../../lib/net/host.ts";
import { bytesOf, textOf } from "../../lib/proxy/bytes.ts";
import { parseClientHello } from "../../lib/proxy/client_hello.ts";
import { normalisePath } from "../../lib/proxy/target.ts";
import { eventually } from "../eventually.ts";
import { labTest } from "../lab/requirements.ts";
import { hex, Random, SEED } from "../random.ts";
import { HELLO_RUNS, SOCKET_RUNS } from "./fuzz.ts";
import { soundHellos } from "./hellos.ts";
import { Origin, type RawClient } from "./raw.ts";
import {
  hellosOfOpenssl,
  namesByOpenssl,
  readByOthers,
  READER_TOOLS,
  type Reading,
  type Received,
} from "./readers.ts";
import { getRequest, Lab, ok } from "./support.ts";

/** Bytes that mean something in framing. */
const SPICE = bytesOf("\r\n\t :;,=-_0159acdef\0\x0b\x7f\xa0");

const FIELDS: readonly string[] = [
  ...[
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
  ],
  ...[
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: chunked, chunked",
    "transfer-encoding: Chunked",
  ],
  ...["Transfer_Encoding: chunked", "Content_Length: 3", "X: y\r\n Transfer-Encoding: chunked"],
  ...["Content-Length: 5", "Content-Length: 0", "Content-Length: 5 ", "Content-Length: 05"],
  ...["Content-Length: 5, 5", "Content-Length : 5", "Content-Length: +5", "Content-Length: 0x5"],
  ...["Connection: close", "Connection: keep-alive", "Connection: Host, Content-Length"],
  ...["Connection: Transfer-Encoding, X-A", "TE: chunked", "Trailer: Content-Length", "X-A: b"],
  ...[
    "Expect: 100-continue",
    "Upgrade: h2c",
    "Keep-Alive: x",
    "Proxy-Connection: close",
    "X-\xc3\xa9: y",
  ],
];

const BODIES: readonly string[] = [
  ...[
    "",
    "",
    "hello",
    "hello, and more",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
  ],
  ...[
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    '5;a="\r\n"\r\nhello\r\n0\r\n\r\n',
    "05\r\nhello\r\n000\r\n\r\n",
  ],
  ...[
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
  ],
  ...[
    "-1\r\nhello\r\n0\r\n\r\n",
    "100000005\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
  ],
];

/** Framing and body that fit each other. */
const SOUND: readonly (readonly [framing: string | null, bodies: readonly string[]])[] = [
  [null, [""]],
  ["Content-Length: 5", ["hello"]],
  ["Transfer-Encoding: chunked", BODIES.filter((body) => body.includes("\r\n"))],
];

/** A message that begins with `lines`, sound or not in its framing, and often damaged. */
function message(random: Random, lines: readonly string[]): Uint8Array<ArrayBuffer> {
  const [framing, bodies] = random.below(4) === 0 ? [null, BODIES] : random.pick(SOUND);
  const noise = Array.from(
    { length: random.below(2) * random.below(4) },
    () => random.pick(FIELDS),
  );
  const fields = framing === null ? noise : [...noise, framing];
  const lineEnd = random.below(8) === 0 ? random.pick(["\n", "\r\n ", "\r"]) : "\r\n";
  const bytes = bytesOf([...lines, ...fields, "", random.pick(bodies)].join(lineEnd));
  if (random.below(3) !== 0) return bytes;
  // The method stays: the readers know some only.
  const methodEnd = bytes.indexOf(0x20) + 1;
  const rest = random.mutate(bytes.subarray(methodEnd), SPICE);
  return Uint8Array.from([...bytes.subarray(0, methodEnd), ...rest]);
}

/** Sends in up to three packets. */
async function sendInPieces(client: RawClient, bytes: Uint8Array, random: Random): Promise<void> {
  client.conn.setNoDelay(true);
  const cuts = [0, random.below(bytes.length + 1), random.below(bytes.length + 1), bytes.length]
    .sort((a, b) => a - b);
  for (const [index, start] of cuts.slice(0, -1).entries()) {
    await client.send(bytes.subarray(start, cuts[index + 1]));
  }
  await client.conn.closeWrite();
}

/** Names the seed and the input, so that a failure can be replayed. */
function shown(input: string, more: unknown): string {
  return `OUTCALL_FUZZ_SEED=${SEED}, input ${JSON.stringify(input)}: ${Deno.inspect(more)}`;
}

/** Answers requests one after the other, once the body is there that their framing announces. */
function recorder(): Origin {
  return new Origin(async (client) => {
    while (true) {
      const head = await client.until(/\r\n\r\n/);
      const length = Number(/\r\ncontent-length: ([0-9]+)\r\n/i.exec(head)?.[1] ?? 0);
      const isChunked = /\r\ntransfer-encoding:/i.test(head);
      if (isChunked) await client.until(/(^|\r\n)0\r\n\r\n/);
      else if (length > 0) await client.until(new RegExp(`^[^]{${length}}`));
      await client.send(ok("x"));
    }
  });
}

/** Inputs for one proxy and one origin, so that both forget what they remember. */
const ROUND_RUNS = 2_000;

/** One request as it was sent, what was admitted of it, and what came of that upstream. */
interface Run {
  readonly input: string;
  /** Method and path. */
  readonly admitted: readonly string[];
  /** Authority of the origin. */
  readonly host: string;
  readonly streams: readonly Received[];
}

const METHODS: readonly string[] = ["GET", "POST", "put", "HEAD", "M-SEARCH", "DELETE"];
const PATHS: readonly string[] = [
  ...["/", "/a?b", "", "/%2e%2e/x", "//b", "?q", "/x\tHTTP/1.1"],
  "/x HTTP/1.1\r\nHost: y\r\n\r\nGET /z",
];

async function requestRound(random: Random): Promise<Run[]> {
  await using origin = recorder();
  await using lab = await Lab.start({ rules: [{ condition: "true" }] });
  const host = `a.example:${origin.port}`;
  const runs: { input: string; admitted: string[]; from: number; to: number }[] = [];
  for (let run = 0; run < ROUND_RUNS; run++) {
    const request = (): Uint8Array => {
      const requestLine = `${random.pick(METHODS)} http://${host}${random.pick(PATHS)} HTTP/1.1`;
      return message(random, [requestLine, `Host: ${host}`]);
    };
    // Often another one behind it: where does the first one end?
    const input = random.below(3) === 0
      ? Uint8Array.from([...request(), ...request()])
      : Uint8Array.from(request());
    const from = origin.received.length;
    const known = (await lab.recent()).length;
    using client = await lab.connect();
    await sendInPieces(client, input, random);
    await client.rest();
    const admitted = (await lab.recent()).slice(known)
      .filter(({ verdict }) => verdict === "allow")
      .map(({ attempt }) => `${attempt.method} ${attempt.path}`);
    runs.push({ input: textOf(input), admitted, from, to: origin.received.length });
  }
  await eventually(() => origin.openConnections === 0);
  return runs.map(({ input, admitted, from, to }) => ({
    ...{ input, admitted, host },
    streams: origin.received.slice(from, to).map((bytes) => ({
      kind: "request",
      method: "",
      bytes,
    })),
  }));
}

/** What one reader found is what was admitted, in this order; returns how many whole requests. */
function assertJudged({ input, admitted, host }: Run, found: readonly Reading[]): number {
  const what = shown(input, found);
  const whole = found.flatMap(({ messages }) => messages);
  for (const [index, { start, fields }] of whole.entries()) {
    const [method = "", target = ""] = start.split(" ");
    const path = normalisePath(target.replace(/\?.*/, ""));
    assert.equal(`${method} ${path}`, admitted[index], what);
    const hosts = fields.filter(([name]) => name === "host").map(([, value]) => value);
    assert.deepEqual(hosts, [host], what);
  }
  const broken = found.filter(({ problem }) => problem !== null);
  assert.ok(broken.every(({ problem }) => problem === "cut off"), what);
  assert.ok(whole.length + broken.length <= admitted.length, what);
  return whole.length;
}

labTest("whatever goes upstream, parsers of other makes read as the requests that were judged", {
  tools: READER_TOOLS,
}, async () => {
  const random = new Random();
  let wholeRequests = 0;
  for (let done = 0; done < SOCKET_RUNS; done += ROUND_RUNS) {
    const runs = await requestRound(random);
    const readings = await readByOthers(runs.flatMap(({ streams }) => streams));
    let at = 0;
    for (const run of runs) {
      const [one = [], ...others] = readings.map((all) => all.slice(at, at + run.streams.length));
      for (const other of others) assert.deepEqual(other, one, shown(run.input, "they differ"));
      wholeRequests += assertJudged(run, one);
      at += run.streams.length;
    }
  }
  assert.ok(wholeRequests > SOCKET_RUNS / 10, `only ${wholeRequests} got through: it tests little`);
});

/** What a hostile server said, and what a client got of it and of the next answer. */
interface Answered {
  readonly answer: string;
  /** Another request, answered honestly, was behind the one that this answers. */
  readonly isFollowed: boolean;
  readonly stream: Received;
}

const STATUSES: readonly string[] = [
  ...["200 OK", "200 OK", "204 No Content", "304 Not Modified", "404", "103 x"],
];

async function answerRound(random: Random): Promise<Answered[]> {
  let answer = new Uint8Array();
  await using origin = new Origin(async (client) => {
    const head = await client.until(/\r\n\r\n/);
    await client.send(head.startsWith("GET /next ") ? ok("next") : answer);
  });
  await using lab = await Lab.start({ rules: [{ condition: "true" }] });
  const url = `http://a.example:${origin.port}/`;
  const all: Answered[] = [];
  for (let run = 0; run < ROUND_RUNS; run++) {
    const version = random.below(8) === 0 ? "1.0" : "1.1";
    answer = message(random, [`HTTP/${version} ${random.pick(STATUSES)}`]);
    const method = random.pick(["GET", "GET", "HEAD"]);
    const isFollowed = method === "GET" && random.below(2) === 0;
    using client = await lab.connect();
    await client.send(
      isFollowed
        // Behind a chunked body another request is one of its own.
        ? `${getRequest(url, "Transfer-Encoding: chunked")}0\r\n\r\n${getRequest(`${url}next`)}`
        : getRequest(url).replace("GET", method),
    );
    await client.conn.closeWrite();
    const bytes = await client.rest();
    all.push({ answer: textOf(answer), isFollowed, stream: { kind: "response", method, bytes } });
  }
  return all;
}

/** A client that reads like this gets one answer to each request, and knows where they end. */
function assertAnswered({ answer, isFollowed, stream }: Answered, found: Reading): void {
  const what = shown(answer, stream.bytes);
  const { messages: [first, next, ...more], problem } = found;
  assert.deepEqual(more, [], what);
  if (first === undefined) {
    assert.ok(problem === "cut off" || stream.bytes === "", what);
    return;
  }
  assert.equal(problem, null, what);
  const isLast = first.fields.some(([name, value]) => name === "connection" && value === "close");
  assert.equal(next?.body, isFollowed && !isLast ? "next" : undefined, what);
}

labTest("whatever a server answers, parsers of other makes read one answer to each request", {
  tools: READER_TOOLS,
}, async () => {
  const random = new Random();
  let passedOn = 0;
  for (let done = 0; done < SOCKET_RUNS; done += ROUND_RUNS) {
    const all = await answerRound(random);
    const [one = [], ...others] = await readByOthers(all.map(({ stream }) => stream));
    for (const [run, answered] of all.entries()) {
      const found = one[run];
      assert.ok(found !== undefined);
      const what = shown(answered.answer, answered.stream.bytes);
      for (const other of others) assert.deepEqual(other[run], found, what);
      assertAnswered(answered, found);
      // 502 is the proxy's own, where it could not understand the server's.
      if (found.messages.length > 0 && found.messages[0]?.start !== "502") passedOn++;
    }
  }
  assert.ok(passedOn > SOCKET_RUNS / 10, `only ${passedOn} were passed on: it tests little`);
});

labTest("whatever hello names the host for us, names it for OpenSSL", {
  tools: READER_TOOLS,
}, async () => {
  const random = new Random();
  const host = "a.example";
  const seeds = [...await hellosOfOpenssl(), ...soundHellos(host).map(([, bytes]) => bytes)];
  const spice = [...bytesOf(host), 0, 1, 2, 9, 22, 43, 255];
  const accepted: Uint8Array[] = [];
  for (let run = 0; run < HELLO_RUNS; run++) {
    const bytes = random.mutate(random.pick(seeds), spice);
    const read = parseClientHello(bytes);
    if (read.kind === "hello" && read.serverName?.name === host) accepted.push(bytes);
  }
  const names = await namesByOpenssl(accepted);
  for (const [index, name] of names.entries()) {
    const what = `OUTCALL_FUZZ_SEED=${SEED}, hello ${hex(accepted[index] ?? new Uint8Array())}`;
    assert.ok(name === null || Hostname.parse(name)?.name === host, `${name} in ${what}`);
  }
  const readByBoth = names.filter((name) => name !== null).length;
  assert.ok(readByBoth > HELLO_RUNS / 20, `only ${readByBoth} hellos were read: it tests little`);
});
