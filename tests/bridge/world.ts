/**
 * A small closed world for the firewall alone: no daemon, no Docker.
 *
 *     internet ─ up0 ─ host ─ outcall0 ─ agent
 *                        ├─── outcall1 ─ neighbour
 *                        └─── docker9 ── bystander (an ordinary container network)
 *
 * Each machine counts what arrives before any filter, and the host also what its filters let in.
 */
import { connect, Machine } from "../lab/machine.ts";
import { denoCommand } from "../lab/product.ts";
import { ALL_LISTEN, DEFAULT_SEGMENT, OTHER_SEGMENT, RemoteBridges } from "./remote.ts";

/** An address of the internet. */
export const INTERNET = "1.1.1.1";
/** The host's address on the internet. */
export const HOST = "81.2.69.1";
/** The ordinary container network's member. */
export const BYSTANDER = "172.18.0.10";
/** The agent and its neighbour on the other managed network. */
export const AGENT = "10.200.255.10";
export const NEIGHBOUR = "10.200.0.10";

/** Priority -400: before connection tracking and every filter. 100: after every filter. */
const COUNTERS = `
table inet seen {
  chain arrived {
    type filter hook prerouting priority -400; policy accept;
    # What kernels send without being asked.
    meta l4proto igmp accept
    meta l4proto ipv6-icmp icmpv6 type != echo-request accept
    iifname { "up0", "eth0" } counter comment "from network"
    iifname { "outcall0", "outcall1" } counter comment "from agents"
    iifname "docker9" counter comment "from bystander"
  }
  chain admitted {
    type filter hook input priority 100; policy accept;
    meta l4proto ipv6-icmp icmpv6 type != echo-request accept
    iifname { "outcall0", "outcall1" } counter comment "admitted from agents"
    iifname "docker9" counter comment "admitted from bystander"
  }
}
`;

/** What a counter counts. */
export type Seen =
  | "from agents"
  | "from bystander"
  | "from network"
  | "admitted from agents"
  | "admitted from bystander";

interface RuleListing {
  readonly nftables: readonly {
    readonly rule?: {
      readonly comment?: string;
      readonly expr: readonly { readonly counter?: { readonly packets: number } }[];
    };
  }[];
}

/** Packets counted on `machine` so far. */
export async function seen(machine: Machine, what: Seen): Promise<number> {
  const listing: RuleListing = JSON.parse(
    await machine.must(["nft", "-j", "list", "table", "inet", "seen"]),
  );
  for (const { rule } of listing.nftables) {
    if (rule?.comment !== what) continue;
    return rule.expr.find((part) => part.counter !== undefined)?.counter?.packets ?? 0;
  }
  throw new Error(`no counter '${what}'`);
}

/** The command line of send.ts. */
export function sender(...args: readonly string[]): string[] {
  return [...denoCommand(new URL("send.ts", import.meta.url)), ...args];
}

/** One world. */
export class World implements AsyncDisposable {
  readonly #owned: AsyncDisposableStack;

  private constructor(
    owned: AsyncDisposableStack,
    readonly internet: Machine,
    readonly host: Machine,
    readonly agent: Machine,
    readonly neighbour: Machine,
    readonly bystander: Machine,
    readonly bridges: RemoteBridges,
  ) {
    this.#owned = owned;
  }

  /** Builds the machines, and attaches both managed networks. */
  static async create(): Promise<World> {
    await using parts = new AsyncDisposableStack();
    const start = async (name: string): Promise<Machine> => {
      const machine = parts.use(await Machine.start(name));
      await machine.must(["nft", "-f", "-"], { input: COUNTERS });
      // Programs look names up on their own account; such packets would be counted.
      await machine.useResolver("127.0.0.1");
      return machine;
    };
    const internet = await start("internet");
    const host = await start("host");
    const agent = await start("agent");
    const neighbour = await start("neighbour");
    const bystander = await start("bystander");

    await connect(
      { machine: host, interface: "up0", address: `${HOST}/30` },
      { machine: internet, interface: "eth0", address: "81.2.69.2/30" },
    );
    await host.must(["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    await host.must(["ip", "route", "add", "default", "via", "81.2.69.2"]);
    await internet.must(["ip", "address", "add", `${INTERNET}/32`, "dev", "lo"]);
    // Replies find the way back to addresses that nobody masquerades: a leak would be complete.
    await internet.must(["ip", "route", "add", "default", "via", HOST]);

    const bridges = new RemoteBridges(host);
    await bridges.up();
    await bridges.attach(DEFAULT_SEGMENT);
    await bridges.attach(OTHER_SEGMENT);
    await bridges.open(ALL_LISTEN);
    await host.must(["ip", "link", "add", "docker9", "type", "bridge"]);
    await host.must(["ip", "address", "add", "172.18.0.1/24", "dev", "docker9"]);
    await host.must(["ip", "link", "set", "docker9", "up"]);
    for (
      const { machine, bridge, address, gateway } of [
        { machine: agent, ...DEFAULT_SEGMENT, address: AGENT },
        { machine: neighbour, ...OTHER_SEGMENT, address: NEIGHBOUR },
        { machine: bystander, bridge: "docker9", address: BYSTANDER, gateway: "172.18.0.1" },
      ]
    ) {
      const port = `port-${bridge}`;
      await connect({ machine: host, interface: port }, {
        machine,
        interface: "eth0",
        address: `${address}/24`,
      });
      await host.must(["ip", "link", "set", port, "master", bridge]);
      await machine.must(["ip", "route", "add", "default", "via", gateway]);
    }
    await bridges.repair(); // pins the new ports
    return new World(parts.move(), internet, host, agent, neighbour, bystander, bridges);
  }

  /** Ends all machines. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}
