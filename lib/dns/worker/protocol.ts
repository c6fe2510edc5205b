/** What the main isolate and the UDP worker tell each other. */
import type { Agent } from "../../agents.ts";
import type { Decision, NewDecision } from "../../decision.ts";
import type { Rate } from "../../rate.ts";
import type { PolicyData } from "../../rules/policy.ts";
import type { Answer } from "../answer.ts";
import type { Question } from "../message.ts";

/** From the main isolate. Each message is followed by one wake-up of {@linkcode Start.wakeFd}. */
export type ToWorker =
  /** Serve this socket, too. */
  | { readonly kind: "open"; readonly fd: number }
  /** Let go of this socket; answered by `done`. */
  | { readonly kind: "close"; readonly ticket: number; readonly fd: number }
  /** Judge by this policy from now on; answered by `done`. */
  | {
    readonly kind: "policy";
    readonly ticket: number;
    readonly epoch: number;
    readonly policy: PolicyData;
  }
  /** Forget this. */
  | { readonly kind: "forget"; readonly epoch: number; readonly what: "agents" | "answers" }
  /** This agent is at its address, for {@linkcode LEASE_MS}. */
  | { readonly kind: "agent"; readonly agent: Agent }
  /** An upstream's answer, stored `ageSecs` ago. */
  | {
    readonly kind: "answer";
    readonly dnssecOk: boolean;
    readonly question: Question;
    readonly answer: Answer;
    readonly ageSecs: number;
  }
  /** Report what has been decided until now; answered by `done`. */
  | { readonly kind: "report"; readonly ticket: number }
  /** Report what is left and end; answered by `done`. */
  | { readonly kind: "end"; readonly ticket: number };

/** A packet that the worker cannot answer by itself. */
export interface HandedOver {
  /** Source as a struct sockaddr_in. */
  readonly from: Uint8Array<ArrayBuffer>;
  readonly packet: Uint8Array<ArrayBuffer>;
}

/** What happened since the last report. */
export interface Activity {
  readonly decisions: readonly Decision[];
  /** Packets dropped without a decision of their own. */
  readonly dropped: number;
  /** Cache keys that were answered from, each once. */
  readonly hits: readonly string[];
}

/** {@linkcode Activity} as it crosses over: see `journal.ts`. */
export interface Report extends Omit<Activity, "decisions"> {
  /** Outlines that decisions refer to from this report on, by rising number. */
  readonly outlines: readonly { readonly number: number; readonly decision: NewDecision }[];
  /** The outline of each decision; how many attempts it stands for; its time; its id. */
  readonly rows: Uint32Array;
  readonly counts: Uint32Array;
  readonly timesMs: Float64Array;
  readonly ids: readonly string[];
  /** Outlines below this number are referred to for the last time. */
  readonly firstOutline: number;
}

/** From the worker. */
export type FromWorker =
  | { readonly kind: "done"; readonly ticket: number }
  | { readonly kind: "queries"; readonly fd: number; readonly queries: readonly HandedOver[] }
  | { readonly kind: "report"; readonly report: Report }
  /** Agents at these addresses ask, and their leases end soon. */
  | { readonly kind: "renew"; readonly addresses: readonly string[] }
  /** The last message: the worker cannot go on. */
  | { readonly kind: "failed"; readonly why: string };

/** The first message to the worker. */
export interface Start {
  readonly wakeFd: number;
  readonly shared: SharedArrayBuffer;
  readonly beats: SharedArrayBuffer;
  /** Of each source. */
  readonly rate: Rate;
}

/**
 * How long the worker may take an agent to be at its address without asking. The main isolate says
 * so at once when something changed; this is for what changes unseen.
 */
export const LEASE_MS = 1000;

/** Reports of activity that the main isolate has not read yet: above it the next one waits. */
export const MAX_UNREAD_REPORTS = 8;

const EPOCH = 0;
const TAKEN_PACKETS = 1;
const UNREAD_REPORTS = 2;
const CELLS = 3;

/**
 * Three numbers that both isolates see at once.
 *
 * The epoch rises with every change of the policy, of who is where, and with every flush of the cache.
 * The worker knows nothing of a change before it read the message about it; until then the epoch
 * tells it that what it knows is outdated, and it hands every packet over.
 */
export class Shared {
  readonly #cells: Int32Array<SharedArrayBuffer>;

  constructor(
    readonly buffer: SharedArrayBuffer = new SharedArrayBuffer(
      CELLS * Int32Array.BYTES_PER_ELEMENT,
    ),
  ) {
    this.#cells = new Int32Array(buffer);
  }

  get epoch(): number {
    return Atomics.load(this.#cells, EPOCH);
  }

  /** Begins a new epoch; returns it. */
  nextEpoch(): number {
    return Atomics.add(this.#cells, EPOCH, 1) + 1;
  }

  /** How many of the packets handed over the main isolate has taken; 32 bits, which wrap around. */
  get takenPackets(): number {
    return Atomics.load(this.#cells, TAKEN_PACKETS);
  }

  addTakenPackets(count: number): void {
    Atomics.add(this.#cells, TAKEN_PACKETS, count);
  }

  get unreadReports(): number {
    return Atomics.load(this.#cells, UNREAD_REPORTS);
  }

  addUnreadReports(count: number): void {
    Atomics.add(this.#cells, UNREAD_REPORTS, count);
  }
}
