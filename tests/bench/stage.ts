/**
 * The closed world of the benchmarks: a lab, and beside its host a second machine for the peers,
 * with the same links to a client and to the origin servers.
 *
 *     agent ────── outcall0 [host: outcalld] ──┐
 *                                              ├── origin
 *     unfiltered ── docker0 [peers: one each] ──┘
 *
 * The peers have a machine of their own, so that no firewall table of ours slows them down. They are
 * reached as a host's services are by its containers: through a bridge, which has an address, and the
 * rule that Docker makes for each of its bridges.
 */
import { DEFAULT_NETWORK } from "../../lib/docker/managed.ts";
import { aliasOf, newPortName } from "../../lib/namespace/links.ts";
import { type AgentPlace, DEFAULT_PLACE } from "../lab/agent.ts";
import { Lab } from "../lab/lab.ts";
import { connect, Machine } from "../lab/machine.ts";
import { denoCommand } from "../lab/product.ts";
import { setUp } from "../setup.ts";
import { ruleFiles } from "./names.ts";

/** Every server of the origin: its DNS on port 53, HTTP on 80, streams of bytes on 443. */
export const ORIGIN_ADDRESS = "45.90.30.1";

/** Where the peers listen. */
export const PEER_ADDRESS = "10.98.0.1";

/** Where their clients are: of {@linkcode Stage.unfiltered}, and of a neighbour that a case plugs in. */
const PEER_CLIENTS = ["10.98.0.2/29", "10.98.0.3/29"] as const;

/** Where ours listens. */
export const OUR_ADDRESS = DEFAULT_PLACE.gateway;

/** Where the daemon's log goes on its machine. */
const DAEMON_LOG = "/run/lab/outcalld.log";

/**
 * Settings of each machine's network.
 *
 * Ports: with thousands of connections a second from one address to one port, a client soon runs
 * out of ports, each of which waits a minute for stray packets, and would measure that.
 * Congestion control: as Debian's own, reno does not pace what it sends, and it may be chosen in a
 * namespace. Where bbr is the default it measures its own guesses about a cable without a delay.
 */
const NETWORK_SETTINGS = [
  "net.ipv4.ip_local_port_range=1024 65535",
  "net.ipv4.tcp_tw_reuse=1",
  "net.ipv4.tcp_congestion_control=reno",
];

const PEERS_BRIDGE = `
ip link add docker0 type bridge
ip address add ${PEER_ADDRESS}/29 dev docker0
ip link set docker0 up
nft -f - << 'RULES'
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat
    ip saddr 10.98.0.0/29 oifname != "docker0" masquerade
  }
}
RULES`;

/** A running stage; everything ends with it, or with this process. */
export class Stage implements AsyncDisposable {
  readonly #owned: AsyncDisposableStack;
  readonly #lab: Lab;

  private constructor(
    owned: AsyncDisposableStack,
    lab: Lab,
    /** The client behind the firewall. */
    readonly agent: Machine,
    /** Where the peers run. */
    readonly peers: Machine,
  ) {
    this.#owned = owned;
    this.#lab = lab;
  }

  /**
   * Builds it and starts the origin and the real daemon, with `ruleCount` rules.
   * @param queryRate As `--dns-query-rate` takes it; by default without a limit, as the peers have none.
   */
  static async create(ruleCount: number, queryRate = "1000000/1"): Promise<Stage> {
    const missing = await setUp("bench");
    if (missing !== null) throw new Error(missing);
    await using parts = new AsyncDisposableStack();
    const lab = parts.use(await Lab.create({ docker: false }));
    const peers = parts.use(await Machine.start("peers"));
    const origin = parts.use(await Machine.start("origin"));

    await connect(
      { machine: lab.host, interface: "origin0", address: "45.90.28.1/30" },
      { machine: origin, interface: "host0", address: "45.90.28.2/30" },
    );
    await connect(
      { machine: peers, interface: "origin0", address: "45.90.29.1/30" },
      { machine: origin, interface: "peers0", address: "45.90.29.2/30" },
    );
    await peers.must(["bash", "-c", PEERS_BRIDGE]);
    await plugIn(peers, "client0", lab.unfiltered, PEER_CLIENTS[0]);
    await origin.must(["ip", "address", "add", `${ORIGIN_ADDRESS}/32`, "dev", "lo"]);
    await lab.host.must(["ip", "route", "add", ORIGIN_ADDRESS, "via", "45.90.28.2"]);
    await peers.must(["ip", "route", "add", ORIGIN_ADDRESS, "via", "45.90.29.2"]);
    await peers.useResolver(ORIGIN_ADDRESS);
    // Squid's shared memory would outlive it.
    await peers.must(["mount", "-t", "tmpfs", "peers", "/dev/shm"]);
    for (const machine of [lab.host, lab.unfiltered, peers, origin]) await tune(machine);
    await startOrigin(origin);

    await lab.startDaemon({
      rules: ruleFiles(ruleCount),
      flags: [
        "--dns-upstream",
        ORIGIN_ADDRESS,
        "--dns-query-rate",
        queryRate,
        "--proxy-max-connections-per-agent",
        "4096",
      ],
      logFile: DAEMON_LOG,
    });
    const agent = await lab.agent();
    await tune(agent);
    await nameAgent(lab.host, DEFAULT_PLACE, "bench");
    return new Stage(parts.move(), lab, agent, peers);
  }

  /** Where the daemon runs. */
  get host(): Machine {
    return this.#lab.host;
  }

  /** The client of the peers. */
  get unfiltered(): Machine {
    return this.#lab.unfiltered;
  }

  /** Another client behind the firewall. @param name Without it the daemon does not know whose it is. */
  async newAgent(place: AgentPlace, name?: string): Promise<Machine> {
    const agent = await this.#lab.agent(place);
    if (name !== undefined) await nameAgent(this.host, place, name);
    return agent;
  }

  /** Another client of the peers. */
  async newUnfiltered(): Promise<Machine> {
    const client = this.#owned.use(await Machine.start("neighbour"));
    await plugIn(this.peers, "client1", client, PEER_CLIENTS[1]);
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}

/**
 * Names the agent that was plugged in last, as agents are: one without a name is looked for with each
 * of its connections.
 */
async function nameAgent(
  host: Machine,
  { bridge, address }: AgentPlace,
  name: string,
): Promise<void> {
  const ports = await host.must(["ip", "-o", "link", "show", "master", bridge]);
  const [, port = ""] = /^\d+: ([^@:]+)/.exec(ports.trim().split("\n").at(-1) ?? "") ?? [];
  const [ip = ""] = address.split("/");
  const alias = aliasOf({ name, address: ip, network: DEFAULT_NETWORK });
  await host.must(["ip", "link", "set", port, "name", newPortName(), "alias", alias]);
}

/** Connects a client to the peers' bridge. */
async function plugIn(
  peers: Machine,
  port: string,
  client: Machine,
  address: string,
): Promise<void> {
  await connect({ machine: peers, interface: port }, {
    machine: client,
    interface: "peers0",
    address,
  });
  await peers.must(["ip", "link", "set", port, "master", "docker0"]);
}

async function tune(machine: Machine): Promise<void> {
  await machine.must(["sysctl", "-qw", ...NETWORK_SETTINGS]);
}

async function startOrigin(machine: Machine): Promise<void> {
  const program = new URL("./origin.ts", import.meta.url);
  const process = machine.spawn([...denoCommand(program), ORIGIN_ADDRESS]);
  await process.line("stdout", (line) => line === "ready");
}
