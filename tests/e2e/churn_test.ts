/** Agents that come and go leave nothing behind; `deno task bench churn` does it with hundreds. */
import assert from "node:assert/strict";
import { Lab } from "../lab/lab.ts";
import { leftovers, nothingLeft } from "../lab/leftovers.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "setpriv", "setsid", "lsns"];

const AGENTS = 40;
/** As many at once as two processors keep busy. */
const AT_ONCE = 8;

const RUN_ALL = `
seq ${AGENTS} | xargs -P ${AT_ONCE} -I{} outcall run --name agent-{} -- \\
  sh -c 'grep -q eth0 /proc/net/dev && echo ran'`;

labTest(
  "agents without Docker come and go without a trace",
  { tools: TOOLS },
  async () => {
    await using lab = await Lab.create({ docker: false });
    const { host } = lab;
    const daemon = await lab.startDaemon({ rules: {}, logFile: "/run/lab/daemon.log" });
    await host.must(["outcall", "run", "--", "true"]); // what is made once is no leak
    const before = await leftovers(host, daemon);
    const printed = await host.must(["bash", "-c", RUN_ALL], { timeoutMs: 120_000 });
    assert.equal(printed, "ran\n".repeat(AGENTS));
    await nothingLeft(host, daemon, before);
  },
);
