import { deepEqual, doesNotMatch, equal, match, throws } from "node:assert/strict";
import fc from "fast-check";
import { coveredBridges, type FirewallState, firewallTable } from "../../lib/bridge/firewall.ts";
import { NOTHING_LISTENS } from "../../lib/bridge/segment.ts";
import { differences, renderReplacement, renderUpdate } from "../../lib/bridge/table.ts";
import { Machine } from "../lab/machine.ts";
import { labTest } from "../lab/requirements.ts";
import { DEFAULT_SEGMENT, OTHER_SEGMENT, SERVED } from "./remote.ts";

const LIVE: FirewallState = {
  listening: { dns: ["10.200.255.1", "10.200.0.1"], proxy: ["10.200.255.1", "10.200.0.1"] },
  segments: [DEFAULT_SEGMENT, OTHER_SEGMENT],
  extraBridges: ["outcall2"],
  granted: [["10.200.0.2", { prefix: { addr: "93.184.216.0", len: 24 } }, "tcp", 443]],
  dnsPort: 53,
  proxyPort: 8080,
};

const renderFirewall = (state: FirewallState): string => renderReplacement(firewallTable(state));

/** No service, no grant. */
const CLOSED: Partial<FirewallState> = { listening: NOTHING_LISTENS, granted: [] };

const SNAPSHOT = `\
table inet outcall
delete table inet outcall
table inet outcall {
  set bridges {
    type ifname
    comment "managed bridges"
    elements = {
      "outcall0",
      "outcall1",
      "outcall2"
    }
  }

  set subnets {
    type ifname . ipv4_addr
    flags interval
    comment "source addresses of each bridge's agents"
    elements = {
      "outcall0" . 10.200.255.0/24,
      "outcall1" . 10.200.0.0/24
    }
  }

  set gateways {
    type ipv4_addr
    comment "gateway of each managed network"
    elements = {
      10.200.255.1,
      10.200.0.1
    }
  }

  set dns_clients {
    type ifname . ipv4_addr . ipv4_addr . ipv4_addr
    comment "networks that the DNS filter serves now, and its gateways"
    elements = {
      "outcall0" . 10.200.255.0 . 10.200.255.255 . 10.200.255.1,
      "outcall1" . 10.200.0.0 . 10.200.0.255 . 10.200.0.1
    }
  }

  set proxy_clients {
    type ifname . ipv4_addr . ipv4_addr . ipv4_addr
    comment "networks that the proxy serves now, and its gateways"
    elements = {
      "outcall0" . 10.200.255.0 . 10.200.255.255 . 10.200.255.1,
      "outcall1" . 10.200.0.0 . 10.200.0.255 . 10.200.0.1
    }
  }

  set grants {
    type ipv4_addr . ipv4_addr . inet_proto . inet_service
    flags interval, timeout
    comment "who may open a connection to where now"
  }

  set granted {
    type ipv4_addr . ipv4_addr . inet_proto . inet_service
    flags interval
    comment "whose connections to where may go on"
    elements = {
      10.200.0.2 . 93.184.216.0/24 . tcp . 443
    }
  }

  set direct {
    type ipv4_addr . ipv4_addr . inet_proto . inet_service
    flags timeout
    comment "who may open a connection to what DNS answered"
  }

  set directed {
    type ipv4_addr . ipv4_addr . inet_proto . inet_service
    flags timeout
    comment "whose connections to what DNS answered may go on"
  }

  set reported {
    type ifname . ipv4_addr
    size 4096
    flags dynamic, timeout
    timeout 60s
    comment "sources of which drops were logged of late"
  }

  chain forward_denied {
    update @reported { iifname . ip saddr limit rate 100/second burst 1000 packets } log prefix "forward_denied" group 28515 snaplen 128 comment "for the decision record"
    drop comment "and no further"
  }

  chain agent_to_agent {
    update @reported { iifname . ip saddr limit rate 100/second burst 1000 packets } log prefix "agent_to_agent" group 28515 snaplen 128 comment "for the decision record"
    drop comment "and no further"
  }

  chain input_denied {
    update @reported { iifname . ip saddr limit rate 100/second burst 1000 packets } log prefix "input_denied" group 28515 snaplen 128 comment "for the decision record"
    drop comment "and no further"
  }

  chain spoofed {
    limit rate 20/second burst 200 packets log prefix "spoofed" group 28515 snaplen 128 comment "for the decision record"
    drop comment "and no further"
  }

  chain ipv6 {
    limit rate 20/second burst 200 packets log prefix "ipv6" group 28515 snaplen 128 comment "for the decision record"
    drop comment "and no further"
  }

  chain outside_denied {
    limit rate 20/second burst 200 packets log prefix "outside_denied" group 28515 snaplen 128 comment "for the decision record"
    drop comment "and no further"
  }

  chain forward_from_agents {
    meta nfproto ipv6 counter goto ipv6 comment "IPv6 from an agent to outside"
    oifname @bridges counter goto agent_to_agent comment "agent to agent"
    ct state established ct direction original ip saddr . ip daddr . meta l4proto . th dport @directed accept comment "connection to what DNS answered"
    ct state established ct direction original ip saddr . ip daddr . meta l4proto . th dport @granted accept comment "connection of a grant"
    meta l4proto tcp ct state new tcp flags & (fin | syn | rst | ack) != syn counter goto forward_denied comment "agent to outside in mid-connection"
    ct state new ip saddr . ip daddr . meta l4proto . th dport @direct counter accept comment "new connection to what DNS answered"
    ct state new ip saddr . ip daddr . meta l4proto . th dport @grants counter accept comment "new connection by a grant"
    counter goto forward_denied comment "agent to outside"
  }

  chain forward_to_agents {
    meta nfproto ipv6 counter goto ipv6 comment "IPv6 from outside to an agent"
    ct state established ct direction reply ip daddr . ip saddr . meta l4proto . th sport @directed accept comment "answer to a connection to what DNS answered"
    ct state established ct direction reply ip daddr . ip saddr . meta l4proto . th sport @granted accept comment "answer to a connection of a grant"
    ct state related icmp type destination-unreachable accept comment "error about a connection of a grant"
    counter goto outside_denied comment "outside to agent"
  }

  chain input_from_agents {
    meta nfproto ipv6 counter goto ipv6 comment "IPv6 from an agent"
    iifname . ip saddr != @subnets counter goto spoofed comment "agent with a foreign source address"
    ct state established ct direction reply accept comment "agent answers the host"
    counter goto input_denied comment "agent to host"
  }

  chain prerouting {
    type filter hook prerouting priority -300; policy accept;
    udp dport 53 ip daddr @gateways notrack accept comment "DNS over UDP"
    tcp dport 53 ip daddr @gateways notrack accept comment "DNS over TCP"
    tcp dport 8080 ip daddr @gateways notrack accept comment "proxy"
  }

  chain forward {
    type filter hook forward priority 0; policy drop;
    iifname @bridges goto forward_from_agents comment "from an agent"
    oifname @bridges goto forward_to_agents comment "to an agent"
    accept comment "neither side is managed"
  }

  chain input {
    type filter hook input priority 0; policy accept;
    udp dport 53 iifname . (ip saddr & 255.255.255.0) . (ip saddr | 0.0.0.255) . ip daddr @dns_clients accept comment "DNS over UDP, of agents in a /24"
    tcp dport 53 iifname . (ip saddr & 255.255.255.0) . (ip saddr | 0.0.0.255) . ip daddr @dns_clients accept comment "DNS over TCP, of agents in a /24"
    tcp dport 8080 iifname . (ip saddr & 255.255.255.0) . (ip saddr | 0.0.0.255) . ip daddr @proxy_clients accept comment "proxy, of agents in a /24"
    iifname @bridges goto input_from_agents comment "anything else from an agent"
    ip daddr @gateways iifname != "lo" counter goto outside_denied comment "outside to gateway"
  }

  chain masquerade_grants {
    type nat hook postrouting priority 100; policy accept;
    oifname != @bridges ip saddr . ip daddr . meta l4proto . th dport @granted masquerade comment "agents with a grant appear as the host"
    oifname != @bridges ip saddr . ip daddr . meta l4proto . th dport @directed masquerade comment "agents that connect to what DNS answered appear as the host"
  }

  chain output {
    type filter hook output priority -300; policy accept;
    meta nfproto ipv6 oifname @bridges counter drop comment "IPv6 to an agent"
    udp sport 53 ip saddr @gateways notrack accept comment "DNS over UDP"
    tcp sport 53 ip saddr @gateways notrack accept comment "DNS over TCP"
    tcp sport 8080 ip saddr @gateways notrack accept comment "proxy"
  }
}
`;

Deno.test("renderFirewall() renders one transaction that replaces the table (D2)", () => {
  equal(renderFirewall(LIVE), SNAPSHOT);
});

Deno.test("renderFirewall() closed: the same chains and bridges, and no service at all", () => {
  const closed = renderFirewall({ ...LIVE, ...CLOSED });
  const chains = (text: string): string => text.slice(text.indexOf("chain forward_denied"));
  equal(chains(closed), chains(SNAPSHOT));
  doesNotMatch(closed, SERVED);
  match(closed, /"outcall0",\n\s+"outcall1",\n\s+"outcall2"/);
});

Deno.test("a service is open only at the gateways where it listens", () => {
  const text = renderFirewall({
    ...LIVE,
    listening: { dns: ["10.200.0.1"], proxy: ["127.0.0.1"] },
  });
  match(text, /set dns_clients {[^}]*elements = {\s+"outcall1" \. 10\.200\.0\.0 [^,}]+}/);
  match(text, /set proxy_clients {[^}]*"networks that the proxy serves now, and its gateways"\s+}/);
});

Deno.test("renderFirewall() without a proxy opens the DNS filter only", () => {
  const text = renderFirewall({ ...LIVE, proxyPort: null });
  doesNotMatch(text, /8080/);
  match(text, /set proxy_clients {[^}]*"networks that the proxy serves now, and its gateways"\s+}/);
  match(text, SERVED);
});

Deno.test("renderFirewall() gives a bridge without a known network no services", () => {
  const text = renderFirewall({ ...LIVE, segments: [], granted: [] });
  doesNotMatch(text, /10\.200/);
  match(text, /elements = \{\s+"outcall2"\s+\}/);
});

Deno.test("renderFirewall() lets nothing into the text that is not a name, address or port", () => {
  const change = (part: Partial<typeof DEFAULT_SEGMENT>): FirewallState => ({
    ...LIVE,
    segments: [{ ...DEFAULT_SEGMENT, ...part }],
  });
  const bad: readonly FirewallState[] = [
    change({ bridge: 'x" } accept; #' }),
    change({ gateway: "10.200.0.1 . tcp . 22" }),
    change({ gateway: "fd00::1" }),
    change({ subnet: "0.0.0.0" }),
    change({ subnet: "10.200.0.1/24" }),
    { ...LIVE, extraBridges: ["a b"] },
    { ...LIVE, dnsPort: 0 },
    { ...LIVE, proxyPort: 65536 },
    { ...LIVE, proxyPort: Number.NaN },
  ];
  for (const state of bad) throws(() => renderFirewall(state), RangeError);
  fc.assert(fc.property(fc.string(), (text) => {
    try {
      renderFirewall(change({ bridge: text, gateway: text, subnet: text }));
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return;
    }
    throw new Error("one text cannot be a name and an address");
  }));
});

labTest("nft understands every form of the table, and lists the bridges it covers", {
  tools: ["nft", "unshare", "nsenter", "ip"],
}, async () => {
  await using machine = await Machine.start("host");
  const states: readonly FirewallState[] = [
    LIVE,
    { ...LIVE, listening: NOTHING_LISTENS },
    { ...LIVE, proxyPort: null },
    { ...LIVE, segments: [] },
    { ...LIVE, segments: [], extraBridges: [] },
  ];
  for (const render of [renderUpdate, renderReplacement, renderUpdate]) {
    for (const state of states) {
      const table = firewallTable(state);
      const text = render(table);
      await machine.must(["nft", "-c", "-f", "-"], { input: text });
      await machine.must(["nft", "-f", "-"], { input: text });
      const listing = JSON.parse(
        await machine.must(["nft", "-jp", "list", "table", "inet", "outcall"]),
      );
      const covered = [...state.segments.map((segment) => segment.bridge), ...state.extraBridges];
      deepEqual(coveredBridges(listing.nftables).sort(), covered);
      deepEqual(differences(table, listing.nftables), []);
    }
  }
});

labTest("a report that somebody took out, or sent elsewhere, is a difference", {
  tools: ["nft", "unshare", "nsenter"],
}, async () => {
  const table = firewallTable(LIVE);
  for (
    const [change, found] of [
      ["flush chain inet outcall forward_denied", /chain forward_denied has other rules/],
      ["insert rule inet outcall input_denied accept", /chain input_denied has other rules/],
      [
        "flush chain inet outcall output; add rule inet outcall output " +
        'oifname @bridges goto ipv6 comment "IPv6 to an agent"',
        /chain output has other rules/,
      ],
      ["add chain inet outcall extra", /a foreign chain extra/],
    ] as const
  ) {
    await using machine = await Machine.start("host");
    await machine.must(["nft", "-f", "-"], { input: renderReplacement(table) });
    await machine.must(["nft", "-f", "-"], { input: change.replaceAll("; ", "\n") });
    const json = await machine.must(["nft", "-j", "list", "table", "inet", "outcall"]);
    match(differences(table, JSON.parse(json).nftables).join(", "), found);
  }
});

Deno.test("coveredBridges() finds nothing in what is not our table", () => {
  deepEqual(coveredBridges([]), []);
  deepEqual(
    coveredBridges([null, 1, { set: { name: "services", elem: ["x"] } }, { chain: {} }]),
    [],
  );
});
