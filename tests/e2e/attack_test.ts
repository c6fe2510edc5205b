/** Ways around a policy that is wide open but for what it blocks, by packets. */
import assert from "node:assert/strict";
import { DEFAULT_PLACE } from "../lab/agent.ts";
import { DecisionWatch } from "../lab/decisions.ts";
import { EXAMPLE_ADDRESS, UPSTREAM_RESOLVER, ZONE } from "../lab/internet/world.ts";
import { HOST_ADDRESS, Lab } from "../lab/lab.ts";
import { expectBlocked, positiveControl } from "../lab/probe.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl", "nc", "ping"];

const AGENT_ADDRESS = "10.200.255.10";
const GITHUB_ADDRESS = ZONE["github.com"]?.[0]?.data ?? "";

const RULES = `
version: "1"
rules:
  - id: block-address
    action: block
    priority: 10
    condition: network.ip == "${EXAMPLE_ADDRESS}" || http.host == "${EXAMPLE_ADDRESS}"
  - id: block-github
    action: block
    priority: 10
    condition: http.host == "github.com"
  - id: allow-rest
    action: allow
    condition: "true"
`;

labTest("what a rule blocks is blocked under every name and spelling, and recorded so", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  await lab.startDaemon({ rules: { "agent.yaml": RULES } });
  const agent = await lab.agent();
  /** What the agent's curl to `url` by the proxy is answered, and the record; nothing may arrive. */
  const refused = async (url: string, address: string): Promise<readonly string[]> => {
    const watch = await DecisionWatch.start(lab);
    const curl = ["curl", "-s", "-k", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"];
    const { client } = await expectBlocked(lab, {
      client: agent,
      argv: [...curl, "-x", "http://10.200.255.1:8080", url],
      control: [...curl, `http://${address}/`],
      arrives: { to: address, from: HOST_ADDRESS },
    });
    const { records } = await watch.decided(AGENT_ADDRESS);
    return [
      client.stdout,
      ...records.map(({ layer, verdict, reason, rule }) =>
        `${verdict} ${layer} ${reason} ${rule?.id}`
      ),
    ];
  };

  for (const host of [EXAMPLE_ADDRESS, `[::ffff:${EXAMPLE_ADDRESS}]`, "[::FFFF:5db8:d822]"]) {
    await t.step(`an address written as ${host} (ADV-HTTP-22)`, async () => {
      assert.deepEqual(
        await refused(`http://${host}/`, EXAMPLE_ADDRESS),
        ["403", "block http rule block-address"],
      );
    });
  }
  await t.step("an alias of a name, asked for by HTTP (ADV-DNS-07)", async () => {
    assert.deepEqual(
      await refused("http://www.github.com/", GITHUB_ADDRESS),
      ["403", "block dial rule block-github"],
    );
  });
  await t.step("an alias of a name, asked for by CONNECT", async () => {
    assert.deepEqual(
      await refused("https://www.github.com/", GITHUB_ADDRESS),
      ["000", "block dial rule block-github"],
    );
  });
});

/** A container of before the boot, which Docker starts before it answers anybody. */
const SEND = "while :; do nc -z -w 1 1.1.1.1 443 & echo round; sleep 0.1; done";

labTest("a boot opens nothing: not before Docker tells of its networks either (D2)", {
  tools: [...TOOLS, "iptables", "dockerd", "docker"],
}, async () => {
  await using lab = await Lab.create({ docker: true });
  const { engine, host, witness } = lab;
  assert.ok(engine !== null);
  const rounds = async (): Promise<number> =>
    (await engine.docker(["logs", "sender"])).stdout.split("\n").length;
  await engine.importClients("python:3.12", lab.internet.rootPem);
  const before = await lab.startDaemon({ rules: { "agent.yaml": RULES } });
  assert.equal((await lab.cli("network", "create", "--name", "agent-net")).code, 0);
  await engine.must([
    ...["run", "-d", "--restart", "always", "--stop-timeout", "1", "--name", "sender"],
    ...["--network", "outcall-agent-net", "python:3.12", "bash", "-c", SEND],
  ]);
  await positiveControl(lab, ["nc", "-z", "-w", "1", "1.1.1.1", "443"], { to: "1.1.1.1" });

  // What a boot leaves: neither table nor bridges, and Docker's memory of its networks.
  await host.must([
    "bash",
    "-c",
    "kill $(cat /run/docker.pid); tail --pid=$(cat /run/docker.pid) -f",
  ]);
  assert.equal(await before.stop(), 0);
  await host.must(["nft", "delete", "table", "inet", "outcall"]);
  for (const bridge of ["outcall0", "outcall1"]) await host.must(["ip", "link", "del", bridge]);

  const mark = await witness.mark();
  await lab.startDaemon();
  await engine.restart();
  const answered = await rounds();
  for (let polls = 0; await rounds() < answered + 20; polls++) {
    assert.ok(polls < 200, "the sender does not send");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { packets } = await witness.since(mark, { to: "1.1.1.1", from: HOST_ADDRESS });
  assert.deepEqual(packets, []);
});

labTest(
  "a start that fails leaves agents cut off, whatever it fails by (D2)",
  { tools: TOOLS },
  async (t) => {
    await using lab = await Lab.create({ docker: false });
    const { host, witness } = lab;
    // As Docker makes it at a boot, before the daemon has run.
    await host.must(["ip", "link", "add", "outcall0", "type", "bridge"]);
    await host.must(["ip", "address", "add", "10.200.255.1/24", "dev", "outcall0"]);
    await host.must(["ip", "link", "set", "outcall0", "up"]);
    const agent = await lab.agent();
    const ping = ["ping", "-c", "1", "-W", "1", "1.1.1.1"];
    const arrived = async (): Promise<number> => {
      const mark = await witness.mark();
      await agent.run(ping);
      return (await witness.since(mark, { from: AGENT_ADDRESS })).packets.length;
    };
    const failures: readonly (readonly [string, readonly string[]])[] = [
      ["no upstream resolver is known", ["bash", "-c", ": > /etc/resolv.conf; exec outcalld"]],
      ["the state cannot be kept", ["outcalld", "--state-dir", "/dev/null"]],
      ["a rule is wrong", [
        "bash",
        "-c",
        "echo 'rules: 7' > /run/a.yaml; exec outcalld --rules-dir /run",
      ]],
    ];
    for (const [name, argv] of failures) {
      await t.step(name, async () => {
        assert.equal(await arrived(), 1, "positive control: nothing filters yet");
        const started = await host.run(argv);
        assert.equal(started.code, 1, started.stderr);
        assert.equal(await arrived(), 0);
        await host.must(["nft", "flush", "ruleset"]);
        await host.useResolver(UPSTREAM_RESOLVER);
      });
    }
  },
);

labTest("a second daemon touches nothing of the first one's", { tools: TOOLS }, async () => {
  await using lab = await Lab.create({ docker: false });
  await lab.startDaemon({ rules: { "agent.yaml": RULES } });
  const agent = await lab.agent();
  // Without what the kernel adds by itself when it drops an agent's packet: how often it says so.
  const table = async (): Promise<string> =>
    (await lab.host.must(["nft", "-s", "list", "ruleset"]))
      .replaceAll(/^\s*elements = \{[^}]* limit rate [^}]*\}\n/gm, "");
  const before = await table();
  const second = await lab.host.run(["outcalld"]);
  assert.equal(second.code, 1);
  assert.match(second.stderr, /another outcalld has the firewall/);
  assert.equal(await table(), before);
  const dig = await agent.run(["dig", "+short", "+time=2", "api.openai.com"]);
  assert.match(dig.stdout, /^\d+\.\d+\.\d+\.\d+$/m);
});

const PRIVATE_RULES = `
version: "1"
rules:
  - id: allow-private
    action: allow
    condition: network.ip.inCidr("10.0.0.0/8")
    egress: { mode: proxy, allow_private_ips: true }
`;

labTest("no rule lets an agent reach another one through the proxy (T-2)", {
  tools: TOOLS,
}, async () => {
  await using lab = await Lab.create({ docker: false });
  await lab.startDaemon({ rules: { "agent.yaml": PRIVATE_RULES } });
  const neighbour = await lab.agent();
  const agent = await lab.agent({ ...DEFAULT_PLACE, address: "10.200.255.11/24" });
  const heard = neighbour.spawn(["nc", "-lkvn", "-p", "80"]);
  await heard.line("stderr", (line) => line.startsWith("Listening"));
  const curl = ["curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}"];
  const proxied = [...curl, "-x", "http://10.200.255.1:8080", `http://${AGENT_ADDRESS}/`];
  // The rule works: a private address that is no agent's gets past policy, and nobody answers there.
  const control = await agent.run([
    ...[...curl, "-x", "http://10.200.255.1:8080", "http://10.99.0.2/"],
  ]);
  assert.match(control.stdout, /^50[24]$/);
  assert.equal((await agent.run(proxied)).stdout, "403");
  // The witness hears: what the host itself sends is the first that arrives.
  await lab.host.must(["nc", "-z", AGENT_ADDRESS, "80"]);
  const first = await heard.line("stderr", (line) => line.startsWith("Connection received"));
  assert.match(first, /10\.200\.255\.1 /);
  assert.equal(heard.stderr.filter((line) => line.startsWith("Connection received")).length, 1);
});
