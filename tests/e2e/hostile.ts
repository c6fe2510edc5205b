/**
 * A lab for attacks from containers: the real engine and daemon, a managed network with a victim on
 * it, an ordinary Docker network where the same attacks work (the positive control), and witnesses
 * at every place that something could arrive at.
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { Container } from "../lab/container.ts";
import type { Daemon } from "../lab/daemon.ts";
import { importImage } from "../lab/dockerd.ts";
import { CLIENTS, type Engine } from "../lab/engine.ts";
import { Lab } from "../lab/lab.ts";
import type { Process } from "../lab/process.ts";

/** Programs that these tests need on the machine. */
export const TOOLS: readonly string[] = [
  ...["nft", "ip", "iptables", "unshare", "nsenter", "dockerd", "docker"],
  ...["curl", "dig", "nc", "ping", "python3"],
];

/** The image of every container here. */
export const IMAGE = "lab/agent:1";
/** A managed network, on the bridge `outcall1`. */
export const MANAGED = "outcall-agent-net";
/** An ordinary network that Docker alone looks after. */
export const ORDINARY = "ordinary";
/** Gateways of these two. */
export const GATEWAYS: Readonly<Record<string, string>> = {
  [MANAGED]: "10.200.0.1",
  [ORDINARY]: "172.31.0.1",
};
const BRIDGES: Readonly<Record<string, string>> = {
  [MANAGED]: "outcall1",
  [ORDINARY]: "ordinary0",
};

const SCRIPT = "/usr/local/lib/hostile.py";

/** The command line of hostile.py. */
export function hostile(...words: readonly string[]): string[] {
  return ["python3", SCRIPT, ...words];
}

/** Counts what the host's filters let in, but for the services that agents are there to use. */
const ADMITTED = `
table inet seen {
  chain admitted {
    type filter hook input priority 100; policy accept;
    iifname "outcall*" ip daddr { 10.200.0.1, 10.200.255.1 } udp dport 53 accept
    iifname "outcall*" ip daddr { 10.200.0.1, 10.200.255.1 } tcp dport { 53, 8080 } accept
    iifname "outcall*" counter comment "agents"
    iifname { "control0", "ordinary0" } counter comment "others"
  }
}
`;

/** Two containers side by side on one network, and what is known of it. */
export interface Pair {
  readonly network: string;
  readonly attacker: Container;
  readonly victim: Container;
  readonly attackerAddress: string;
  readonly victimAddress: string;
  readonly victimMac: string;
  readonly gateway: string;
  readonly gatewayMac: string;
}

/** The lab with its daemon. */
export class HostileLab implements AsyncDisposable {
  private constructor(readonly lab: Lab, readonly engine: Engine, public daemon: Daemon) {}

  /** @param rules Text of the one rule file. */
  static async create(rules: string): Promise<HostileLab> {
    await using parts = new AsyncDisposableStack();
    const lab = parts.use(await Lab.create({ docker: true }));
    const { engine } = lab;
    assert.ok(engine !== null);
    const script = await Deno.readTextFile(new URL("./hostile.py", import.meta.url));
    const programs = [
      ...CLIENTS,
      "nft",
      "iptables",
      "/usr/lib/x86_64-linux-gnu/xtables/libxt_standard.so",
    ];
    await importImage(engine.machine.path("/run/docker.sock"), IMAGE, programs, {
      "etc/ssl/certs/ca-certificates.crt": lab.internet.rootPem,
      [SCRIPT]: script,
    });
    for (const machine of [lab.host, lab.unfiltered]) await machine.write(SCRIPT, script);
    await lab.host.must(["nft", "-f", "-"], { input: ADMITTED });
    const daemon = await lab.startDaemon({ rules: { "agent.yaml": rules } });
    const made = await lab.cli("network", "create", "--name", "agent-net");
    assert.equal(made.code, 0, made.stderr);
    await engine.must([
      ...["network", "create", "--subnet", "172.31.0.0/24", ORDINARY],
      ...["-o", "com.docker.network.bridge.name=ordinary0"],
    ]);
    parts.move();
    return new HostileLab(lab, engine, daemon);
  }

  /** Starts a container by plain `docker run`. */
  async start(name: string, network: string, ...options: readonly string[]): Promise<Container> {
    await this.engine.must([
      ...["run", "-d", "--init", "--name", name, "--network", network, ...options],
      ...[IMAGE, "sleep", "1000"],
    ]);
    return new Container(this.engine, name);
  }

  /** Starts one, and waits until it may speak. */
  async run(name: string, network: string, ...options: readonly string[]): Promise<Container> {
    return await this.#attached(await this.start(name, network, ...options), network);
  }

  /** Makes an agent as operators do. */
  async create(name: string): Promise<Container> {
    const { code, stderr } = await this.lab.cli(
      ...["container", "create", "--image", IMAGE, "--name", name, "--network", "agent-net"],
      ...["--", "sleep", "1000"],
    );
    assert.equal(code, 0, stderr);
    return await this.#attached(new Container(this.engine, name), MANAGED);
  }

  /** An attacker with every right over its own interface, and its victim. */
  async pair(network: string): Promise<Pair> {
    const rights = ["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"];
    const attacker = await this.run(`attacker-on-${network}`, network, ...rights);
    const victim = network === MANAGED
      ? await this.create("victim")
      : await this.run("control", network);
    const link = await this.lab.host.must(["ip", "link", "show", BRIDGES[network] ?? ""]);
    return {
      network,
      attacker,
      victim,
      attackerAddress: await attacker.address(network),
      victimAddress: await victim.address(network),
      victimMac: await victim.mac(network),
      gateway: GATEWAYS[network] ?? "",
      gatewayMac: /link\/ether (\S+)/.exec(link)?.[1] ?? "",
    };
  }

  /** Packets of `agents` or `others` that the host's filters let in so far. */
  async admitted(whose: "agents" | "others"): Promise<number> {
    const listing = await this.lab.host.must(["nft", "list", "table", "inet", "seen"]);
    const count = new RegExp(`packets (\\d+) .* comment "${whose}"`).exec(listing)?.[1];
    return Number(count);
  }

  /** Restarts the daemon. */
  async restartDaemon(): Promise<void> {
    this.daemon = await this.lab.startDaemon();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
  }

  async #attached(container: Container, network: string): Promise<Container> {
    if (network === MANAGED) {
      const address = await container.address(network);
      const pins = ["nft", "list", "set", "bridge", "outcall", "pinned"];
      await eventually(async () => (await this.lab.host.must(pins)).includes(address));
    }
    return container;
  }
}

/** Frames that come in at a container's interface. */
export class Sniffer {
  private constructor(readonly process: Process) {}

  /** Begins in `container`, with the rights that it takes. */
  static async start(container: Container): Promise<Sniffer> {
    const process = await container.watch(hostile("sniff"));
    await process.line("stdout", (line) => line === "listening");
    return new Sniffer(process);
  }

  /** How many frames there were so far. */
  get count(): number {
    return this.process.stdout.length;
  }

  /** Frames from number `from` on that contain each of `words`, such as an address. */
  frames(from: number, ...words: readonly string[]): string[] {
    return this.process.stdout.slice(from)
      .filter((line) => words.every((word) => line.split(" ").includes(word)));
  }

  /** Waits for one. */
  async frame(from: number, ...words: readonly string[]): Promise<void> {
    await eventually(() => this.frames(from, ...words).length > 0, `a frame with ${words}`);
  }
}
