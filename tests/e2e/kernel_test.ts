/** What the kernel enforces on its own, seen from a daemon that fails, and by packets. */
import assert from "node:assert/strict";
import { EXAMPLE_ADDRESS } from "../lab/internet/world.ts";
import { Lab, UNFILTERED_GATEWAY } from "../lab/lab.ts";
import { attempt, expectBlocked } from "../lab/probe.ts";
import { labTest } from "../lab/requirements.ts";
import { nothing } from "../lab/witness.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl", "nc", "python3"];

/** Another program of the host: prints who connects to it. */
const FOREIGN_LISTENER = `
import socket
server = socket.create_server(("0.0.0.0", 8080), backlog=128)
print("listening", flush=True)
while True:
    conn, peer = server.accept()
    print(peer[0], flush=True)
    conn.close()
`;

const ASK_FOR_EVER = "while :; do nc -z -w 1 10.200.255.1 8080; echo asked; done";

labTest("a gateway port that another program holds is never open to agents (D6, D14)", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const first = await lab.startDaemon();
  const agent = await lab.agent();
  const connects = ["nc", "-z", "-w", "1", "10.200.255.1", "8080"];
  assert.equal((await agent.run(connects)).code, 0, "positive control: our own proxy is reached");
  assert.equal(await first.stop(), 0);

  const foreign = lab.host.spawn(["python3", "-c", FOREIGN_LISTENER]);
  await foreign.line("stdout", (line) => line === "listening");
  const asking = agent.spawn(["bash", "-c", ASK_FOR_EVER]);

  await t.step("start-up fails with exit code 1 and says why", async () => {
    const failed = await lab.host.run(["outcalld"]);
    assert.equal(failed.code, 1);
    assert.match(failed.stderr, /the HTTP proxy cannot listen on .*:8080: address already in use/);
  });
  await t.step("the agent reached it at no moment, while others do", async () => {
    const rounds = asking.stdout.length;
    await asking.line("stdout", () => true, rounds + 1);
    assert.equal((await lab.control(["nc", "-z", "-w1", UNFILTERED_GATEWAY, "8080"])).code, 0);
    await foreign.line("stdout", (line) => line.startsWith("10.99."));
    assert.deepEqual(foreign.stdout.filter((line) => line.startsWith("10.200.")), []);
  });
  await t.step("a gateway without our proxy keeps its port closed", async () => {
    const daemon = await lab.startDaemon({ flags: ["--proxy-addr", "127.0.0.1:18080"] });
    assert.notEqual((await agent.run(connects)).code, 0);
    assert.equal(await daemon.stop(), 0);
    assert.deepEqual(foreign.stdout.filter((line) => line.startsWith("10.200.")), []);
  });
});

/** Waits until `command` succeeds on the host; the two seconds are the promise under test. */
async function within2s(lab: Lab, command: string): Promise<void> {
  const loop = `until ${command} > /dev/null 2>&1; do sleep 0.02; done`;
  const { code } = await lab.host.run(["bash", "-c", loop], { timeoutMs: 2000 });
  assert.equal(code, 0, `not within 2 s: ${command}`);
}

labTest("what another program of the host breaks is repaired within 2 s, and told", {
  tools: [...TOOLS, "bridge", "ping"],
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const daemon = await lab.startDaemon();
  const agent = await lab.agent();
  const port = (await lab.host.must(["bridge", "link"])).split(/[:@]/)[1]?.trim() ?? "";
  const reaches = async (): Promise<number> =>
    (await agent.run(["nc", "-z", "-w", "2", "10.200.255.1", "8080"])).code;
  assert.equal(await reaches(), 0, "positive control");

  const breaks: readonly { name: string; how: string; whole: string; wrong: RegExp }[] = [
    {
      name: "nft flush ruleset",
      how: "nft flush ruleset",
      whole: "nft list table inet outcall && nft list table bridge outcall",
      wrong: /firewall was changed/,
    },
    {
      name: "an accepting rule in front",
      how: "nft insert rule inet outcall input_from_agents accept",
      whole: "! nft list chain inet outcall input_from_agents | grep -qx '[[:space:]]*accept'",
      wrong: /firewall was changed/,
    },
    {
      name: "a pin that is taken away",
      how: "nft flush set bridge outcall pinned",
      whole: "nft list set bridge outcall pinned | grep -q 10.200.255.10",
      wrong: /firewall was changed/,
    },
    {
      name: "the port's isolation",
      how: `ip link set ${port} type bridge_slave isolated off`,
      whole: `ip -d link show ${port} | grep -q 'isolated on'`,
      wrong: /not isolated/,
    },
    {
      name: "the bridge set down",
      how: "ip link set outcall0 down",
      whole: "ip link show outcall0 | grep -q ',UP'",
      wrong: /outcall0 is down/,
    },
    {
      name: "the gateway's address",
      how: "ip address flush dev outcall0",
      whole: "ip address show dev outcall0 | grep -q 10.200.255.1/24",
      wrong: /lost its address/,
    },
    {
      name: "the bridge deleted, with the agent on it",
      how: "ip link delete outcall0",
      whole: `ip link show ${port} | grep -q 'master outcall0'`,
      wrong: /outcall0 is gone/,
    },
  ];
  for (const { name, how, whole, wrong } of breaks) {
    await t.step(name, async () => {
      await lab.host.must(["bash", "-c", how]);
      await within2s(lab, whole);
      await within2s(lab, `outcall bridge status | grep -Eq '${wrong.source}'`);
      assert.equal(await reaches(), 0, "the agent works again");
      assert.equal((await lab.api("GET", "/api/v1/ready")).status, 200);
    });
  }
  await t.step("each time the log says so", () => {
    const errors = daemon.log.filter((line) => line.includes("repairing"));
    assert.ok(errors.length >= breaks.length, errors.join("\n"));
  });
});

labTest("an operator opens one destination to one agent for a time, and takes it back (D12)", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const daemon = await lab.startDaemon();
  const agent = await lab.agent();
  const connect = {
    client: agent,
    argv: ["nc", "-z", "-w", "1", EXAMPLE_ADDRESS, "443"],
    arrives: { to: EXAMPLE_ADDRESS, protocol: "tcp", port: 443 },
  } as const;
  const allow = ["grants", "allow", "--agent", "10.200.255.10", "--to", EXAMPLE_ADDRESS];

  await t.step("without a grant nothing arrives", async () => {
    await expectBlocked(lab, connect);
  });
  await t.step(
    "with it the connection stands, and the host's address is what is seen",
    async () => {
      const granted = await lab.cli(...allow, "--for", "1m");
      assert.match(
        granted.stdout,
        /^Grant \S+: 10\.200\.255\.10 may reach 93\.184\.216\.34 port 443/,
      );
      const { client, seen } = await attempt(lab, connect);
      assert.equal(client.code, 0);
      assert.deepEqual([...new Set(seen.packets.map(({ from }) => from))], ["81.2.69.1"]);
      assert.equal((await lab.api("GET", "/api/v1/ready")).status, 200);
    },
  );
  await t.step("another port of it stays closed", async () => {
    await expectBlocked(lab, {
      client: agent,
      argv: ["nc", "-z", "-w", "1", EXAMPLE_ADDRESS, "80"],
      arrives: { to: EXAMPLE_ADDRESS, protocol: "tcp", port: 80 },
    });
  });
  await t.step("revoked by its id, nothing arrives", async () => {
    const { body } = await lab.api("GET", "/api/v1/rules/active");
    assert.ok(body !== null && typeof body === "object" && "rules" in body);
    assert.ok(Array.isArray(body.rules));
    const revoked = await lab.cli("grants", "revoke", String(body.rules[0].id));
    assert.equal(revoked.code, 0, revoked.stderr);
    await expectBlocked(lab, connect);
    const again = await lab.cli("grants", "revoke", String(body.rules[0].id));
    assert.deepEqual([again.code, /there is no grant/.test(again.stderr)], [1, true]);
  });
  await t.step("expired, nothing arrives", async () => {
    assert.equal((await lab.cli(...allow, "--for", "1s")).code, 0);
    await within2s(lab, "outcall grants list | grep -q 'No grants are in force.'");
    await expectBlocked(lab, connect);
  });
  await t.step("what makes no sense is refused", async () => {
    for (
      const [request, status] of [
        [{ src_ip: "10.200.255.10", destination: "1.1.1.1/8", port: 1 }, 422],
        [{ src_ip: "10.200.255.10", destination: "1.1.1.1", port: 0 }, 422],
        [{ destination: "1.1.1.1", port: 443 }, 422],
        [{ src_ip: "10.200.255.99", destination: "1.1.1.1", port: 443 }, 404],
        [{ container: "nobody", destination: "1.1.1.1", port: 443 }, 404],
        [{ container: "", destination: "1.1.1.1", port: 443 }, 404],
      ] as const
    ) {
      assert.equal((await lab.api("POST", "/api/v1/rule/allow", request)).status, status);
    }
    assert.deepEqual((await lab.api("GET", "/api/v1/rules/active")).body, { ok: true, rules: [] });
  });
  await t.step("all of them end with the daemon", async () => {
    assert.equal((await lab.cli(...allow)).code, 0);
    const { client } = await attempt(lab, connect);
    assert.equal(client.code, 0, "positive control");
    assert.equal(await daemon.stop(), 0);
    assert.ok(nothing((await attempt(lab, connect)).seen));
  });
});
