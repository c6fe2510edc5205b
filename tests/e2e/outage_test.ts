/**
 * The daemon's absence: however it ends, a container that goes on sending reaches nothing, and what
 * was allowed works again once it is back (decision D2).
 */
import assert from "node:assert/strict";
import { QUICKSTART_RULE } from "../demo/attempts.ts";
import { eventually } from "../eventually.ts";
import type { Engine } from "../lab/engine.ts";
import { API_ADDRESS, EXAMPLE_ADDRESS, UPSTREAM_RESOLVER } from "../lab/internet/world.ts";
import { HOST_ADDRESS, Lab } from "../lab/lab.ts";
import { positiveControl } from "../lab/probe.ts";
import { labTest } from "../lab/requirements.ts";
import { type Mark, nothing } from "../lab/witness.ts";

const TOOLS = [
  ...["nft", "ip", "iptables", "unshare", "nsenter", "dockerd", "docker"],
  ...["curl", "dig", "nc", "ping", "python3"],
];

/** Everything that could get out, over and over; each round ends with a line. */
const SEND = `
while :; do
  curl -s -m 1 -o /dev/null https://api.openai.com/v1/models &
  curl -s -m 1 -o /dev/null --noproxy '*' --resolve example.com:443:${EXAMPLE_ADDRESS} https://example.com &
  dig +time=1 +tries=1 example.com @8.8.8.8 > /dev/null &
  nc -z -w 1 1.1.1.1 443 &
  ping -c 1 -W 1 1.1.1.1 > /dev/null &
  wait
  echo round
done`;

const ASK_ALLOWED = [
  "bash",
  "-c",
  'until test "$(curl -s -m 1 -o /dev/null -w "%{http_code}" https://api.openai.com/v1/models)" = 401; do :; done',
];

async function startSender(engine: Engine): Promise<void> {
  await engine.must([
    ...["run", "-d", "--rm", "--name", "sender", "--network", "outcall-agent-net"],
    ...["--dns", "10.200.0.1"],
    ...["-e", "HTTP_PROXY=http://10.200.0.1:8080", "-e", "HTTPS_PROXY=http://10.200.0.1:8080"],
    ...["python:3.12", "bash", "-c", SEND],
  ]);
}

/** Waits until the sender has begun and ended whole rounds from now on. */
async function someRounds(engine: Engine): Promise<void> {
  const rounds = async (): Promise<number> =>
    (await engine.must(["logs", "sender"])).split("\n").length;
  const before = await rounds();
  await eventually(async () => await rounds() >= before + 3, "the sender goes on");
}

labTest("a container that keeps sending reaches nothing while the daemon is away", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: true });
  const { engine, witness } = lab;
  assert.ok(engine !== null);
  await engine.importClients("python:3.12", lab.internet.rootPem);
  let daemon = await lab.startDaemon({ rules: { "agent.yaml": QUICKSTART_RULE } });
  await lab.cli("network", "create", "--name", "agent-net");
  await startSender(engine);

  const reachedSince = async (mark: Mark): Promise<string[]> => {
    const seen = [
      await witness.since(mark, { from: HOST_ADDRESS }),
      await witness.since(mark, { from: "10.200.0.2" }),
    ];
    return seen.flatMap(({ packets, receipts }) =>
      [...packets, ...receipts].map((one) => JSON.stringify(one))
    );
  };
  const controls = async (): Promise<void> => {
    await positiveControl(lab, ["nc", "-z", "-w", "1", "1.1.1.1", "443"], { to: "1.1.1.1" });
    await positiveControl(lab, ["ping", "-c", "1", "1.1.1.1"], { protocol: "icmp" });
    await positiveControl(lab, ["dig", "x.example", "@8.8.8.8"], { to: "8.8.8.8" });
  };
  const bridgeFlags = async (): Promise<string> =>
    (await lab.host.must(["ip", "-o", "link", "show", "outcall0"])).split(/[<>]/)[1] ?? "";
  const askAllowed = async (): Promise<void> => {
    await engine.must(["exec", "sender", ...ASK_ALLOWED], { timeoutMs: 10_000 });
  };

  await t.step("while it runs, only the allowed host is reached", async () => {
    await askAllowed();
    const mark = await witness.mark();
    await someRounds(engine);
    const { packets, receipts } = await witness.since(mark, { from: HOST_ADDRESS });
    assert.ok(receipts.some(({ kind, name }) => kind === "http" && name === "api.openai.com"));
    const reached = new Set(packets.map(({ to, protocol, port }) => `${to} ${protocol} ${port}`));
    reached.delete(`${UPSTREAM_RESOLVER} udp 53`); // the filter's own questions
    assert.deepEqual([...reached], [`${API_ADDRESS} tcp 443`]);
  });

  let killed = await witness.mark();
  await t.step("kill -9: nothing arrives, not even at the allowed host", async () => {
    await controls();
    await daemon.kill();
    killed = await witness.mark();
    await someRounds(engine);
    assert.deepEqual(await reachedSince(killed), []);
    assert.match(await bridgeFlags(), /UP/);
  });

  await t.step("restart: the allowed path works again, and no gap opened", async () => {
    const startedMs = performance.now();
    const [started] = await Promise.all([lab.startDaemon(), askAllowed()]);
    daemon = started;
    // Shown, not asserted: the promise is 2 s, and a busy machine is not a broken one.
    console.log(`back after ${Math.round(performance.now() - startedMs)} ms`);
    await someRounds(engine);
    for (const to of ["1.1.1.1", "8.8.8.8", EXAMPLE_ADDRESS]) {
      assert.ok(nothing(await witness.since(killed, { to, from: HOST_ADDRESS })), to);
    }
  });

  await t.step("SIGTERM: exit code 0, the strict policy and the bridges stay", async () => {
    await controls();
    assert.equal(await daemon.stop(), 0);
    const mark = await witness.mark();
    await someRounds(engine);
    assert.deepEqual(await reachedSince(mark), []);
    assert.match(await bridgeFlags(), /UP/);
    assert.match(await lab.host.must(["nft", "list", "table", "inet", "outcall"]), /policy drop/);
    const status = await lab.cli("bridge", "status");
    assert.equal(status.code, 1);
    assert.match(status.stderr, /^error: daemon unreachable \(\/run\/outcall\/host\.sock: /); // D19
  });

  await t.step("a daemon that starts again serves as before", async () => {
    await Promise.all([lab.startDaemon(), askAllowed()]);
  });
});
