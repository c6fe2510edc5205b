/** A container of the lab's engine, as something to run programs in. */
import type { Engine } from "./engine.ts";
import type { Client } from "./probe.ts";
import { type Finished, outputOf, type Process, type RunOptions } from "./process.ts";

/** One container. */
export class Container implements Client {
  constructor(readonly engine: Engine, readonly name: string) {}

  /** Runs a program in it to its end. */
  run(argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
    const env = Object.entries(options.env ?? {}).flatMap(([name, value]) => [
      "-e",
      `${name}=${value}`,
    ]);
    const { timeoutMs } = options;
    return this.engine.docker(
      ["exec", ...env, this.name, ...argv],
      timeoutMs === undefined ? {} : { timeoutMs },
    );
  }

  /** Runs a program that must succeed; returns its standard output. */
  async must(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    return outputOf(`${this.name}: ${argv.join(" ")}`, await this.run(argv, options));
  }

  /** Starts a program of the host in its network: what a witness there needs. */
  async watch(argv: readonly string[]): Promise<Process> {
    const pid = await this.engine.must(["inspect", "-f", "{{.State.Pid}}", this.name]);
    return this.engine.machine.spawn(["nsenter", "--target", pid.trim(), "--net", "--", ...argv]);
  }

  /** Its address on `network`. */
  async address(network: string): Promise<string> {
    return await this.#endpoint(network, "IPAddress");
  }

  /** Its MAC on `network`, as Docker gave it. */
  async mac(network: string): Promise<string> {
    return await this.#endpoint(network, "MacAddress");
  }

  async #endpoint(network: string, field: string): Promise<string> {
    const path = `(index .NetworkSettings.Networks "${network}").${field}`;
    return (await this.engine.must(["inspect", "-f", `{{${path}}}`, this.name])).trim();
  }
}
