/** A handle on the real `Bridges` inside a lab machine. */
import type { BridgeStatus } from "../../lib/api/services.ts";
import type { BridgesOptions } from "../../lib/bridge/bridge.ts";
import type { Opened } from "../../lib/bridge/direct.ts";
import type { Grant, GrantRequest } from "../../lib/bridge/grants.ts";
import type { Listening, Segment } from "../../lib/bridge/segment.ts";
import type { Machine } from "../lab/machine.ts";
import type { Process } from "../lab/process.ts";
import { denoCommand } from "../lab/product.ts";
import type { Answer, Call, DirectRequest, Failure } from "./bridges_program.ts";

/** What tests use unless they say otherwise. */
const OPTIONS: BridgesOptions = {
  name: "outcall0",
  subnetBlock: "10.200.0.0/16",
  dnsPort: 53,
  proxyPort: 8080,
  memoryPath: null,
};

/** The default network. */
export const DEFAULT_SEGMENT: Segment = {
  network: "outcall-default",
  bridge: "outcall0",
  subnet: "10.200.255.0/24",
  gateway: "10.200.255.1",
};

/** A second network. */
export const OTHER_SEGMENT: Segment = {
  network: "outcall-agent-net",
  bridge: "outcall1",
  subnet: "10.200.0.0/24",
  gateway: "10.200.0.1",
};

/** Both services at both gateways. */
export const ALL_LISTEN: Listening = {
  dns: [DEFAULT_SEGMENT.gateway, OTHER_SEGMENT.gateway],
  proxy: [DEFAULT_SEGMENT.gateway, OTHER_SEGMENT.gateway],
};

/** An agents' network to which a service is open, as nft writes and lists it. */
export const SERVED = /"outcall\d" \. [0-9.]+ \. [0-9.]+ \. 10\./;

/** A call that ended in an OutcallError. */
export class RemoteFailure extends Error {
  constructor(readonly failure: Failure) {
    super(failure.message);
  }
}

/** One `Bridges` in a process of its own. */
export class RemoteBridges {
  readonly #machine: Machine;
  readonly #process: Process;

  /** @param prefix Put before the command line, to run it with fewer rights. */
  constructor(
    machine: Machine,
    options: Partial<BridgesOptions> = {},
    prefix: readonly string[] = [],
  ) {
    const program = denoCommand(new URL("bridges_program.ts", import.meta.url));
    this.#machine = machine;
    this.#process = machine.spawn([
      ...prefix,
      ...program,
      JSON.stringify({ ...OPTIONS, ...options }),
    ]);
  }

  /** Ends it without warning, as kill -9 does with the daemon. */
  async kill(): Promise<void> {
    const pid = Number(await this.#process.line("stdout", () => true));
    await this.#machine.kill(pid, "KILL");
    await this.#process.ended;
  }

  up(): Promise<void> {
    return this.#call({ method: "up" });
  }
  close(): Promise<void> {
    return this.#call({ method: "close" });
  }
  repair(withTables = true): Promise<string[]> {
    return this.#call({ method: "repair", withTables });
  }
  grant(request: GrantRequest): Promise<Grant> {
    return this.#call({ method: "grant", request });
  }
  revoke(id: string): Promise<boolean> {
    return this.#call({ method: "revoke", id });
  }
  async openDirect(...requests: readonly DirectRequest[]): Promise<Opened[]> {
    const opened = await this.#call<Opened[][]>({ method: "openDirect", requests });
    return opened.flat();
  }
  reviewDirect(...hosts: readonly string[]): Promise<number> {
    return this.#call({ method: "reviewDirect", hosts });
  }
  flushGrants(): Promise<number> {
    return this.#call({ method: "flushGrants" });
  }
  open(listening: Listening): Promise<void> {
    return this.#call({ method: "open", listening });
  }
  attach(segment: Segment): Promise<void> {
    return this.#call({ method: "attach", segment });
  }
  detach(segment: Segment): Promise<void> {
    return this.#call({ method: "detach", segment });
  }
  down(...attached: readonly string[]): Promise<void> {
    return this.#call({ method: "down", attached });
  }
  status(): Promise<BridgeStatus> {
    return this.#call({ method: "status" });
  }
  segments(): Promise<Segment[]> {
    return this.#call({ method: "segments" });
  }
  nextFreeName(): Promise<string> {
    return this.#call({ method: "nextFreeName" });
  }

  /** @throws RemoteFailure */
  async #call<T>(call: Call): Promise<T> {
    await this.#process.line("stdout", () => true); // it has started
    const printed = this.#process.stdout.length;
    await this.#process.tell(JSON.stringify(call));
    const answer: Answer & { result: T } = JSON.parse(
      await this.#process.line("stdout", () => true, printed),
    );
    if ("failure" in answer) throw new RemoteFailure(answer.failure);
    return answer.result;
  }
}
