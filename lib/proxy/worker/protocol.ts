/** What the main isolate and the proxy's thread tell each other. */
import type { Agent } from "../../agents.ts";
import type { AgentTunnels } from "../../api/services.ts";
import type { LookupFailure, LookupRefusal } from "../../dns/lookup.ts";
import type { RemoteLogRecord, threadLogOptions } from "../../log.ts";
import type { PolicyData } from "../../rules/policy.ts";
import type { RuleFailure } from "../../rules/types.ts";
import type { ProxyCounters } from "../connections.ts";
import type { ProxyLimits } from "../context.ts";
import type { OwnedDescriptors } from "../loop.ts";

/** The first message to the thread. */
export interface Start {
  /** Descriptor of the counter that wakes the thread; one is added for each message after this one. */
  readonly wakeFd: number;
  readonly counters: SharedArrayBuffer;
  readonly descriptors: SharedArrayBuffer;
  readonly beats: SharedArrayBuffer;
  readonly limits: ProxyLimits;
  readonly logs: ReturnType<typeof threadLogOptions>;
}

/** Where a host is, or why that cannot be told. */
export type Located =
  | { readonly kind: "found"; readonly addresses: readonly LocatedAddress[] }
  /** A {@linkcode LookupError}. */
  | {
    readonly kind: "failed";
    readonly failure: LookupFailure;
    readonly message: string;
    readonly refusal: LookupRefusal | null;
  }
  /** A defect of ours. */
  | { readonly kind: "defect"; readonly message: string };

/** One address of a host: its canonical text, and whether it is the host's own or an agent's. */
export interface LocatedAddress {
  readonly address: string;
  readonly isLocal: boolean;
}

/** To the thread. Whatever has a ticket is answered by `done`, when it was acted on. */
export type ToThread =
  /** Serve this listening socket, too; it stays the sender's. */
  | { readonly kind: "open"; readonly fd: number; readonly gateway: string }
  /** Let go of this socket, and end the connections that came by it. */
  | {
    readonly kind: "close";
    readonly ticket: number;
    readonly fd: number;
    readonly gateway: string;
  }
  /** Judge by this policy from now on, and what is alive anew; answered with how much was cut. */
  | { readonly kind: "policy"; readonly ticket: number; readonly policy: PolicyData }
  /** Agents came or went: ask again who is where. */
  | { readonly kind: "agents"; readonly ticket: number }
  /** Answers {@linkcode FromThread} `identify`. */
  | { readonly kind: "identified"; readonly question: number; readonly agent: Agent | null }
  /** Answers {@linkcode FromThread} `locate`. */
  | { readonly kind: "located"; readonly question: number; readonly located: Located }
  /** Report what was not reported yet. */
  | { readonly kind: "report"; readonly ticket: number }
  /** Let busy connections end for so long, and report what is left. May come again, with less time. */
  | { readonly kind: "stop"; readonly ticket: number; readonly drainMs: number };

/** One try to connect to a destination. */
export interface Dial {
  readonly durationMs: number;
  readonly isConnected: boolean;
}

/** What happened since the last report. */
export interface Report {
  /** See `readJournal`. */
  readonly journal: string;
  readonly dials: readonly Dial[];
  /** Rules that failed while being evaluated. */
  readonly failures: readonly RuleFailure[];
  /** The tunnels of now. */
  readonly tunnels: readonly AgentTunnels[];
}

/** From the thread. */
export type FromThread =
  | { readonly kind: "done"; readonly ticket: number; readonly count: number }
  | { readonly kind: "identify"; readonly question: number; readonly address: string }
  /** `host` as canonical text: a name or an address. */
  | {
    readonly kind: "locate";
    readonly question: number;
    readonly host: string;
    readonly agent: Agent;
  }
  | { readonly kind: "report"; readonly report: Report }
  | { readonly kind: "log"; readonly record: RemoteLogRecord }
  /** The last message: the thread cannot go on, and uses nothing any more. */
  | { readonly kind: "failed"; readonly why: string };

/** Counters that both isolates see at once. */
export class SharedCounters implements ProxyCounters {
  readonly #cells: Int32Array<SharedArrayBuffer>;

  constructor(
    readonly buffer: SharedArrayBuffer = new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT),
  ) {
    this.#cells = new Int32Array(buffer);
  }

  get connections(): number {
    return Atomics.load(this.#cells, 0);
  }

  set connections(count: number) {
    Atomics.store(this.#cells, 0, count);
  }

  get requests(): number {
    return Atomics.load(this.#cells, 1);
  }

  set requests(count: number) {
    Atomics.store(this.#cells, 1, count);
  }

  get blocked(): number {
    return Atomics.load(this.#cells, 2);
  }

  set blocked(count: number) {
    Atomics.store(this.#cells, 2, count);
  }
}

/** Far beyond what a process may open by default; a page of memory is used when it is written to. */
const MAX_DESCRIPTORS = 1024 * 1024;

/**
 * The descriptors of the thread's connections. Nothing closes them when a thread ends without its
 * own doing, so that the main isolate must know them: no connection outlives its judge.
 */
export class SharedDescriptors implements OwnedDescriptors {
  readonly #cells: Uint8Array<SharedArrayBuffer>;

  constructor(readonly buffer: SharedArrayBuffer = new SharedArrayBuffer(MAX_DESCRIPTORS)) {
    this.#cells = new Uint8Array(buffer);
  }

  add(fd: number): void {
    if (fd >= this.#cells.length) throw new RangeError(`descriptor ${fd} is too high`);
    Atomics.store(this.#cells, fd, 1);
  }

  delete(fd: number): void {
    if (fd < this.#cells.length) Atomics.store(this.#cells, fd, 0);
  }

  /** Takes over all of them. */
  takeAll(): number[] {
    const found: number[] = [];
    for (let fd = this.#cells.indexOf(1); fd >= 0; fd = this.#cells.indexOf(1, fd + 1)) {
      found.push(fd);
      this.delete(fd);
    }
    return found;
  }
}
