/** Metrics of the real daemon, as a scraper reads them. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { eventually } from "../eventually.ts";
import { EXAMPLE_ADDRESS } from "../lab/internet/world.ts";
import { Lab } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";
import { type Exposition, readExposition, valueOf } from "../metrics/exposition.ts";
import { ALLOW_EXAMPLE } from "./rules.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl", "dig", "nc", "ping"];
const PORT = "9464";

labTest("a scraper reads what agents did, on the operator socket and on loopback", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: false });
  await lab.startDaemon({
    rules: { "a.yaml": ALLOW_EXAMPLE },
    flags: ["--metrics-listen", `127.0.0.1:${PORT}`],
  });
  const agent = await lab.agent();
  const url = `http://127.0.0.1:${PORT}/metrics`;
  const curl = ["curl", "-fsS", "-m", "3"];
  const scrape = async (): Promise<Exposition> =>
    readExposition(await lab.host.must([...curl, url]));

  await t.step("decisions, drops and dials are counted", async () => {
    for (const name of ["blocked.example", "example.com"]) {
      await agent.run(["dig", "+short", "+time=2", "+tries=1", name]);
    }
    const get = [...curl, "-x", "http://10.200.255.1:8080", "http://example.com/"];
    assert.equal((await agent.run(get)).code, 0);
    await agent.run(["ping", "-c1", "-W1", EXAMPLE_ADDRESS]);
    const dns = { layer: "dns", verdict: "block", reason: "default" };
    const resolved = { layer: "dns", verdict: "allow", reason: "rule" };
    const http = { layer: "http", verdict: "allow", reason: "rule" };
    const kernel = { layer: "kernel", verdict: "block", reason: "forward_denied" };
    await eventually(async () => {
      const metrics = await scrape();
      return [dns, resolved, http, kernel].every((labels) =>
        (valueOf(metrics, "outcall_decisions_total", labels) ?? 0) >= 1
      );
    });
    const metrics = await scrape();
    const rule = { rule: "allow-example", action: "allow" };
    assert.ok((valueOf(metrics, "outcall_rule_decisions_total", rule) ?? 0) >= 1);
    const drops = { table: "inet", rule: "agent to outside" };
    assert.equal(valueOf(metrics, "outcall_kernel_drops_total", drops), 1);
    const dials = { result: "connected" };
    assert.equal(valueOf(metrics, "outcall_proxy_dial_seconds_count", dials), 1);
    assert.ok((valueOf(metrics, "outcall_dns_upstream_seconds_count") ?? 0) >= 1);
    assert.equal(valueOf(metrics, "outcall_agents"), 1);
    const dead = metrics.get("outcall_part_state")
      ?.filter(({ labels, value }) => labels["state"] === "failed" && value === 1);
    assert.deepEqual(dead, []);
  });

  await t.step("loads are counted by whether they were refused", async () => {
    await lab.writeRules({ "a.yaml": "rules: 7" });
    assert.equal((await lab.cli("rules", "reload")).code, 1);
    const metrics = await scrape();
    const reloads = (result: string): number | undefined =>
      valueOf(metrics, "outcall_policy_reloads_total", { result });
    assert.deepEqual([reloads("ok"), reloads("refused")], [1, 1]);
    assert.equal(valueOf(metrics, "outcall_policy_rules"), 1);
  });

  await t.step("the page's own command reads them from the operator socket", async () => {
    const page = await Deno.readTextFile(
      fileURLToPath(new URL("../../docs/metrics.md", import.meta.url)),
    );
    const [, command = "", printed = ""] = /^\$ (curl .*)\n(.*)$/m.exec(page) ?? [];
    assert.equal((await lab.host.must(["bash", "-c", command])).trim(), printed);
  });

  await t.step("agents reach them by no way (D14)", async () => {
    const direct = ["127.0.0.1", "10.200.255.1", "81.2.69.1"]
      .map((address) => ["curl", "-sS", "-m", "1", `http://${address}:${PORT}/metrics`]);
    const proxied = [...curl, "-x", "http://10.200.255.1:8080", url];
    for (const argv of [...direct, proxied]) {
      const { code, stdout } = await agent.run(argv);
      assert.notEqual(code, 0);
      assert.equal(stdout.includes("outcall_"), false);
    }
    assert.equal((await lab.control([...curl, `http://81.2.69.1:${PORT}/metrics`])).code, 7);
  });

  await t.step("nothing but /metrics is there, and not under another name", async () => {
    const status = async (...args: readonly string[]): Promise<string> =>
      (await lab.host.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", ...args])).stdout;
    assert.equal(await status(`http://localhost:${PORT}/metrics`), "200");
    assert.equal(await status(`http://127.0.0.1:${PORT}/api/v1/rules`), "404");
    assert.equal(await status("-X", "POST", url), "405");
    assert.equal(await status("-H", "Host: evil.example", url), "403");
  });
});

labTest("a metrics port that is taken ends start-up, with the owner and the remedy", {
  tools: TOOLS,
}, async () => {
  await using lab = await Lab.create({ docker: false });
  const rival = lab.host.spawn(["nc", "-lkv", "127.0.0.1", PORT]);
  await rival.line("stderr", (line) => line.startsWith("Listening"));
  const failed = await lab.host.run(["outcalld", "--metrics-listen", `127.0.0.1:${PORT}`]);
  assert.equal(failed.code, 1);
  assert.match(
    failed.stderr,
    /metrics cannot be served on 127\.0\.0\.1:9464: address already in use by nc \(pid \d+\)/,
  );
  assert.match(failed.stderr, /hint: choose another port with --metrics-listen/);
});
