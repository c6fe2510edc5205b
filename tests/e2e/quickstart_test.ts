/**
 * The quickstart, steps 1 to 5, as an operator types it: a host with a real Docker Engine, the
 * daemon in a container, the agent in one started by plain `docker run` (an image made in the lab
 * stands in for python:3.12), and the internet as the witness of every probe.
 *
 * Where curl cannot print what the guide shows, the layer that the line is about is tried on its
 * own: with HTTPS_PROXY set curl leaves resolving to the proxy, so "could not resolve" needs it
 * unset; `-s` hides the message and `%{http_code}` a proxy's answer to CONNECT, so they become `-sS`
 * and `%{http_connect}`.
 */
import assert from "node:assert/strict";
import { QUICKSTART_RULE } from "../demo/attempts.ts";
import { recordedDecisions } from "../lab/decisions.ts";
import { buildDaemonImage } from "../lab/image.ts";
import { EXAMPLE_ADDRESS, UPSTREAM_RESOLVER } from "../lab/internet/world.ts";
import { Lab } from "../lab/lab.ts";
import { positiveControl } from "../lab/probe.ts";
import { labTest } from "../lab/requirements.ts";
import { Terminal, type Typed } from "../lab/terminal.ts";
import { type Arrival, nothing, type Seen } from "../lab/witness.ts";

const TOOLS = [
  ...["nft", "ip", "iptables", "unshare", "nsenter", "script", "dockerd", "docker"],
  ...["curl", "dig", "nc", "ping", "jq", "python3"],
];

const START_DAEMON = `docker run -d --rm \\
  --name outcall-daemon \\
  --network host \\
  --cap-add NET_ADMIN \\
  -v /var/run/docker.sock:/var/run/docker.sock \\
  -v /run/outcall:/run/outcall \\
  -v /etc/outcall:/etc/outcall \\
  outcall-e2e \\
  outcalld --bridge outcall0`;

const WRITE_RULE = `sudo mkdir -p /etc/outcall/rules.d
sudo tee /etc/outcall/rules.d/agent.yaml > /dev/null <<'EOF'
${QUICKSTART_RULE}EOF
`;

const RELOAD = `sudo curl -fsS --unix-socket /run/outcall/host.sock \\
  -X POST http://localhost/api/v1/rules/reload | jq .`;

const RUN_AGENT = `docker run -it --rm \\
  --network outcall-agent-net \\
  --dns 10.200.0.1 \\
  -e HTTP_PROXY=http://10.200.0.1:8080 \\
  -e HTTPS_PROXY=http://10.200.0.1:8080 \\
  -v /run/outcall/agent.sock:/run/outcall/agent.sock \\
  -v /usr/local/bin/outcall-agent:/usr/local/bin/outcall-agent:ro \\
  python:3.12 \\
  bash`;

labTest("the quickstart's five steps do what the guide promises", { tools: TOOLS }, async (t) => {
  await using lab = await Lab.create({ docker: true });
  const { engine, host, witness } = lab;
  assert.ok(engine !== null);
  await engine.importClients("python:3.12", lab.internet.rootPem);
  await buildDaemonImage(engine, "outcall-e2e");
  await host.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n', 0o755); // we are root already
  /** Runs a line of the guide on the host. */
  const shell = (line: string): Promise<string> => host.must(["bash", "-c", line]);

  await t.step("1. the daemon starts in a container", async () => {
    await shell(START_DAEMON);
    const log = host.spawn(["docker", "logs", "--follow", "outcall-daemon"]);
    const ready = "until curl -fs --unix-socket /run/outcall/host.sock http://x/api/v1/ready; do " +
      "docker inspect outcall-daemon || exit; sleep 0.1; done";
    const { code } = await host.run(["bash", "-c", ready]);
    assert.equal(code, 0, `the daemon does not get ready:\n${log.stderr.join("\n")}`);
    assert.match(
      await shell("outcall bridge status"),
      /^Bridge: {4}outcall0\nStatus: {4}up\nIndex: {5}\d+\nnftables: {2}active\n$/,
    );
  });

  await t.step("2. a rule file is loaded by the host API", async () => {
    await shell(WRITE_RULE);
    const reply: Record<string, unknown> = JSON.parse(await shell(RELOAD));
    assert.deepEqual({ ...reply, generation: 0 }, {
      ok: true,
      files_loaded: 1,
      rules_loaded: 1,
      generation: 0,
      warnings: [],
    });
  });

  await t.step("3. the agent network is created", async () => {
    assert.equal(
      await shell("outcall network create --name agent-net"),
      'Network "outcall-agent-net" created (10.200.0.0/24).\n',
    );
  });

  const agent = await Terminal.open(host, RUN_AGENT);
  // Only to wait 3 s and not two minutes for the one attempt that nobody answers.
  await shell(
    "nsenter --target $(docker inspect -f '{{.State.Pid}}' $(docker ps -q --filter ancestor=python:3.12)) " +
      "--net sysctl -qw net.ipv4.tcp_syn_retries=1",
  );

  /** Types a line in the container; returns what it printed and what arrived meanwhile. */
  const probe = async (line: string, arrives: Arrival): Promise<{ typed: Typed; seen: Seen }> => {
    const mark = await witness.mark();
    const typed = await agent.type(line);
    return { typed, seen: await witness.since(mark, arrives) };
  };

  await t.step("4. allowed: the request reaches the API, which wants a key", async () => {
    const { typed, seen } = await probe(
      'curl -s -o /dev/null -w "%{http_code}\\n" https://api.openai.com/v1/models',
      { name: "api.openai.com", port: 443 },
    );
    assert.deepEqual(typed, { code: 0, output: "401" });
    assert.deepEqual(seen.receipts.map(({ kind }) => kind), ["tls", "http"]);
  });

  await t.step("4. blocked at DNS: NXDOMAIN, and no question leaves the host", async () => {
    const arrives = { to: UPSTREAM_RESOLVER, name: "example.com" };
    await positiveControl(lab, ["curl", "-s", "-o", "/dev/null", "https://example.com"], arrives);
    const { typed, seen } = await probe(
      "env -u HTTPS_PROXY " +
        'curl -sS -o /dev/null -w "%{http_code}\\n" https://example.com',
      arrives,
    );
    assert.equal(typed.code, 6);
    assert.match(typed.output, /curl: \(6\) Could not resolve host: example\.com/);
    assert.ok(nothing(seen));
    assert.match((await agent.type("dig example.com")).output, /status: NXDOMAIN/);
  });

  await t.step("4. blocked at L7: the proxy refuses before it opens a tunnel", async () => {
    const arrives = { to: EXAMPLE_ADDRESS };
    const resolve = `--resolve example.com:443:${EXAMPLE_ADDRESS}`;
    await positiveControl(
      lab,
      ["curl", ...resolve.split(" "), "-s", "-o", "/dev/null", "https://example.com"],
      arrives,
    );
    const { typed, seen } = await probe(
      `curl ${resolve} -s -o /dev/null -w "%{http_connect}\\n" https://example.com`,
      arrives,
    );
    assert.deepEqual(typed, { code: 56, output: "403" });
    assert.ok(nothing(seen));
  });

  await t.step("4. blocked at L3/L4: what asks nobody is dropped by the kernel", async () => {
    const arrives = { to: "1.1.1.1" };
    await positiveControl(lab, ["nc", "-zv", "1.1.1.1", "443"], arrives);
    const { typed, seen } = await probe("nc -zv 1.1.1.1 443", arrives);
    assert.deepEqual(typed, {
      code: 1,
      output: "nc: connect to 1.1.1.1 port 443 (tcp) failed: Connection timed out",
    });
    assert.ok(nothing(seen));
  });

  await t.step("5. what happened can be inspected", async () => {
    assert.match(
      await shell("outcall dns cache --entries"),
      /\nHOSTNAME +TYPE +TTL\napi\.openai\.com +A +\d+s\n/,
    );
    const network = await shell("outcall network status --name agent-net");
    assert.match(network, /^Network: +outcall-agent-net\nStatus: +active\n/);
    assert.match(network, /Subnet: +10\.200\.0\.0\/24\nGateway: +10\.200\.0\.1\nContainers: +1\n/);
    assert.match(await shell("outcall bridge status"), /nftables: {2}active/);
    assert.match(await shell("outcall proxy status"), /Requests: +\d+ total \([1-9]\d* blocked\)/);
    const rules = await shell(
      "curl -sS --unix-socket /run/outcall/host.sock http://localhost/api/v1/rules | jq .",
    );
    const reply: { ok: boolean; rules: { id: string }[] } = JSON.parse(rules);
    assert.deepEqual([reply.ok, reply.rules.map(({ id }) => id)], [true, ["allow-openai"]]);
  });

  await t.step("every probe has its decision, made by the layer that saw it first", async () => {
    const decisions = (await recordedDecisions(lab)).map(({ layer, verdict, attempt, rule }) =>
      `${layer} ${verdict} ${attempt.host} ${rule?.id ?? "-"}`
    );
    for (
      const expected of [
        "sni allow api.openai.com allow-openai",
        "dns block example.com -",
        "connect block example.com -",
      ]
    ) assert.ok(decisions.includes(expected), `${expected}\nin\n${decisions.join("\n")}`);
  });

  assert.equal(await agent.close(), 0);
});
