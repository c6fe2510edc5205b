/** Agents that come and go: two hundred of them leave nothing behind in the kernel. */
import assert from "node:assert/strict";
import { Lab } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "setpriv", "setsid", "lsns"];

const AGENTS = 200;
/** As many at once as two processors keep busy. */
const AT_ONCE = 8;

const RUN_ALL = `
seq ${AGENTS} | xargs -P ${AT_ONCE} -I{} outcall run --name agent-{} -- \\
  sh -c 'grep -q eth0 /proc/net/dev && echo ran'`;

labTest(
  "two hundred agents without Docker come and go without a trace",
  { tools: TOOLS },
  async () => {
    await using lab = await Lab.create({ docker: false });
    const { host } = lab;
    await lab.startDaemon({ rules: {}, logFile: "/run/lab/daemon.log" });
    const kernel = async (): Promise<string> => {
      const links = await host.must(["bash", "-c", "ip -o link | wc -l"]);
      const namespaces = await host.must(["bash", "-c", "lsns -n -t net | wc -l"]);
      const tables = await host.must(["nft", "-s", "list", "ruleset"]);
      return [links, namespaces, tables].join("\n");
    };
    await host.must(["outcall", "run", "--", "true"]); // what is made once is no leak
    const before = await kernel();
    const printed = await host.must(["bash", "-c", RUN_ALL], { timeoutMs: 120_000 });
    assert.equal(printed, "ran\n".repeat(AGENTS));
    let after = await kernel();
    for (let polls = 0; after !== before && polls < 100; polls++) {
      await new Promise((resolve) => setTimeout(resolve, 50)); // the kernel takes links back in its own time
      after = await kernel();
    }
    assert.equal(after, before);
  },
);
