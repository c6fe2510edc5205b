/**
 * The proxy's thread: owns every connection of clients and to upstreams, judges by its own copy of
 * the policy, and asks the main isolate only who is where.
 */
/// <reference lib="deno.worker" />
import type { Agent } from "../../agents.ts";
import { LookupError } from "../../dns/lookup.ts";
import { messageOf } from "../../errors.ts";
import { BEAT_MS, Beats } from "../../heartbeat.ts";
import { setThreadUrgency, usualUrgency } from "../../linux/priority.ts";
import { WakeCounter } from "../../linux/wake.ts";
import { forwardLogs } from "../../log.ts";
import type { Host } from "../../net/host.ts";
import { Ip } from "../../net/ip.ts";
import type { Judge } from "../../policy.ts";
import { decide } from "../../rules/decide.ts";
import { buildPolicy, emptyPolicy, type Policy } from "../../rules/policy.ts";
import { RequestReads } from "../../rules/reads.ts";
import type { RuleFailure } from "../../rules/types.ts";
import { Connections } from "../connections.ts";
import type { Destination } from "../destination.ts";
import { EventLoop } from "../loop.ts";
import { Tunnels } from "../tunnels.ts";
import { Journal } from "./journal.ts";
import { Leases } from "./leases.ts";
import { Listener } from "./listener.ts";
import {
  type Dial,
  type FromThread,
  type Located,
  SharedCounters,
  SharedDescriptors,
  type Start,
  type ToThread,
} from "./protocol.ts";

declare const self: DedicatedWorkerGlobalScope;

/** Time between reports: nobody who looks a decision up by its id is quicker. */
const REPORT_EVERY_MS = 100;

/** Decisions that do not wait for the next report to be due: it bounds memory. */
const MAX_DECISIONS = 4_096;

function post(message: FromThread): void {
  self.postMessage(message);
}

function destinationsOf(located: Located): Destination[] {
  if (located.kind === "failed") {
    throw new LookupError(located.failure, located.message, located.refusal);
  }
  if (located.kind === "defect") throw new TypeError(located.message);
  return located.addresses.map(({ address, isLocal }) => {
    const ip = Ip.parse(address);
    if (ip === null) throw new TypeError(`${address} is no address`);
    return { ip, isLocal };
  });
}

/** Docker may know in a moment who it is that is not known now. */
function isKnown(agent: Agent | null): boolean {
  return agent !== null && agent.name !== "";
}

/** The thread's part of the proxy. */
class Thread {
  readonly #loop: EventLoop;
  readonly #beats: Beats;
  readonly #wake: WakeCounter;
  readonly #connections: Connections;
  readonly #tunnels: Tunnels;
  readonly #journal = new Journal();
  readonly #listeners = new Map<number, Listener>();
  readonly #agents = new Leases<Agent | null>();
  readonly #places = new Leases<readonly Destination[]>();
  readonly #asked = new Map<number, (answer: ToThread) => void>();
  #lastQuestion = 0;
  #policy: Policy = emptyPolicy(0);
  #reads = new RequestReads([]);
  #failures: RuleFailure[] = [];
  #dials: Dial[] = [];
  #hasNews = false;
  #reportedAtMs = Number.NEGATIVE_INFINITY;
  #unread = 0;
  /** Of the message that ends the thread, when all connections have. */
  #lastTicket: number | null = null;

  constructor({ wakeFd, counters, descriptors, beats, limits }: Start) {
    this.#beats = new Beats(beats);
    this.#loop = new EventLoop(new SharedDescriptors(descriptors));
    this.#wake = new WakeCounter(wakeFd);
    this.#loop.watch(wakeFd, { ready: () => this.#unread += this.#wake.take() });
    this.#tunnels = new Tunnels(this.#loop, limits.idleMs, () => this.#news());
    this.#connections = new Connections({
      limits,
      loop: this.#loop,
      tunnels: this.#tunnels,
      counters: new SharedCounters(counters),
      judge: this.#judge,
      reads: () => this.#reads,
      identify: (address) => this.#identify(address),
      locate: (host, agent) => this.#locate(host, agent),
      onDial: (durationMs, isConnected) => this.#dials.push({ durationMs, isConnected }),
      record: (decision) => {
        this.#news();
        return this.#journal.record(decision);
      },
      grow: (decision, changes) => {
        this.#news();
        this.#journal.grow(decision, changes);
      },
    });
  }

  readonly #judge: Judge = (layer, facts) => {
    const verdict = decide(this.#policy, layer, facts);
    if (verdict.failures !== undefined) {
      this.#failures.push(...verdict.failures);
      this.#news();
    }
    return { verdict, generation: this.#policy.generation };
  };

  #identify(address: string): Agent | null | Promise<Agent | null> {
    return this.#agents.get(address, async () => {
      const answer = await this.#ask((question) => ({ kind: "identify", question, address }));
      return answer.kind === "identified" ? answer.agent : null;
    }, isKnown);
  }

  #locate(
    host: Host,
    agent: Agent,
  ): readonly Destination[] | Promise<readonly Destination[]> {
    const text = String(host);
    return this.#places.get(`${agent.address} ${agent.name} ${text}`, async () => {
      const answer = await this.#ask((question) => ({
        ...{ kind: "locate", question, host: text, agent },
      }));
      if (answer.kind !== "located") throw new TypeError(`answered by ${answer.kind}`);
      return destinationsOf(answer.located);
    });
  }

  #ask(message: (question: number) => FromThread): Promise<ToThread> {
    const question = ++this.#lastQuestion;
    return new Promise((resolve) => {
      this.#asked.set(question, resolve);
      post(message(question));
    });
  }

  /** Serves until it is told to stop; whatever happens, no connection is left open. */
  async run(): Promise<void> {
    try {
      while (this.#lastTicket === null) {
        this.#beats.beat();
        this.#loop.wait(BEAT_MS);
        for (; this.#unread > 0; this.#unread--) this.#read(await nextMessage());
        await this.#loop.goOn();
        this.#report();
      }
    } finally {
      this.#connections.close();
      this.#tunnels.close();
      this.#loop.end();
    }
    await this.#loop.goOn(); // tunnels that were ended just now tell their use
    this.#done(this.#lastTicket);
  }

  #read(message: ToThread): void {
    switch (message.kind) {
      case "open":
        this.#listeners.set(
          message.fd,
          new Listener(this.#loop, message.fd, (source, socket) => {
            void this.#connections.serve(message.gateway, source, socket);
          }),
        );
        return;
      case "close":
        this.#listeners.get(message.fd)?.close();
        this.#listeners.delete(message.fd);
        this.#connections.leave(message.gateway);
        return this.#done(message.ticket);
      case "policy":
        this.#policy = buildPolicy(message.policy);
        this.#reads = new RequestReads(message.policy.rules.map(({ expr }) => expr));
        this.#places.clear();
        return this.#done(message.ticket, this.#connections.rejudge());
      case "agents":
        this.#agents.clear();
        void this.#connections.reidentify().then(() => this.#done(message.ticket));
        return;
      case "report":
        return this.#done(message.ticket);
      case "stop":
        void this.#connections.stop(message.drainMs).then(() => {
          this.#lastTicket = message.ticket;
          this.#loop.soon(() => {});
        });
        return;
      case "identified":
      case "located":
        this.#asked.get(message.question)?.(message);
        this.#asked.delete(message.question);
        return;
      default:
        throw new TypeError("a message that nobody knows");
    }
  }

  /** Answers, behind everything that was decided until now. */
  #done(ticket: number, count = 0): void {
    this.#reportNow();
    post({ kind: "done", ticket, count });
  }

  /** There is something to report, now or as soon as it is due. */
  #news(): void {
    if (this.#hasNews) return;
    this.#hasNews = true;
    // The thread may sleep by then.
    this.#loop.timers.after(REPORT_EVERY_MS, () => {});
  }

  #report(): void {
    if (!this.#hasNews) return;
    const isDue = performance.now() - this.#reportedAtMs >= REPORT_EVERY_MS ||
      this.#journal.size >= MAX_DECISIONS;
    if (isDue) this.#reportNow();
  }

  #reportNow(): void {
    this.#hasNews = false;
    this.#reportedAtMs = performance.now();
    const [failures, dials] = [this.#failures, this.#dials];
    this.#failures = [];
    this.#dials = [];
    const tunnels = this.#connections.tunnels();
    const journal = this.#journal.take();
    post({ kind: "report", report: { journal, dials, failures, tunnels } });
  }
}

const inbox: ToThread[] = [];
let arrived = Promise.withResolvers<void>();

/** The next message; each was posted before its wake-up, so it comes without further delay. */
async function nextMessage(): Promise<ToThread> {
  for (;;) {
    const message = inbox.shift();
    if (message !== undefined) return message;
    await arrived.promise;
    arrived = Promise.withResolvers();
  }
}

self.onmessage = (first: MessageEvent<Start>): void => {
  self.onmessage = ({ data }: MessageEvent<ToThread>): void => {
    inbox.push(data);
    arrived.resolve();
  };
  void forwardLogs(first.data.logs, (record) => post({ kind: "log", record }))
    .then(() => {
      setThreadUrgency(usualUrgency());
      return new Thread(first.data).run();
    })
    .catch((thrown: unknown) => post({ kind: "failed", why: messageOf(thrown) }))
    .finally(() => self.close());
};
