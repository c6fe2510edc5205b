/**
 * The client of every proxy that is measured. Takes a {@linkcode ClientJob} as JSON in its argument;
 * prints one figure. Ends with an error when anything but the expected arrives.
 */
import { z } from "zod";
import { wantedMessage } from "./wanted.ts";

const clientTask = z.discriminatedUnion("kind", [
  /** Tunnels as fast as they go: megabytes (10^6 bytes) a second through all of them. */
  z.strictObject({
    kind: z.literal("bulk"),
    seconds: z.number(),
    /** At the same time. */
    tunnels: z.number(),
  }),
  /** Tunnels that are opened and then silent: how many. Says `open` when they are. */
  z.strictObject({
    kind: z.literal("idle"),
    seconds: z.number(),
    tunnels: z.number(),
  }),
  /** A tunnel for each small answer. */
  z.strictObject({
    kind: z.literal("exchange"),
    seconds: z.number(),
    /** Tunnels at the same time. */
    clients: z.number(),
    /** Of each answer. */
    bytes: z.number(),
    /** Exchanges a second, or how long one in two, or 99 in 100, take at most: milliseconds. */
    figure: z.enum(["rate", "p50", "p99"]),
  }),
]);

const clientJob = z.strictObject({
  proxy: z.strictObject({ hostname: z.string(), port: z.number() }),
  /** The server named in CONNECT and ClientHello. */
  server: z.string(),
  task: clientTask,
});

/** What the client does with its tunnels. */
export type ClientTask = Readonly<z.infer<typeof clientTask>>;

/** What the client does, and by which proxy. */
export type ClientJob = Readonly<z.infer<typeof clientJob>>;

/** As large as what the origin writes at once. */
const BUFFER_BYTES = 1024 * 1024;
/** A proxy's answer to CONNECT is far smaller. */
const HEAD_BYTES = 4096;

/** Opens a tunnel and asks the server behind it for `bytes` bytes. */
async function openTunnel(
  job: ClientJob,
  message: Uint8Array,
  buffer: Uint8Array,
): Promise<Deno.TcpConn> {
  const connection = await Deno.connect(job.proxy);
  try {
    const authority = `${job.server}:443`;
    await connection.write(
      new TextEncoder().encode(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`),
    );
    for (let filled = 0;;) {
      const count = await connection.read(buffer.subarray(filled, HEAD_BYTES));
      if (count === null) throw new Error("closed before the answer to CONNECT");
      filled += count;
      const head = new TextDecoder("latin1").decode(buffer.subarray(0, filled));
      if (!head.endsWith("\r\n\r\n")) continue;
      if (!/^HTTP\/1\.[01] 200 /.test(head)) throw new Error(`CONNECT was answered: ${head}`);
      break;
    }
    await connection.write(message);
    return connection;
  } catch (thrown) {
    connection.close();
    throw thrown;
  }
}

/** Reads to the end, or until it is `deadlineMs`; returns how many bytes there were. */
async function receive(
  connection: Deno.TcpConn,
  buffer: Uint8Array,
  deadlineMs = Infinity,
): Promise<number> {
  let received = 0;
  while (performance.now() < deadlineMs) {
    const count = await connection.read(buffer);
    if (count === null) break;
    received += count;
  }
  return received;
}

async function bulk(
  job: ClientJob,
  { seconds, tunnels }: ClientTask & { kind: "bulk" },
): Promise<number> {
  const message = await wantedMessage(job.server, Number.MAX_SAFE_INTEGER);
  const open = await Promise.all(Array.from({ length: tunnels }, async () => {
    const buffer = new Uint8Array(BUFFER_BYTES);
    return { buffer, connection: await openTunnel(job, message, buffer) };
  }));
  const startMs = performance.now();
  const deadlineMs = startMs + seconds * 1000;
  const received = await Promise.all(
    open.map(({ connection, buffer }) => receive(connection, buffer, deadlineMs)),
  );
  const endMs = performance.now();
  for (const { connection } of open) connection.close();
  const total = received.reduce((sum, bytes) => sum + bytes, 0);
  if (endMs < deadlineMs) throw new Error(`the tunnels ended after ${total} bytes`);
  return total / (endMs - startMs) / 1000;
}

async function idle(
  job: ClientJob,
  { seconds, tunnels }: ClientTask & { kind: "idle" },
): Promise<number> {
  const message = (await wantedMessage(job.server, 0)).subarray(0, -1); // the origin waits for more
  const open: Deno.TcpConn[] = [];
  for (let i = 0; i < tunnels; i++) {
    open.push(await openTunnel(job, message, new Uint8Array(HEAD_BYTES)));
  }
  console.log("open");
  await new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
  for (const connection of open) connection.close();
  return open.length;
}

/** What the job measures. */
function measure(job: ClientJob): Promise<number> {
  const { task } = job;
  switch (task.kind) {
    case "bulk":
      return bulk(job, task);
    case "idle":
      return idle(job, task);
    case "exchange":
      return exchanges(job, task);
  }
}

async function exchanges(
  job: ClientJob,
  { seconds, clients, bytes, figure }: ClientTask & { kind: "exchange" },
): Promise<number> {
  const message = await wantedMessage(job.server, bytes);
  const startMs = performance.now();
  const deadlineMs = startMs + seconds * 1000;
  const tookMs: number[] = [];
  await Promise.all(Array.from({ length: clients }, async () => {
    const buffer = new Uint8Array(HEAD_BYTES);
    for (let beginMs = startMs; beginMs < deadlineMs;) {
      const connection = await openTunnel(job, message, buffer);
      const received = await receive(connection, buffer);
      connection.close();
      if (received !== bytes) throw new Error(`${received} of ${bytes} bytes arrived`);
      const nowMs = performance.now();
      tookMs.push(nowMs - beginMs);
      beginMs = nowMs;
    }
  }));
  if (figure === "rate") return tookMs.length * 1000 / (performance.now() - startMs);
  const share = figure === "p50" ? 0.5 : 0.99;
  return tookMs.toSorted((a, b) => a - b)[Math.ceil(tookMs.length * share) - 1] ?? NaN;
}

if (import.meta.main) {
  const job = clientJob.parse(JSON.parse(Deno.args[0] ?? ""));
  console.log(await measure(job));
  Deno.exit(0); // the TLS client that made the ClientHello still waits for an answer
}
