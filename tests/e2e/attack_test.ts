/** Ways around a policy that is wide open but for what it blocks, by packets. */
import assert from "node:assert/strict";
import { DecisionWatch } from "../lab/decisions.ts";
import { EXAMPLE_ADDRESS } from "../lab/internet/world.ts";
import { HOST_ADDRESS, Lab } from "../lab/lab.ts";
import { expectBlocked } from "../lab/probe.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl", "nc"];

const AGENT_ADDRESS = "10.200.255.10";

const RULES = `
version: "1"
rules:
  - id: block-address
    action: block
    priority: 10
    condition: network.ip == "${EXAMPLE_ADDRESS}" || http.host == "${EXAMPLE_ADDRESS}"
  - id: allow-rest
    action: allow
    condition: "true"
`;

labTest("what a rule blocks is blocked in every spelling", { tools: TOOLS }, async (t) => {
  await using lab = await Lab.create({ docker: false });
  await lab.startDaemon({ rules: { "agent.yaml": RULES } });
  const agent = await lab.agent();
  /** What the agent's curl to `url` by the proxy is answered, and the record; nothing may arrive. */
  const refused = async (url: string): Promise<readonly string[]> => {
    const watch = await DecisionWatch.start(lab);
    const curl = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"];
    const { client } = await expectBlocked(lab, {
      client: agent,
      argv: [...curl, "-x", "http://10.200.255.1:8080", url],
      control: [...curl, `http://${EXAMPLE_ADDRESS}/`],
      arrives: { to: EXAMPLE_ADDRESS, from: HOST_ADDRESS },
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
    await t.step(`http://${host}/`, async () => {
      assert.deepEqual(await refused(`http://${host}/`), ["403", "block http rule block-address"]);
    });
  }
});
