import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import fc from "fast-check";
import { portTable } from "../../lib/bridge/port_table.ts";
import { type Pin, pinPorts, type PortView } from "../../lib/bridge/ports.ts";
import { renderUpdate } from "../../lib/bridge/table.ts";
import { DEFAULT_SEGMENT } from "./remote.ts";

const BRIDGE_MAC = "02:00:00:00:00:01";

function view(index: number, mac: string | null, ...addresses: readonly string[]): PortView {
  return {
    port: `veth${index}`,
    index,
    segment: DEFAULT_SEGMENT,
    bridgeMac: BRIDGE_MAC,
    agent: { mac, addresses },
  };
}

const pin = (index: number, mac: string, address: string): Pin => ({
  port: `veth${index}`,
  index,
  bridge: "outcall0",
  mac,
  address,
});

Deno.test("D13: a new port is pinned to the MAC and address of its other end", () => {
  const seen = view(3, "02:42:0a:c8:ff:02", "127.0.0.1", "10.200.255.2");
  deepEqual(pinPorts([], [seen]), {
    pins: [pin(3, "02:42:0a:c8:ff:02", "10.200.255.2")],
    refused: [],
  });
});

Deno.test("D13: a pin holds whatever the agent does to its interface", () => {
  const pins = [pin(3, "02:42:0a:c8:ff:02", "10.200.255.2")];
  const changed = view(3, "02:42:0a:c8:ff:09", "10.200.255.9");
  deepEqual(pinPorts(pins, [changed]), { pins, refused: [] });
});

Deno.test("a port of which nothing is known stays without a pin", () => {
  const { segment: _, ...rest } = view(3, "02:42:0a:c8:ff:02", "10.200.255.2");
  const views: readonly PortView[] = [
    view(1, null, "10.200.255.2"),
    view(2, "02:42:0a:c8:ff:02"),
    view(4, "02:42:0a:c8:ff:02", "10.200.0.2"),
    view(5, "02:42:0a:c8:ff:02", DEFAULT_SEGMENT.gateway),
    { ...rest, segment: null },
    { ...rest, segment: DEFAULT_SEGMENT, agent: null },
  ];
  for (const one of views) deepEqual(pinPorts([], [one]), { pins: [], refused: [] });
});

Deno.test("a port that claims what is not its own is refused, with the reason", () => {
  const rows: readonly [PortView, RegExp][] = [
    [view(1, BRIDGE_MAC, "10.200.255.2"), /MAC 02:00:00:00:00:01 is not its own/],
    [view(1, "ff:ff:ff:ff:ff:ff", "10.200.255.2"), /is not its own/],
    [view(1, "02:42:0a:c8:ff:02", "10.200.255.2", "10.200.255.3"), /two addresses/],
    [view(1, "02:42:0a:c8:ff:02", "10.200.255.9"), /10\.200\.255\.9 is claimed by veth9/],
    [view(1, "02:42:0a:c8:ff:09", "10.200.255.2"), /02:42:0a:c8:ff:09 is claimed by veth9/],
  ];
  const other = pin(9, "02:42:0a:c8:ff:09", "10.200.255.9");
  for (const [one, reason] of rows) {
    const { pins, refused } = pinPorts([other], [one]);
    deepEqual(pins, [other]);
    equal(refused[0]?.port, "veth1");
    match(refused[0]?.reason ?? "", reason);
  }
});

Deno.test("D5: of two new claimants of one address neither gets it", () => {
  const views = [
    view(1, "02:42:0a:c8:ff:02", "10.200.255.2"),
    view(2, "02:42:0a:c8:ff:03", "10.200.255.2"),
  ];
  const { pins, refused } = pinPorts([], views);
  deepEqual(pins, []);
  deepEqual(refused.map(({ port }) => port), ["veth1", "veth2"]);
});

Deno.test("no two ports are ever pinned to one MAC or address, and earlier pins win", () => {
  const octet = fc.integer({ min: 2, max: 6 });
  const seen = fc.uniqueArray(
    fc.tuple(fc.integer({ min: 1, max: 20 }), octet, octet)
      .map(([index, mac, ip]) => view(index, `02:00:00:00:00:1${mac}`, `10.200.255.${ip}`)),
    { selector: ({ index }) => index },
  );
  fc.assert(fc.property(seen, seen, (first, second) => {
    const { pins: before } = pinPorts([], first);
    const kept = before.filter(({ index }) => second.some((one) => one.index === index));
    const { pins } = pinPorts(kept, second);
    for (const one of kept) ok(pins.includes(one));
    equal(new Set(pins.map(({ mac }) => mac)).size, pins.length);
    equal(new Set(pins.map(({ address }) => address)).size, pins.length);
  }));
});

Deno.test("portTable() lets nothing into the text that is not a name, MAC, address or subnet", () => {
  const good = { port: "veth1", mac: "02:42:0a:c8:00:02", address: "10.200.0.2" };
  const state = {
    ports: ["veth1"],
    pins: [good],
    subnets: ["10.200.0.0/24"],
    gateways: ["10.200.0.1"],
  };
  match(renderUpdate(portTable(state)), /"veth1" \. 02:42:0a:c8:00:02 \. 10\.200\.0\.2\n/);
  const bad = [
    { ...state, ports: ['x" accept'] },
    { ...state, pins: [{ ...good, port: "a b" }] },
    { ...state, pins: [{ ...good, mac: "02:42:0a:c8:00" }] },
    { ...state, pins: [{ ...good, mac: "02:42:0a:c8:00:02 . 1.2.3.4" }] },
    { ...state, pins: [{ ...good, address: "10.200.0.0/24" }] },
    { ...state, subnets: ["10.200.0.1"] },
    { ...state, gateways: ["10.200.0.1/24"] },
  ];
  for (const one of bad) throws(() => renderUpdate(portTable(one)), RangeError);
});
