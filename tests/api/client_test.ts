import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import { HostClient } from "../../lib/api/client.ts";
import type { PullProgress } from "../../lib/api/services.ts";
import { OutcallError } from "../../lib/errors.ts";
import { AGENT_NET, OPENAI } from "./services.ts";
import { withDirectory, withHostApi } from "./running.ts";

async function failureOf(call: Promise<unknown>): Promise<OutcallError> {
  const thrown: unknown = await call.then(() => null, (thrown: unknown) => thrown);
  ok(thrown instanceof OutcallError, `${thrown}`);
  return thrown;
}

Deno.test("every call returns the service's own shape", () =>
  withHostApi(async ({ path, calls }) => {
    const client = new HostClient(path);
    deepEqual(await client.bridgeStatus(), {
      name: "outcall0",
      up: true,
      index: 12,
      nftables: "active",
    });
    equal(await client.bridgeUp(), undefined);
    deepEqual(await client.rules(), [OPENAI]);
    equal((await client.reloadRules()).rules_loaded, 1);
    equal((await client.dnsStatus()).queries_blocked, 4);
    equal((await client.dnsTest("A.example.", "mx")).hostname, "a.example");
    deepEqual((await client.dnsCache(false)).entries, []);
    equal((await client.dnsCache(true)).entries.length, 1);
    deepEqual(await client.dnsFlush(), { entries_flushed: 7 });
    equal((await client.proxyStatus()).listen_port, 8080);
    equal((await client.createNetwork({ name: "x" })).created, true);
    deepEqual(await client.network("agent-net"), AGENT_NET);
    deepEqual(await client.networks(), [AGENT_NET]);
    deepEqual(await client.destroyNetwork(), { name: "outcall-default", destroyed: false });
    equal((await client.createContainer({ image: "x", name: "y" })).name, "y");
    // Whose namespace it is, the kernel says, and not the request.
    equal((await client.attachAgent({ name: "a" })).address, "10.200.255.254");
    deepEqual(calls.at(-1), ["agent.attach", { name: "a", pid: Deno.pid }]);
    await client.joinAgent("ocr01234567");
    deepEqual(calls.at(-1), ["agent.join", { port: "ocr01234567" }]);
    equal((await client.containers()).length, 1);
    equal((await client.container("outcall-a3f7b201")).ip_address, "10.200.0.2");
    equal((await client.stopContainer("z")).stopped, false);
    equal((await client.removeContainer("z", true)).removed, false);
    deepEqual(calls.slice(-2), [["container.stop", "z", 10], ["container.remove", "z", true]]);
  }));

Deno.test("names travel percent-encoded", () =>
  withHostApi(async ({ path }) => {
    const error = await failureOf(new HostClient(path).container("a&name=b ü/%"));
    equal(error.message, 'container "a&name=b ü/%" does not exist');
  }));

Deno.test("a failure comes back as the OutcallError it was", () =>
  withHostApi(async ({ path, answers }) => {
    const busy = await failureOf(new HostClient(path).bridgeDown());
    deepEqual([busy.status, busy.code, busy.message, busy.hint], [
      409,
      "bridge.busy",
      "containers are attached: my-agent",
      "Stop them first.",
    ]);
    answers.reloadFails = true;
    const invalid = await failureOf(new HostClient(path).reloadRules());
    equal(invalid.status, 422);
    equal(invalid.details?.length, 2);
    equal(invalid.details?.[0]?.column, 17);
  }));

Deno.test("a pull shows progress while it runs, and fails with its own status", () =>
  withHostApi(async ({ path }) => {
    const client = new HostClient(path);
    const lines: string[] = [];
    const show = ({ text, bytes }: PullProgress): number => lines.push(`${text} ${bytes}`);
    deepEqual(await client.pullImage("x", show), { image: "x", pulled: true });
    deepEqual(lines, ["pulling layer 1 5000000", "pulling layer 2 15000000"]);
    const error = await failureOf(client.pullImage("missing", () => {}));
    deepEqual([error.status, error.code], [404, "image.not_found"]);
  }));

/** Runs `test` against a server that sends `bytes` to whoever connects. */
async function withLiar(
  bytes: string | ((socket: Socket) => void),
  test: (client: HostClient) => Promise<void>,
): Promise<void> {
  await withDirectory(async (directory) => {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.resume();
      if (typeof bytes === "string") socket.end(bytes);
      else bytes(socket);
    });
    await new Promise<void>((resolve) => server.listen(`${directory}/s`, resolve));
    try {
      await test(new HostClient(`${directory}/s`));
    } finally {
      await new Promise<void>((resolve) => server.close(() => resolve()));
    }
  });
}

function response(status: number, body: string): string {
  return `HTTP/1.1 ${status} X\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}

for (
  const [what, body] of [
    ["not JSON", "hello"],
    ["no envelope", '{"name":"outcall0"}'],
    ["ok that is not true", '{"ok":1,"name":"outcall0","up":true,"index":1,"nftables":"active"}'],
    ["a list", "[]"],
    ["a field missing", '{"ok":true,"name":"outcall0","up":true,"index":12}'],
    ["a field of another type", '{"ok":true,"name":"x","up":"yes","index":1,"nftables":"active"}'],
    ["a failure without a code", '{"ok":false,"error":"x"}'],
  ] as const
) {
  Deno.test(`a reply that is ${what} is never taken for an answer`, () =>
    withLiar(response(200, body), async (client) => {
      equal((await failureOf(client.bridgeStatus())).code, "daemon.bad_reply");
    }));
}

Deno.test("a failure envelope is a failure whatever the status line says", () =>
  withLiar(response(200, '{"ok":false,"error":"no","code":"x.y"}'), async (client) => {
    const error = await failureOf(client.bridgeUp());
    deepEqual([error.status, error.code, error.message], [500, "x.y", "no"]);
  }));

Deno.test("a connection cut before the end of the reply is not an answer", () =>
  withLiar('HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"ok":true}', async (client) => {
    equal((await failureOf(client.bridgeUp())).code, "daemon.unreachable");
  }));

Deno.test("a stream cut before its outcome is not an answer", () =>
  withLiar(
    'HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n{"progress":"almost"}\n',
    async (client) => {
      equal((await failureOf(client.pullImage("x", () => {}))).code, "daemon.bad_reply");
    },
  ));

Deno.test("bytes that are not HTTP are not an answer", () =>
  withLiar("SSH-2.0-x\r\n\r\n", async (client) => {
    equal((await failureOf(client.bridgeUp())).code, "daemon.unreachable");
  }));

Deno.test("a reply above 16 MiB is given up", () =>
  withLiar(
    (socket) => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      const chunk = new Uint8Array(1024 * 1024).fill(0x20);
      for (let i = 0; i < 17; i++) socket.write(chunk);
      socket.end();
    },
    async (client) => {
      match((await failureOf(client.bridgeStatus())).message, /more than 16777216 bytes/);
    },
  ));

Deno.test("no daemon: the text names socket and reason, the hint what to do (D19)", async () => {
  await withDirectory(async (directory) => {
    const error = await failureOf(new HostClient(`${directory}/none`).bridgeStatus());
    equal(error.message, `daemon unreachable (${directory}/none: No such file or directory)`);
    equal(error.code, "daemon.unreachable");
    await rejects(new HostClient(directory).bridgeStatus(), /Connection refused\)$/);
    const long = new HostClient(`${directory}/${"x".repeat(300)}`);
    equal((await failureOf(long.bridgeStatus())).code, "daemon.unreachable");
  });
});
