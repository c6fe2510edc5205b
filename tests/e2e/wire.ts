/** Both ends of a wire that leads through the proxy: a client in an agent, a server on the internet. */
import { denoCommand } from "../lab/product.ts";
import type { Machine } from "../lab/machine.ts";
import type { Process } from "../lab/process.ts";
import type { Behaviour, Dialogue, Heard, Instruction, Step } from "./wire/protocol.ts";

/** Sends a byte string at once. */
export function send(text: string): Step {
  return { do: "send", text };
}

/** Reads up to the end of `pattern`, a regular expression. */
export function until(pattern: string): Step {
  return { do: "until", pattern };
}

/** Reads to the end. */
export const REST: Step = { do: "rest" };

/** The client's end. */
export class WireClient {
  #dialogues = 0;

  private constructor(readonly process: Process, readonly to: string, readonly port: number) {}

  /** Starts it on `machine`; it connects to `to` and `port`. */
  static start(machine: Machine, to: string, port: number): WireClient {
    const program = denoCommand(new URL("./wire/client.ts", import.meta.url));
    return new WireClient(machine.spawn(program), to, port);
  }

  /** Makes a connection of its own and goes through these steps. */
  async hold(...steps: readonly Step[]): Promise<Heard> {
    const dialogue: Dialogue = { id: this.#dialogues++, to: this.to, port: this.port, steps };
    await this.process.tell(JSON.stringify(dialogue));
    const line = await this.process.line("stdout", (text) => {
      const heard: Heard = JSON.parse(text);
      return heard.id === dialogue.id;
    });
    return JSON.parse(line);
  }

  /** Sends a byte string, and returns all that comes back. */
  async exchange(text: string): Promise<string> {
    const { texts, error } = await this.hold(send(text), REST);
    if (error !== null) throw new Error(error);
    return texts.join("");
  }
}

/** The server's end. */
export class WireServer {
  private constructor(readonly process: Process) {}

  /** Starts it at every address of `machine`. */
  static async start(machine: Machine, port: number): Promise<WireServer> {
    const program = denoCommand(new URL("./wire/server.ts", import.meta.url));
    const process = machine.spawn([...program, `${port}`]);
    await process.line("stdout", (line) => line === "ready");
    return new WireServer(process);
  }

  /** From now on it treats new connections this way. */
  async behave(behaviour: Behaviour): Promise<void> {
    await this.#tell(behaviour);
  }

  /** All bytes of each connection since then, when so many have come and all have ended. */
  async received(connections: number): Promise<string[]> {
    return JSON.parse(await this.#tell({ kind: "show", connections }));
  }

  async #tell(instruction: Instruction): Promise<string> {
    const printed = this.process.stdout.length;
    await this.process.tell(JSON.stringify(instruction));
    return await this.process.line("stdout", () => true, printed);
  }
}
