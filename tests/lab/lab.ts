/**
 * The lab: an internet, a host that runs the product, and an unfiltered machine behind the same host
 * for positive controls. See machine.ts for why nothing of it can be left behind.
 *
 *     internet ── host ── outcall0 … ── agents (namespaces or containers)
 *                   └──── unfiltered
 */
import { type AgentPlace, DEFAULT_PLACE, startAgent } from "./agent.ts";
import { Daemon, type LogOptions } from "./daemon.ts";
import { Engine } from "./engine.ts";
import { Internet } from "./internet.ts";
import { UPSTREAM_RESOLVER } from "./internet/world.ts";
import { connect, Machine } from "./machine.ts";
import type { Finished, RunOptions } from "./process.ts";
import { installProduct } from "./product.ts";
import type { Witness } from "./witness.ts";

/** The host's address on the internet; also that of containers, which Docker masquerades. */
export const HOST_ADDRESS = "81.2.69.1";
const HOST_UPLINK = "81.2.69.2";
/** The unfiltered machine's address, as the internet sees it. */
export const UNFILTERED_ADDRESS = "10.99.0.2";
/** The address at which the unfiltered machine reaches the host. */
export const UNFILTERED_GATEWAY = "10.99.0.1";

/** What a lab is made with. */
export interface LabOptions {
  /** Whether the host has a Docker Engine. */
  readonly docker: boolean;
}

/** How the daemon is started. */
export interface DaemonOptions extends LogOptions {
  /** Beside the defaults, such as `["--no-proxy"]`. */
  readonly flags?: readonly string[];
  /** File name to YAML text; they replace what is in /etc/outcall/rules.d. */
  readonly rules?: Readonly<Record<string, string>>;
}

/** An API answer. */
export interface ApiAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** One closed world. */
export class Lab implements AsyncDisposable {
  /** What ends with the lab, last made first. */
  readonly #owned: AsyncDisposableStack;

  private constructor(
    owned: AsyncDisposableStack,
    readonly internet: Internet,
    readonly host: Machine,
    readonly unfiltered: Machine,
    /** Null without Docker. */
    readonly engine: Engine | null,
  ) {
    this.#owned = owned;
  }

  /** Builds everything but the daemon; about half a second, with Docker one and a half. */
  static async create(options: LabOptions): Promise<Lab> {
    await using parts = new AsyncDisposableStack();
    const internet = parts.use(await Internet.start());
    let engine: Engine | null = null;
    // Below the host on the stack: the engine's remains can go only when its machine has ended.
    parts.defer(async () => await engine?.[Symbol.asyncDispose]());
    const host = parts.use(await Machine.start("host"));
    const unfiltered = parts.use(await Machine.start("unfiltered"));

    await connect(
      { machine: host, interface: "uplink0", address: `${HOST_ADDRESS}/30` },
      { machine: internet.machine, interface: "host0", address: `${HOST_UPLINK}/30` },
    );
    await host.must(["ip", "route", "add", "default", "via", HOST_UPLINK]);
    // Replies find the way back even to addresses that nobody masquerades: leaks are not hidden.
    await internet.machine.must(["ip", "route", "add", "10.0.0.0/8", "via", HOST_ADDRESS]);
    await host.useResolver(UPSTREAM_RESOLVER);
    await host.must(["sysctl", "-qw", "net.ipv4.ip_forward=1"]); // as Docker does

    await connect(
      { machine: host, interface: "control0", address: `${UNFILTERED_GATEWAY}/30` },
      { machine: unfiltered, interface: "eth0", address: `${UNFILTERED_ADDRESS}/30` },
    );
    await unfiltered.must(["ip", "route", "add", "default", "via", UNFILTERED_GATEWAY]);
    await unfiltered.useResolver(UPSTREAM_RESOLVER);
    await unfiltered.trust(internet.rootPem);

    await installProduct(host);
    if (options.docker) {
      engine = await Engine.start(host);
      for (const direction of ["-i", "-o"]) {
        await host.must(["iptables", "-I", "DOCKER-USER", direction, "control0", "-j", "ACCEPT"]);
      }
    }
    return new Lab(parts.move(), internet, host, unfiltered, engine);
  }

  /** What reached the internet. */
  get witness(): Witness {
    return this.internet.witness;
  }

  /** Writes the rule files and starts the real `outcalld` on the host. */
  async startDaemon(options: DaemonOptions = {}): Promise<Daemon> {
    if (options.rules !== undefined) await this.writeRules(options.rules);
    return await Daemon.start(this.host, options.flags ?? [], options);
  }

  /** Replaces every rule file on the host; nothing changes until a reload. */
  async writeRules(rules: Readonly<Record<string, string>>): Promise<void> {
    const folder = "/etc/outcall/rules.d";
    await this.host.must(["rm", "-rf", folder]);
    await this.host.must(["mkdir", "-p", folder]);
    for (const [name, text] of Object.entries(rules)) {
      await this.host.write(`${folder}/${name}`, text);
    }
  }

  /** Runs the real `outcall` on the host. */
  cli(...args: readonly string[]): Promise<Finished> {
    return this.host.run(["outcall", ...args]);
  }

  /** Asks the host API over its Unix socket, with curl as an operator would. */
  async api(method: string, path: string, body?: unknown): Promise<ApiAnswer> {
    const data = body === undefined
      ? []
      : ["-H", "content-type: application/json", "--data-binary", JSON.stringify(body)];
    const printed = await this.host.must([
      ...["curl", "-sS", "--unix-socket", "/run/outcall/host.sock", "-X", method, ...data],
      ...["-w", "\n%{http_code}", `http://localhost${path}`],
    ]);
    const end = printed.lastIndexOf("\n");
    return { status: Number(printed.slice(end + 1)), body: JSON.parse(printed.slice(0, end)) };
  }

  /** Puts a namespace agent on a managed bridge; it ends with the lab. */
  async agent(place: AgentPlace = DEFAULT_PLACE): Promise<Machine> {
    return this.#owned.use(await startAgent(this.host, this.internet.rootPem, place));
  }

  /** Runs a client on the unfiltered machine. */
  control(argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return this.unfiltered.run(argv, options);
  }

  /** Takes everything down, agents first. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}
