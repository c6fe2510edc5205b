/**
 * The policy tools against a running daemon: what they say is what the traffic then meets, and what
 * they count is what it did.
 */
import assert from "node:assert/strict";
import { proxyVariables } from "../lab/agent.ts";
import { Lab } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";
import type { Finished } from "../lab/process.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl", "dig"];

const RULES = `version: "1"
rules:
  - id: openai
    condition: 'http.host == "api.openai.com"'
    action: allow
    log: true
  - id: github-read
    condition: 'http.host == "github.com" && http.method == "GET"'
    action: allow
  - id: no-example
    condition: 'http.host == "example.com"'
    action: block
tests:
  - { url: https://api.openai.com/v1/models, expect: allow, rule: openai }
  - { url: https://github.com/, expect: block }
`;

const CURL = ["curl", "-sS", "-o", "/dev/null", "-m", "5", "-w", "%{http_code} %{http_connect}"];

function fields(finished: Finished): Record<string, unknown> {
  return { ...JSON.parse(finished.stdout) };
}

labTest(
  "the policy tools tell what traffic meets, and what it did",
  { tools: TOOLS },
  async (t) => {
    await using lab = await Lab.create({ docker: false });
    const daemon = await lab.startDaemon({ rules: { "agent.yaml": RULES } });
    const agent = await lab.agent();
    const ask = (url: string): Promise<Finished> =>
      agent.run([...CURL, url], { env: proxyVariables("10.200.255.1") });

    for (
      const [url, expected] of [
        ["https://api.openai.com/v1/models", true],
        ["https://github.com/", false],
        ["http://github.com/", true],
        ["https://example.com/", false],
        ["http://example.org/", false],
      ] as const
    ) {
      await t.step(`explain and the proxy agree on ${url} (D31)`, async () => {
        const { decision } = fields(await lab.cli("rules", "explain", "--url", url, "--json"));
        assert.equal(decision, expected ? "allow" : "block");
        const { stdout } = await ask(url);
        assert.equal(/\b403\b/.test(stdout), !expected, stdout);
      });
    }

    await t.step("the counters are of the decisions that were made", async () => {
      await agent.run(["dig", "+time=1", "+tries=1", "api.openai.com"]);
      const counted = fields(await lab.cli("rules", "counters", "--json"))["rules"];
      const { body } = await lab.api("GET", "/api/v1/decisions?limit=10000");
      const { decisions } = Object(body);
      assert.ok(Array.isArray(counted) && Array.isArray(decisions));
      const recorded = (id: string): number =>
        decisions.filter(({ rule, reason }) => rule?.id === id && reason !== "port").length;
      for (const { id, matches, blocks, last_matched } of counted) {
        assert.ok(matches > 0, id);
        assert.equal(matches, recorded(id), id);
        assert.equal(blocks, id === "no-example" ? matches : 0, id);
        assert.ok(last_matched !== null, id);
      }
    });

    await t.step(
      "a match of a rule with log: true is one line that names rule, file and decision",
      async () => {
        const { body } = await lab.api("GET", "/api/v1/decisions?limit=10000");
        const decided = Object(body).decisions.filter(
          ({ rule }: { rule: { id: string } | null }) => rule?.id === "openai",
        ).map(({ id }: { id: string }) => id);
        const lines = daemon.log.map((line) => JSON.parse(line))
          .filter(({ message }) => String(message).startsWith("rule openai ("));
        assert.deepEqual(lines.map(({ message }) => message.split("id=")[1]), decided);
        assert.match(
          lines[0].message,
          /^rule openai \(\/etc\/outcall\/rules\.d\/agent\.yaml\) matched: allow /,
        );
        assert.ok(lines.every(({ level }) => level === "info"));
        assert.ok(!daemon.log.some((line) => line.includes("rule github-read (")));
      },
    );

    await t.step("diff names what would flip, and changes nothing", async () => {
      await lab.host.must(["mkdir", "/etc/outcall/candidate"]);
      await lab.host.write(
        "/etc/outcall/candidate/agent.yaml",
        RULES.replace('"api.openai.com"', '"x.org"').split("tests:")[0] ?? "",
      );
      const { code, stdout, stderr } = await lab.cli("rules", "diff", "/etc/outcall/candidate");
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^Rules changed: openai$/m);
      assert.match(
        stdout,
        /^allow -> block +\d+ +dns +api\.openai\.com A +openai +\(default policy\)$/m,
      );
      assert.match(
        stdout,
        /^allow -> block +test +dns +GET https:\/\/api\.openai\.com\/v1\/models /m,
      );
      assert.match((await ask("https://api.openai.com/v1/models")).stdout, /^401/);
    });

    await t.step(
      "a set whose own tests fail is refused, each failure named; the old one stays",
      async () => {
        const before = fields(await lab.cli("rules", "list", "--json"));
        await lab.writeRules({
          "agent.yaml": RULES.replace(' && http.method == "GET"', "").replace(
            "models, expect: allow",
            "models, expect: block",
          ),
        });
        const { code, stderr } = await lab.cli("rules", "reload");
        assert.equal(code, 1);
        assert.match(stderr, /^error: the rules are refused: 2 mistakes$/m);
        assert.match(
          stderr,
          /agent\.yaml:14:7: test 'GET .*models' expects block, and the answer is allow/,
        );
        assert.match(
          stderr,
          /agent\.yaml:15:7: test 'GET https:\/\/github\.com\/' expects block, and/,
        );
        assert.deepEqual(fields(await lab.cli("rules", "list", "--json")), before);
        const check = await lab.cli("rules", "check");
        assert.equal(check.code, 2);
        assert.match(check.stdout, /1 file: 2 errors, 0 warnings\n$/);
      },
    );
  },
);
