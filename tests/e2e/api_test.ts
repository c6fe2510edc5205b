/** The host API of a running daemon, asked as the guides ask it: replies as decision D1 fixes them. */
import assert from "node:assert/strict";
import { QUICKSTART_RULE } from "../demo/attempts.ts";
import { Lab } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl"];
const RULE_PATH = "/etc/outcall/rules.d/agent.yaml";

labTest("the host API's replies are the envelopes of D1", { tools: TOOLS }, async (t) => {
  await using lab = await Lab.create({ docker: false });
  await lab.startDaemon({ rules: { "agent.yaml": QUICKSTART_RULE } });

  await t.step("the bridge is told as the kernel has it", async () => {
    const { status, body } = await lab.api("GET", "/api/v1/bridge");
    const link = await lab.host.must(["ip", "-o", "link", "show", "outcall0"]);
    assert.deepEqual({ status, body }, {
      status: 200,
      body: {
        ok: true,
        name: "outcall0",
        up: true,
        index: Number(link.split(":")[0]),
        nftables: "active",
      },
    });
  });

  await t.step("rules are listed with file and line", async () => {
    const { status, body } = await lab.api("GET", "/api/v1/rules");
    assert.deepEqual({ status, body }, {
      status: 200,
      body: {
        ok: true,
        rules: [{
          id: "allow-openai",
          file: RULE_PATH,
          line: 3,
          action: "allow",
          priority: 100,
          condition: 'http.host == "api.openai.com"',
          description: "agent may call the OpenAI API",
        }],
      },
    });
  });

  await t.step("a reload that succeeds", async () => {
    const { status, body } = await lab.api("POST", "/api/v1/rules/reload");
    assert.deepEqual({ status, body }, {
      status: 200,
      body: { ok: true, files_loaded: 1, rules_loaded: 1, generation: 2, warnings: [] },
    });
  });

  await t.step("a reload that fails names file and line and keeps the old rules (D8)", async () => {
    await lab.writeRules({ "agent.yaml": QUICKSTART_RULE.replace("http.host", "http_host") });
    const { status, body } = await lab.api("POST", "/api/v1/rules/reload");
    const error = `${RULE_PATH}:5: CEL parse error: undefined identifier 'http_host'`;
    assert.equal(status, 422);
    assert.ok(typeof body === "object" && body !== null && "details" in body);
    const { details, ...rest } = body;
    assert.deepEqual({ ...rest, hint: "" }, {
      ok: false,
      error,
      code: "rules.invalid",
      hint: "",
      report: `${RULE_PATH}:5:17: CEL parse error: undefined identifier 'http_host'
        condition: 'http_host == "api.openai.com"'
                    ^^^^^^^^^
    hint: Fields are written with a dot. Did you mean http.host?`,
    });
    assert.deepEqual(details, [{
      file: RULE_PATH,
      line: 5,
      column: 17,
      message: "CEL parse error: undefined identifier 'http_host'",
    }]);
    const { body: rules } = await lab.api("GET", "/api/v1/rules");
    assert.match(JSON.stringify(rules), /"id":"allow-openai".*http\.host/);
  });

  await t.step("unknown paths, wrong methods and broken bodies are refused as JSON", async () => {
    for (
      const [method, path, expected] of [
        ["GET", "/api/v1/nothing", 404],
        ["DELETE", "/api/v1/bridge", 405],
        ["POST", "/api/v1/network/create", 422],
      ] as const
    ) {
      const { status, body } = await lab.api(method, path, method === "POST" ? "text" : undefined);
      assert.equal(status, expected, path);
      assert.ok(typeof body === "object" && body !== null && "ok" in body && "code" in body);
      assert.equal(body.ok, false);
    }
  });
});
