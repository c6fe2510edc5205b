import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { HOST_ADDRESS, Lab, UNFILTERED_ADDRESS } from "./lab.ts";
import { EXAMPLE_ADDRESS, UPSTREAM_RESOLVER } from "./internet/world.ts";
import { connect, Machine } from "./machine.ts";
import { expectBlocked, InconclusiveError } from "./probe.ts";
import { labTest } from "./requirements.ts";
import { nothing } from "./witness.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl", "dig", "nc", "ping"];

labTest("the internet answers as the real one would, and its witness saw who asked", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const { witness } = lab;
  const from = UNFILTERED_ADDRESS;

  await t.step("HTTPS: the trusted certificate, 401, and a receipt for name and path", async () => {
    const mark = await witness.mark();
    const url = "https://api.openai.com/v1/models";
    const curl = await lab.control(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url]);
    assert.deepEqual(curl, { code: 0, stdout: "401", stderr: "" });
    const { receipts } = await witness.since(mark, { from, name: "api.openai.com", port: 443 });
    assert.deepEqual(receipts.map(({ kind, method, path }) => ({ kind, method, path })), [
      { kind: "tls", method: undefined, path: undefined },
      { kind: "http", method: "GET", path: "/v1/models" },
    ]);
  });

  await t.step("plain HTTP", async () => {
    const mark = await witness.mark();
    const curl = await lab.control(["curl", "-s", "http://example.com/x?y=1"]);
    assert.equal(curl.stdout, "GET /x?y=1 at example.com\n");
    const seen = await witness.since(mark, { to: EXAMPLE_ADDRESS, name: "example.com" });
    assert.deepEqual(
      seen.receipts,
      [
        { kind: "http", from, to: EXAMPLE_ADDRESS, port: 80, name: "example.com" },
      ].map((receipt) => ({ ...receipt, method: "GET", path: "/x?y=1" })),
    );
  });

  await t.step("DNS over UDP and TCP, aliases, and names that do not exist", async () => {
    const dig = (...args: string[]): Promise<string> =>
      lab.control(["dig", "+noall", "+comments", "+answer", ...args]).then((done) => done.stdout);
    assert.match(await dig("example.com"), /example\.com\.\s+60\s+IN\s+A\s+93\.184\.216\.34/);
    assert.match(await dig("+tcp", "www.github.com"), /CNAME\s+github\.com\.[^]*140\.82\.121\.4/);
    assert.match(await dig("nowhere.example"), /status: NXDOMAIN/);
    assert.match(await dig("nowhere.example", "@8.8.8.8"), /status: NOERROR[^]*93\.184\.216\.34/);
    const mark = await witness.mark();
    await dig("github.com");
    const seen = await witness.since(mark, { to: UPSTREAM_RESOLVER, name: "github.com" });
    assert.equal(seen.receipts.length, 1);
  });

  await t.step("ping, and TCP and UDP ports that echo", async () => {
    const mark = await witness.mark();
    assert.equal((await lab.control(["ping", "-c1", "-W2", "1.1.1.1"])).code, 0);
    assert.equal((await lab.control(["nc", "-zv", "-w2", "1.1.1.1", "443"])).code, 0);
    const echo = await lab.control(["nc", "-u", "-w1", "1.1.1.1", "443"], { input: "hello\n" });
    assert.equal(echo.stdout, "hello\n");
    for (const protocol of ["icmp", "tcp", "udp"] as const) {
      assert.ok(!nothing(await witness.since(mark, { from, to: "1.1.1.1", protocol })), protocol);
    }
  });

  await t.step("a packet that nothing answers is counted all the same", async () => {
    const mark = await witness.mark();
    assert.notEqual((await lab.control(["nc", "-z", "-w1", "1.1.1.1", "4444"])).code, 0);
    const seen = await witness.since(mark, { to: "1.1.1.1", protocol: "tcp", port: 4444 });
    assert.ok(seen.packets.length === 1 && seen.receipts.length === 0);
    assert.ok(nothing(await witness.since(await witness.mark(), { from })));
  });

  await t.step("what needs no product to be blocked is not taken for a proof", async () => {
    const silent = { client: lab.unfiltered, argv: ["true"], arrives: { to: "1.1.1.1" } };
    await assert.rejects(expectBlocked(lab, silent), InconclusiveError);
  });

  await t.step("an attempt that gets through is not taken for blocked", async () => {
    const argv = ["ping", "-c1", "-W2", "1.1.1.1"];
    const ping = { client: lab.unfiltered, argv, arrives: { to: "1.1.1.1" } };
    await assert.rejects(expectBlocked(lab, ping), /got through/);
  });
});

labTest("two labs live side by side and do not see each other", { tools: TOOLS }, async () => {
  await using one = await Lab.create({ docker: false });
  await using other = await Lab.create({ docker: false });
  const mark = await other.witness.mark();
  assert.equal((await one.control(["ping", "-c1", "-W2", "1.1.1.1"])).code, 0);
  assert.ok(nothing(await other.witness.since(mark, { protocol: "icmp", to: "1.1.1.1" })));
});

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

/** A process that has ended may stay in the list for long, where process 1 does not reap. */
async function runs(pid: number): Promise<boolean> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`).catch(() => "State:\tX");
  return !/^State:\t[XZ]/m.test(status);
}

labTest("a machine takes its processes, interfaces and files with it", {
  tools: TOOLS,
}, async () => {
  const realLinks = (): Promise<string> => Deno.readTextFile("/proc/net/dev");
  const machine = await Machine.start("short-lived");
  await using other = await Machine.start("other");
  await connect({ machine, interface: "lab-cable" }, { machine: other, interface: "lab-cable" });
  assert.doesNotMatch(await realLinks(), /lab-cable/, "never on the real network");
  await machine.write("/etc/outcall/rules.d/lab.yaml", "left behind");
  const sleeper = machine.spawn(["bash", "-c", "echo $$; exec sleep 1000"]);
  await sleeper.line("stdout", () => true);

  await machine[Symbol.asyncDispose]();
  await sleeper.ended; // would wait for 1000 s otherwise
  assert.ok(!await exists("/etc/outcall/rules.d/lab.yaml"));
  await eventually(
    async () => !(await other.must(["ip", "link"])).includes("lab-cable"),
    "the cable is gone",
  );
  assert.doesNotMatch(await realLinks(), /lab-cable/);
});

labTest("a machine ends when the process that made it is killed", { tools: TOOLS }, async () => {
  const script = `
    const { Machine } = await import(${JSON.stringify(new URL("./machine.ts", import.meta.url))});
    const machine = await Machine.start("orphan");
    const sleeper = machine.spawn(["bash", "-c", "echo $$; exec sleep 1000"]);
    await sleeper.line("stdout", () => true);
    console.log(sleeper.pid);
  `;
  const maker = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--quiet", script],
    stdout: "piped",
  }).spawn();
  const reader = maker.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const sleeper = Number((await reader.read()).value);
  assert.ok(await runs(sleeper));
  maker.kill("SIGKILL");
  await maker.status;
  await reader.cancel();
  await eventually(async () => !await runs(sleeper), "the machine's process is gone");
});

labTest("with Docker, the host runs a real engine whose containers reach the internet", {
  tools: [...TOOLS, "dockerd", "docker", "iptables"],
}, async () => {
  await using lab = await Lab.create({ docker: true });
  assert.ok(lab.engine !== null);
  await lab.engine.importClients("python:3.12", lab.internet.rootPem);
  await lab.engine.must(["network", "create", "--subnet", "10.5.0.0/24", "plain"]);
  const mark = await lab.witness.mark();
  const curl = await lab.engine.must([
    ...["run", "--rm", "--network", "plain", "python:3.12"],
    ...["curl", "-sS", "-w", " %{http_code}", "https://example.com/from-a-container"],
  ]);
  assert.equal(curl, "GET /from-a-container at example.com\n 200");
  const { receipts } = await lab.witness.since(mark, { name: "example.com", port: 443 });
  assert.deepEqual(receipts.map(({ kind, from }) => ({ kind, from })), [
    { kind: "tls", from: HOST_ADDRESS },
    { kind: "http", from: HOST_ADDRESS },
  ]);
  assert.equal(
    (await lab.control(["ping", "-c1", "-W2", "1.1.1.1"])).code,
    0,
    "control still works",
  );
});
