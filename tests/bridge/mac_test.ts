import { equal } from "node:assert/strict";
import { Machine } from "../lab/machine.ts";
import { labTest } from "../lab/requirements.ts";
import { DEFAULT_SEGMENT, RemoteBridges } from "./remote.ts";

labTest("a gateway keeps its MAC whatever ports come and go, and over a repair", {
  tools: ["nft", "ip", "unshare", "nsenter"],
}, async () => {
  await using host = await Machine.start("host");
  const bridges = new RemoteBridges(host);
  await bridges.up();
  await bridges.attach(DEFAULT_SEGMENT);
  const mac = async (): Promise<string | undefined> =>
    /link\/ether (\S+)/.exec(await host.must(["ip", "link", "show", "outcall0"]))?.[1];
  equal(await mac(), "02:4f:0a:c8:ff:01");
  // Lower than any: a bridge without a MAC of its own would take it.
  await host.must([
    "bash",
    "-ec",
    "ip link add low address 00:00:5e:00:00:01 type veth peer name other\n" +
    "ip link set low master outcall0 up",
  ]);
  equal(await mac(), "02:4f:0a:c8:ff:01");
  await host.must(["ip", "link", "del", "low"]);
  equal(await mac(), "02:4f:0a:c8:ff:01");
  await host.must(["ip", "link", "del", "outcall0"]);
  await bridges.repair();
  equal(await mac(), "02:4f:0a:c8:ff:01");
});
