/** What the kernel enforces on its own, seen from a daemon that fails, and by packets. */
import assert from "node:assert/strict";
import { Lab, UNFILTERED_GATEWAY } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";

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
