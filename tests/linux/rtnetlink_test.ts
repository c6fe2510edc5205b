import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { OutcallError } from "../../lib/errors.ts";
import { RouteNetlink } from "../../lib/linux/rtnetlink.ts";
import { Machine } from "../lab/machine.ts";
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
    deepEqual({ ...made, index: 0, mtu: 0 }, {
      index: 0,
      name: "outcall0",
      kind: "bridge",
      up: false,
      mtu: 0,
      master: null,
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
        match(error.hint ?? "", /NET_ADMIN.*--cap-add NET_ADMIN.*setcap/);
        return true;
      },
    );
  },
  "what ip made": (netlink) => {
    const bridge = netlink.link("br9");
    deepEqual(netlink.link("v0")?.master, bridge?.index);
    deepEqual([netlink.link("v0")?.kind, netlink.link("v0")?.mtu], ["veth", 1400]);
    equal(netlink.link("lo")?.kind, null);
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
}
