/**
 * A real Docker Engine on a machine of the lab, at its usual socket, with its data in memory. It ends
 * with the machine; only its (empty) control groups are outside, and removed here.
 */
import { importImage, removeControlGroups } from "./dockerd.ts";
import type { Machine } from "./machine.ts";
import type { Finished, RunOptions } from "./process.ts";

const START_TIMEOUT_MS = 30_000;
const POLL_MS = 50;

/** Clients that agents of the lab have; what is in an image and what the demo uses. */
export const CLIENTS: readonly string[] = [
  ...["bash", "cat", "ls", "sleep", "env", "id", "timeout", "getent", "ip", "stty"],
  ...["curl", "dig", "nc", "ping", "python3"],
];

/** One engine. */
export class Engine implements AsyncDisposable {
  private constructor(readonly machine: Machine, readonly controlGroup: string) {}

  /** Starts `dockerd` and waits until it answers. */
  static async start(machine: Machine): Promise<Engine> {
    const controlGroup = `outcall-lab-${crypto.randomUUID().slice(0, 8)}`;
    const engine = new Engine(machine, controlGroup);
    await engine.restart();
    return engine;
  }

  /** Starts `dockerd` again after it was ended, with what it had, and waits until it answers. */
  async restart(): Promise<void> {
    const dockerd = this.machine.spawn([
      ...["dockerd", "--data-root=/run/docker-data", "--bip=172.30.0.1/24"],
      ...["--exec-opt=native.cgroupdriver=cgroupfs", `--cgroup-parent=/${this.controlGroup}`],
    ]);
    let ended = false;
    void dockerd.ended.then(() => ended = true);
    const deadline = Date.now() + START_TIMEOUT_MS;
    while ((await this.docker(["version"])).code !== 0) {
      if (ended || Date.now() > deadline) {
        throw new Error(`dockerd does not answer:\n${dockerd.stderr.slice(-20).join("\n")}`);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** Runs the `docker` command. */
  docker(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return this.machine.run(["docker", ...args], options);
  }

  /** Runs a `docker` command that must succeed; returns its standard output. */
  must(args: readonly string[], options: RunOptions = {}): Promise<string> {
    return this.machine.must(["docker", ...args], options);
  }

  /**
   * Makes an image with the lab's clients, which trust `rootPem`.
   * @param name With its tag, such as `python:3.12`, for which it stands in.
   */
  async importClients(name: string, rootPem: string): Promise<void> {
    await importImage(this.machine.path("/run/docker.sock"), name, CLIENTS, {
      "etc/ssl/certs/ca-certificates.crt": rootPem,
    });
  }

  /** Removes what the engine left outside its machine; the machine must have ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    await removeControlGroups(this.controlGroup);
  }
}
