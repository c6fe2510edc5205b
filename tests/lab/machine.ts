/**
 * A machine of the lab: its own network, mount and process namespaces, held by one shell.
 *
 * The shell is process 1 in there and waits on a pipe from us. When it ends, for whatever reason
 * (also when we are killed with SIGKILL: the pipe closes), the kernel kills every process of the
 * machine and takes its interfaces, tables and mounts away. There is nothing else to clean up: no
 * names in /run/netns, no files outside, and two labs never meet.
 */
import { type Finished, outputOf, Process, run, type RunOptions } from "./process.ts";

/**
 * What process 1 does. Each machine sees the files of the real one but writes to memory: /run is
 * empty, and /etc, /usr/local and /var are overlays, so that the product's real default paths
 * (/run/outcall, /etc/outcall, /var/lib/outcall) can be used, each lab having its own.
 */
const BOOT = `
set -e
mount -t tmpfs -o mode=755 lab /run
mkdir -p /run/lock /run/lab
for tree in etc usr/local var; do
  mkdir -p /run/.overlay/$tree/upper /run/.overlay/$tree/work
  mount -t overlay overlay -o \
lowerdir=/$tree,upperdir=/run/.overlay/$tree/upper,workdir=/run/.overlay/$tree/work /$tree
done
ip link set lo up
echo booted
read -r _ || true
`;

/** The parts of the environment that programs in the lab get: no proxies, no settings of ours. */
function baseEnvironment(): Record<string, string> {
  const keep = ["HOME", "DENO_DIR", "PATH"].flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value] as const];
  });
  // Deno would ask the internet for a newer version of itself, and be taken for the agent.
  const quiet = { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" };
  return { ...Object.fromEntries(keep), LC_ALL: "C.UTF-8", ...quiet };
}

/** One machine of the lab. */
export class Machine implements AsyncDisposable {
  readonly #shell: Process;

  private constructor(readonly name: string, shell: Process) {
    this.#shell = shell;
  }

  /** Starts a machine without any interface but `lo`. Needs root. */
  static async start(name: string): Promise<Machine> {
    const shell = Process.start(
      [
        ...["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"],
        // Mounts of the machine must not come back to the real one.
        ...["--propagation", "private", "--", "bash", "-c", BOOT],
      ],
      { env: baseEnvironment() },
    );
    const machine = new Machine(name, shell);
    try {
      await shell.line("stdout", (line) => line === "booted");
      return machine;
    } catch (cause) {
      await machine[Symbol.asyncDispose]();
      throw new Error(`machine ${name} did not start: ${shell.stderr.join("\n")}`, { cause });
    }
  }

  /** Process id of the namespaces' holder, as the real machine counts. */
  get pid(): number {
    return this.#shell.pid;
  }

  /** Where the machine's file `path` (absolute) is found from outside. */
  path(path: string): string {
    return `/proc/${this.pid}/root${path}`;
  }

  /** The command line that runs `argv` in here when it is started outside. */
  enter(argv: readonly string[]): string[] {
    const namespaces = `/proc/${this.pid}/ns`;
    return [
      "nsenter",
      `--net=${namespaces}/net`,
      `--mount=${namespaces}/mnt`,
      `--pid=${namespaces}/pid_for_children`,
      // Entering a mount namespace leads to its root, which is not ours in a chroot.
      `--root=/proc/${this.pid}/root`,
      `--wd=/proc/${this.pid}/root`,
      "--",
      ...argv,
    ];
  }

  /** Runs a program to its end, at most `timeoutMs` (default 20 s). */
  run(argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
    const seconds = (options.timeoutMs ?? 20_000) / 1000;
    // The limit is kept inside: killing nsenter would leave its child behind.
    return run(this.enter(["timeout", "--kill-after=1", `${seconds}`, ...argv]), {
      ...options,
      env: { ...baseEnvironment(), ...options.env },
    });
  }

  /** Runs a program that must succeed; returns its standard output. */
  async must(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    return outputOf(`${this.name}: ${argv.join(" ")}`, await this.run(argv, options));
  }

  /** Starts a program that stays. It ends with the machine at the latest. */
  spawn(argv: readonly string[], options: { env?: Record<string, string> } = {}): Process {
    return Process.start(this.enter(argv), { env: { ...baseEnvironment(), ...options.env } });
  }

  /** Kills the process with this number (as counted in here). */
  async kill(pid: number, signal: "TERM" | "KILL" | "INT"): Promise<void> {
    await this.must(["bash", "-c", `kill -${signal} ${pid}`]);
  }

  /** Replaces a file, making its folders. */
  async write(path: string, text: string, mode = 0o644): Promise<void> {
    const outside = this.path(path);
    await Deno.mkdir(outside.slice(0, outside.lastIndexOf("/")), { recursive: true });
    // The real file may be a link that leads out of the overlay (systemd's resolv.conf does).
    await Deno.remove(outside).catch((thrown) => {
      if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
    });
    await Deno.writeTextFile(outside, text, { mode });
  }

  /** Who resolves names here. */
  async useResolver(address: string): Promise<void> {
    await this.write("/etc/resolv.conf", `nameserver ${address}\noptions timeout:2 attempts:1\n`);
  }

  /** Adds a certificate (PEM) to those that curl and Python trust here. */
  async trust(certificatePem: string): Promise<void> {
    const bundle = "/etc/ssl/certs/ca-certificates.crt";
    const before = await Deno.readTextFile(this.path(bundle));
    await this.write(bundle, `${before}\n${certificatePem}\n`);
  }

  /** Ends every process of the machine and takes everything it had out of the kernel. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#shell.kill("SIGKILL");
    await this.#shell.ended;
  }
}

/** One end of a cable. */
export interface Port {
  readonly machine: Machine;
  readonly interface: string;
  /** With prefix length, such as `10.99.0.1/30`; absent for a port that joins a bridge. */
  readonly address?: string;
}

/** Lays a cable (a veth pair) between two machines and brings both ends up. */
export async function connect(a: Port, b: Port): Promise<void> {
  // Made inside `a`, so that the real network never sees either end.
  const made = await run([
    ...["nsenter", `--net=/proc/${a.machine.pid}/ns/net`, "--", "ip", "link", "add"],
    ...[a.interface, "type", "veth", "peer", "name", b.interface, "netns", `${b.machine.pid}`],
  ], { env: baseEnvironment() });
  if (made.code !== 0) throw new Error(`no cable ${a.interface}-${b.interface}: ${made.stderr}`);
  for (const port of [a, b]) {
    if (port.address !== undefined) {
      await port.machine.must(["ip", "address", "add", port.address, "dev", port.interface]);
    }
    await port.machine.must(["ip", "link", "set", port.interface, "up"]);
  }
}
