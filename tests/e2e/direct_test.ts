/** `egress.mode: direct_ip` by packets: the real daemon, the internet as the witness. */
import assert from "node:assert/strict";
import { z } from "zod";
import { recordedDecisions } from "../lab/decisions.ts";
import { EXAMPLE_ADDRESS } from "../lab/internet/world.ts";
import { DEFAULT_PLACE } from "../lab/agent.ts";
import { HOST_ADDRESS, Lab } from "../lab/lab.ts";
import type { Machine } from "../lab/machine.ts";
import { attempt, expectBlocked } from "../lab/probe.ts";
import { labTest } from "../lab/requirements.ts";
import { nothing } from "../lab/witness.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl", "nc", "dig", "python3"];

const RULES = `version: "1"
rules:
  - id: db
    condition: 'network.hostname == "example.com" && network.port == 5432'
    action: allow
    egress: { mode: direct_ip, tls: any }
  - id: time
    condition: |
      network.hostname == "example.com" && network.protocol == "udp" && network.port == 123
    action: allow
    egress: { mode: direct_ip }
  - id: web
    condition: 'http.host == "example.org"'
    action: allow
    egress: { mode: direct_ip }
  - id: inside
    condition: 'http.host.under("attacker.net")'
    action: allow
    egress: { mode: direct_ip }
tests:
  - { direct: "example.com:5432", expect: allow, rule: db }
  - { direct: "example.com:123/udp", expect: allow, rule: time }
  - { direct: "example.com:123", expect: block }
  - { direct: "example.com:443", expect: block }
  - { direct: example.org, expect: allow, rule: web }
  - { direct: "example.org:443/udp", expect: block }
  - { direct: api.openai.com, expect: block }
  - { url: https://example.org/, expect: allow, rule: web }
`;

/** Without the first rule. */
const FEWER_RULES = RULES.replace(/ {2}- id: db[^]*?(?= {2}- id: time)/, "")
  .replace(/.*example\.com:5432.*\n/, "");

/** Sends a line every 50 ms and prints each that comes back. */
const TALK = `
import socket, sys, time
conn = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
while True:
    conn.sendall(b"line\\n")
    print(conn.recv(100).decode().strip(), flush=True)
    time.sleep(0.05)
`;

const activeGrants = z.object({
  rules: z.array(z.object({
    destination: z.string(),
    port: z.number(),
    protocol: z.string(),
    expires_in_secs: z.number(),
    source: z.enum(["operator", "dns"]),
    hosts: z.array(z.string()),
  })),
});

const NO_PROXY = ["curl", "-sS", "--noproxy", "*", "-m", "5", "-o", "/dev/null"];

labTest("D12: what a direct_ip rule allows is open from the answer on, for one agent", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  const daemon = await lab.startDaemon({ rules: { "direct.yaml": RULES } });
  const agent = await lab.agent();
  const other = await lab.agent({ ...DEFAULT_PLACE, address: "10.200.255.11/24" });
  const tcp = (port: number, client: Machine = agent) => ({
    client,
    argv: ["nc", "-z", "-w", "1", EXAMPLE_ADDRESS, `${port}`],
    arrives: { to: EXAMPLE_ADDRESS, protocol: "tcp", port },
  } as const);
  const dig = async (name: string, ...options: readonly string[]): Promise<string[]> =>
    (await agent.must(["dig", "+tries=1", ...options, "+noall", "+answer", name])).trim()
      .split("\n").filter((line) => line !== "");

  await t.step("before the question nothing arrives", async () => {
    await expectBlocked(lab, tcp(5432));
  });
  await t.step("ADV-NET: a forged answer, or knowing the address, opens nothing", async () => {
    await expectBlocked(lab, {
      client: agent,
      argv: ["dig", "@1.1.1.1", "+tries=1", "+time=1", "example.com"],
      arrives: { to: "1.1.1.1", protocol: "udp", port: 53 },
    });
    await expectBlocked(lab, tcp(5432));
  });
  await t.step(
    "when the answer is there, the connection stands, from the host's address",
    async () => {
      const [answer = ""] = await dig("example.com");
      assert.match(answer, /^example\.com\.\s+\d+\s+IN\s+A\s+93\.184\.216\.34$/);
      const { client, seen } = await attempt(lab, tcp(5432));
      assert.equal(client.code, 0);
      assert.deepEqual([...new Set(seen.packets.map(({ from }) => from))], [HOST_ADDRESS]);
      const { body } = await lab.api("GET", "/api/v1/rules/active");
      const { rules } = activeGrants.parse(body);
      assert.deepEqual(
        rules.map((
          { destination, port, protocol, source, hosts },
        ) => [destination, port, protocol, source, ...hosts]),
        [
          [EXAMPLE_ADDRESS, 5432, "tcp", "dns", "example.com"],
          [EXAMPLE_ADDRESS, 123, "udp", "dns", "example.com"],
        ],
      );
      const ttl = Number(/\s(\d+)\s/.exec(answer)?.[1]);
      assert.ok(rules.every(({ expires_in_secs }) => expires_in_secs <= 60 && ttl <= 60));
    },
  );
  await t.step("each of them is a decision with its rule", async () => {
    const decided = (await recordedDecisions(lab)).filter(({ layer }) => layer === "grant");
    assert.deepEqual(
      decided.map((
        { verdict, rule, attempt: { host, address, port } },
      ) => [verdict, rule?.id, host, address, port]),
      [
        ["allow", "db", "example.com", EXAMPLE_ADDRESS, 5432],
        ["allow", "time", "example.com", EXAMPLE_ADDRESS, 123],
      ],
    );
  });
  await t.step("UDP passes on the port that a rule names, and on no other", async () => {
    const send = (port: number) => ({
      client: agent,
      argv: ["bash", "-c", `echo x | nc -u -w 1 ${EXAMPLE_ADDRESS} ${port}`],
      arrives: { to: EXAMPLE_ADDRESS, protocol: "udp", port },
    } as const);
    assert.equal((await attempt(lab, send(123))).client.stdout, "x\n");
    await expectBlocked(lab, send(7));
  });
  await t.step("another port, and another agent: nothing arrives", async () => {
    await expectBlocked(lab, tcp(22));
    await expectBlocked(lab, tcp(123));
    await expectBlocked(lab, tcp(5432, other));
    assert.equal((await lab.api("GET", "/api/v1/ready")).status, 200);
  });
  await t.step("HTTPS past the proxy and through it, by TCP's answer, too", async () => {
    const blocked = await agent.run([
      ...NO_PROXY,
      "--resolve",
      "example.org:443:93.184.215.14",
      "https://example.org/",
    ]);
    assert.notEqual(blocked.code, 0);
    assert.equal((await dig("example.org", "+tcp")).length, 1);
    assert.equal((await agent.run([...NO_PROXY, "https://example.org/"])).code, 0);
    const proxied = [...NO_PROXY.filter((word) => word !== "--noproxy" && word !== "*")];
    const proxy = ["-x", `http://${DEFAULT_PLACE.gateway}:8080`];
    assert.equal((await other.run([...proxied, ...proxy, "https://example.org/"])).code, 0);
  });
  await t.step("D23: a name that points inside opens nothing", async () => {
    for (const name of ["metadata", "inside", "loopback"]) {
      assert.deepEqual(await dig(`${name}.attacker.net`), []);
    }
    const { body } = await lab.api("GET", "/api/v1/rules/active");
    assert.equal(activeGrants.parse(body).rules.length, 3);
  });
  await t.step("explained and listed for the operator", async () => {
    const explained = await lab.cli("rules", "explain", "--direct", "example.com:5432");
    assert.match(
      explained.stdout,
      /^ALLOW {2}direct example\.com:5432\n[^]*grant +ALLOW {2}rule db/,
    );
    const listed = (await lab.cli("grants", "list")).stdout;
    assert.match(listed, /93\.184\.216\.34 port 5432\/tcp +\d+ s +look-up of example\.com/);
  });
  await t.step("a cached answer renews, and is never longer than the grant", async () => {
    assert.equal((await lab.cli("grants", "flush")).code, 0);
    await expectBlocked(lab, tcp(5432));
    await dig("example.com");
    assert.equal((await attempt(lab, tcp(5432))).client.code, 0);
  });
  await t.step(
    "a reload without the rule stops a live connection, and keeps the others",
    async () => {
      const talk = agent.spawn(["python3", "-u", "-c", TALK, EXAMPLE_ADDRESS, "5432"]);
      await talk.line("stdout", () => true);
      await lab.writeRules({ "direct.yaml": FEWER_RULES });
      assert.equal((await lab.cli("rules", "reload")).code, 0);
      const heard = talk.stdout.length;
      await new Promise((resolve) => setTimeout(resolve, 1000));
      assert.ok(talk.stdout.length <= heard + 1, "nothing comes back any more");
      await expectBlocked(lab, tcp(5432));
      const { body } = await lab.api("GET", "/api/v1/rules/active");
      assert.deepEqual(activeGrants.parse(body).rules.map(({ port }) => port), [123]);
      await dig("example.com");
      await expectBlocked(lab, tcp(5432));
      talk.kill("SIGKILL");
    },
  );
  await t.step("all of it ends with the daemon", async () => {
    await dig("example.org");
    const https = {
      client: agent,
      argv: ["nc", "-z", "-w", "1", "93.184.215.14", "443"],
      arrives: { to: "93.184.215.14", protocol: "tcp", port: 443 },
    } as const;
    assert.equal((await attempt(lab, https)).client.code, 0, "positive control");
    assert.equal(await daemon.stop(), 0);
    assert.ok(nothing((await attempt(lab, https)).seen));
  });
});
