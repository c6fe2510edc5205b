import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { OutcallError } from "../../lib/errors.ts";
import { RouteNetlink } from "../../lib/linux/rtnetlink.ts";
import { connect, Machine } from "../lab/machine.ts";
import { denoCommand } from "../lab/product.ts";
import { labTest } from "../lab/requirements.ts";

const NEEDS = { tools: ["ip", "unshare", "nsenter", "setpriv"] };

/** Runs `body` of this file inside `machine`, where it may change everything. */
async function inside(machine: Machine, body: string, prefix: string[] = []): Promise<void> {
  const finished = await machine.run([...prefix, ...denoCommand(new URL(import.meta.url)), body]);
  equal(finished.code, 0, finished.stderr);
}

const BODIES: Readonly<Record<string, (netlink: RouteNetlink) => void>> = {
  "a bridge's life": (netlink) => {
    netlink.createBridge("outcall0");
    const made = netlink.link("outcall0");
    ok(made !== null);
    match(made.mac ?? "", /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/);
    deepEqual({ ...made, index: 0, mtu: 0, mac: null }, {
      index: 0,
      name: "outcall0",
      kind: "bridge",
      up: false,
      mtu: 0,
      master: null,
      alias: "",
      mac: null,
      peer: null,
      isolated: false,
    });
    netlink.setUp(made);
    equal(netlink.link("outcall0")?.up, true);
    netlink.addAddress(made, "10.200.255.1", 24);
    deepEqual(netlink.addresses().filter((address) => address.linkIndex === made.index), [
      { linkIndex: made.index, address: "10.200.255.1", prefixLength: 24 },
    ]);
    ok(netlink.routes().some((r) => r.destination === "10.200.255.0/24" && r.link === "outcall0"));
    netlink.setDown(made);
    equal(netlink.link("outcall0")?.up, false);
    netlink.deleteLink(made);
    equal(netlink.link("outcall0"), null);
    throws(() => netlink.setUp(made), /bridge operation failed: set outcall0 up: No such device/);
  },
  "refusals": (netlink) => {
    netlink.createBridge("outcall0");
    throws(
      () => netlink.createBridge("outcall0"),
      (error: unknown) =>
        error instanceof OutcallError && error.code === "bridge.operation" &&
        error.message === "bridge operation failed: create bridge outcall0: File exists",
    );
  },
  "no rights": (netlink) => {
    throws(
      () => netlink.createBridge("outcall0"),
      (error: unknown) => {
        ok(error instanceof OutcallError);
        equal(error.code, "bridge.permission");
        equal(
          error.message,
          "bridge operation failed: create bridge outcall0: Operation not permitted",
        );
        match(error.hint ?? "", /NET_ADMIN.*--cap-add NET_ADMIN.*AmbientCapabilities/);
        return true;
      },
    );
  },
  "another namespace": (netlink) => {
    const port = netlink.link("v2");
    const bridge = netlink.link("br9");
    ok(port !== null && port.peer !== null && bridge !== null);
    const agent = netlink.peer(port.peer);
    equal(agent?.link.name, "eth0");
    equal(agent?.link.mac, "02:00:00:00:00:07");
    deepEqual(agent?.addresses, ["10.7.0.2", "10.7.0.3"]);
    equal(netlink.peer({ ...port.peer, index: 4_000_000 }), null, "no such link");
    equal(netlink.peer({ ...port.peer, namespaceId: 4_000_000 }), null, "no such namespace");
    netlink.setMaster(port, bridge);
    netlink.isolate(port);
    deepEqual([netlink.link("v2")?.master, netlink.link("v2")?.isolated], [bridge.index, true]);
  },
  "what ip made": (netlink) => {
    const bridge = netlink.link("br9");
    deepEqual(netlink.link("v0")?.master, bridge?.index);
    deepEqual([netlink.link("v0")?.kind, netlink.link("v0")?.mtu], ["veth", 1400]);
    equal(netlink.link("lo")?.kind, null);
    equal(netlink.link("v0")?.peer, null, "its other end is in this namespace");
    const routes = netlink.routes();
    ok(routes.some((r) => r.destination === "0.0.0.0/0" && r.link === "br9"));
    ok(routes.some((r) => r.destination === "10.9.0.0/16" && r.link === null), "blackhole");
    ok(routes.some((r) => r.destination === "10.8.0.0/16" && r.link === "br9"), "table 77");
    ok(!routes.some((r) => r.destination.startsWith("127.")), "no local routes");
    equal(netlink.links().filter((link) => /^many\d+$/.test(link.name)).length, 300);
  },
};

if (import.meta.main) {
  using netlink = new RouteNetlink();
  BODIES[Deno.args[0] ?? ""]?.(netlink);
} else {
  labTest("RouteNetlink makes, changes and deletes a bridge (S001-FR-001)", NEEDS, async () => {
    await using machine = await Machine.start("host");
    await inside(machine, "a bridge's life");
  });

  labTest("RouteNetlink passes the kernel's refusal on", NEEDS, async () => {
    await using machine = await Machine.start("host");
    await inside(machine, "refusals");
  });

  labTest("S001-EC-003: without CAP_NET_ADMIN the remedy is named", NEEDS, async () => {
    await using machine = await Machine.start("host");
    await inside(machine, "no rights", ["setpriv", "--bounding-set=-net_admin"]);
  });

  labTest("RouteNetlink reads what other programs made, hundreds of links too", NEEDS, async () => {
    await using machine = await Machine.start("host");
    await machine.must([
      "bash",
      "-c",
      `set -e
      ip link add br9 type bridge; ip link set br9 up; ip address add 172.19.0.1/24 dev br9
      ip link add v0 mtu 1400 type veth peer name v1; ip link set v0 master br9
      ip route add default via 172.19.0.2 dev br9
      ip route add blackhole 10.9.0.0/16
      ip route add 10.8.0.0/16 dev br9 table 77
      for i in $(seq 300); do echo "link add many$i type bridge"; done | ip -batch -
    `,
    ]);
    await inside(machine, "what ip made");
  });

  labTest(
    "RouteNetlink looks at the other end of a port and isolates it (D13)",
    NEEDS,
    async () => {
      await using machine = await Machine.start("host");
      await using agent = await Machine.start("agent");
      await machine.must(["ip", "link", "add", "br9", "type", "bridge"]);
      await connect({ machine, interface: "v2" }, {
        machine: agent,
        interface: "eth0",
        address: "10.7.0.2/24",
      });
      await agent.must(["ip", "link", "set", "eth0", "address", "02:00:00:00:00:07"]);
      await agent.must(["ip", "address", "add", "10.7.0.3/24", "dev", "eth0"]);
      await inside(machine, "another namespace");
    },
  );
}
