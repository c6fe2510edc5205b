/**
 * DNS by UDP: sockets that a worker serves, and what the worker hands over.
 *
 * While there is no worker nothing is answered: its sockets stay bound, and packets wait in them.
 */
import type { Agent, AgentDirectory } from "../agents.ts";
import { messageOf } from "../errors.ts";
import { addressOf, UdpSocket } from "../linux/udp.ts";
import { logger } from "../log.ts";
import type { Rate } from "../rate.ts";
import type { PolicyData } from "../rules/policy.ts";
import type { PacketHandler } from "./filter.ts";
import type { Listener } from "./listener.ts";
import type { Question } from "./message.ts";
import type { Resolution } from "./resolver.ts";
import { WorkerHandle } from "./worker/handle.ts";
import { type Activity, type HandedOver, LEASE_MS } from "./worker/protocol.ts";

const log = logger("dns");

/** Pause before a new worker: one that crashes at once must not keep the daemon from its work. */
const RESTART_MS = 250;

/** What the UDP side works with. */
export interface UdpParts {
  /** Queries that each source may send. */
  readonly rate: Rate;
  readonly agents: AgentDirectory;
  /** Answers what the worker hands over; it was within the rate. */
  readonly handler: PacketHandler;
  /** Receives what the worker decided. Must not throw. */
  readonly onActivity: (activity: Activity) => void;
}

/** A socket, and the replies that are still to be sent from it. */
interface Served {
  readonly socket: UdpSocket;
  readonly replies: Set<Promise<void>>;
  /** Nobody new is served: not by a worker's successor either. */
  isDraining: boolean;
}

/** The UDP half of the DNS server. */
export class UdpServer {
  readonly #parts: UdpParts;
  readonly #served = new Map<number, Served>();
  readonly #leasedAtMs = new Map<string, number>();
  #worker: WorkerHandle | null = null;
  #policy: PolicyData | null = null;
  #restart: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;
  #restarts = 0;

  constructor(parts: UdpParts) {
    this.#parts = parts;
  }

  /** How often the worker failed and was started again. */
  get restarts(): number {
    return this.#restarts;
  }

  /** Whether queries are answered. */
  get isServing(): boolean {
    return this.#worker !== null;
  }

  #start(): void {
    if (this.#stopped || this.#worker !== null) return;
    const worker = new WorkerHandle(this.#parts.rate, {
      onQueries: (fd, queries) => this.#answer(fd, queries),
      onActivity: this.#parts.onActivity,
      onRenewal: (addresses) => this.#renew(addresses),
      onCrash: (why) => this.#crashed(why),
    });
    this.#worker = worker;
    this.#leasedAtMs.clear();
    if (this.#policy !== null) void this.#sendPolicy(worker, this.#policy);
    for (const [fd, { isDraining }] of this.#served) {
      if (!isDraining) worker.tell({ kind: "open", fd });
    }
  }

  #crashed(why: string): void {
    log.error("the UDP worker failed: {why}; it is started again", { why });
    this.#worker = null;
    this.#restarts++;
    this.#restartLater();
  }

  #restartLater(): void {
    this.#restart = setTimeout(() => {
      try {
        this.#start();
      } catch (thrown) {
        log.error("the UDP worker cannot be started: {error}", { error: messageOf(thrown) });
        this.#restartLater();
      }
    }, RESTART_MS);
  }

  /**
   * Serves `address`:`port` from now on.
   * @throws SystemError when it cannot be bound.
   */
  listen(address: string, port: number): Listener {
    const socket = UdpSocket.bind(address, port);
    const served: Served = { socket, replies: new Set(), isDraining: false };
    this.#served.set(socket.fd, served);
    if (this.#worker === null) this.#start();
    else this.#worker.tell({ kind: "open", fd: socket.fd });
    const release = async (): Promise<void> => {
      await this.#worker?.ask({ kind: "close", fd: socket.fd });
    };
    return {
      drain: async () => {
        served.isDraining = true;
        await release();
        await Promise.allSettled(served.replies);
      },
      close: async () => {
        this.#served.delete(socket.fd);
        await release();
        socket.close();
      },
    };
  }

  #answer(fd: number, queries: readonly HandedOver[]): void {
    const served = this.#served.get(fd);
    if (served === undefined) return;
    for (const { from, packet } of queries) {
      const source = { address: addressOf(from), transport: "udp" } as const;
      const handled = this.#parts.handler.handle(packet, source);
      if (handled instanceof Promise) {
        const sent = handled.then((reply) => this.#send(fd, from, reply));
        served.replies.add(sent);
        void sent.finally(() => served.replies.delete(sent));
      } else {
        this.#send(fd, from, handled);
      }
    }
  }

  #send(fd: number, to: Uint8Array<ArrayBuffer>, reply: Uint8Array | null): void {
    // By now the socket may be closed, and its number another file's.
    const served = this.#served.get(fd);
    if (reply === null || served === undefined) return;
    try {
      served.socket.send(to, new Uint8Array(reply));
    } catch (thrown) {
      // The agent is gone, or its network is: its own loss.
      log.debug("no reply by UDP: {error}", { error: messageOf(thrown) });
    }
  }

  /**
   * Judges by `policy` from this moment on. Settles when the worker does so by itself; until then it
   * hands everything over.
   */
  async usePolicy(policy: PolicyData): Promise<void> {
    this.#policy = policy;
    if (this.#worker !== null) await this.#sendPolicy(this.#worker, policy);
  }

  #sendPolicy(worker: WorkerHandle, policy: PolicyData): Promise<void> {
    return worker.ask({ kind: "policy", epoch: worker.nextEpoch(), policy });
  }

  /** Who is where, or what upstreams said, must be asked for again from this moment on. */
  forget(what: "agents" | "answers"): void {
    if (what === "agents") this.#leasedAtMs.clear();
    if (this.#worker === null) return;
    this.#worker.tell({ kind: "forget", epoch: this.#worker.nextEpoch(), what });
  }

  /** The directory; each agent that it knows at once is made known to the worker. */
  get agents(): AgentDirectory {
    return { identify: (address) => this.#identify(address) };
  }

  #identify(address: string): ReturnType<AgentDirectory["identify"]> {
    const agent = this.#parts.agents.identify(address);
    // What had to be asked for may not be remembered here either.
    if (agent !== null && !(agent instanceof Promise)) this.#lease(agent);
    return agent;
  }

  #renew(addresses: readonly string[]): void {
    for (const address of addresses) {
      try {
        // One that cannot be told at once has no lease; the packets ask for it.
        void Promise.resolve(this.#identify(address)).catch(() => {});
      } catch (thrown) {
        log.debug("no lease for {address}: {error}", { address, error: messageOf(thrown) });
      }
    }
  }

  #lease(agent: Agent): void {
    const now = performance.now();
    const leasedAtMs = this.#leasedAtMs.get(agent.address) ?? Number.NEGATIVE_INFINITY;
    // Packets that were handed over meanwhile need no lease of their own.
    if (now - leasedAtMs < LEASE_MS / 2) return;
    this.#leasedAtMs.set(agent.address, now);
    this.#worker?.tell({ kind: "agent", agent });
  }

  /** Lets the worker answer `question` by itself. */
  remember(question: Question, dnssecOk: boolean, { answer, ageSecs }: Resolution): void {
    this.#worker?.tell({ kind: "answer", question, dnssecOk, answer, ageSecs });
  }

  /** Settles when everything that was decided until now has been handed on. Never rejects. */
  async settle(): Promise<void> {
    await this.#worker?.ask({ kind: "report" });
  }

  /** Ends the worker. The sockets are closed by whoever listens. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#restart);
    await this.#worker?.end();
    this.#worker = null;
  }
}
