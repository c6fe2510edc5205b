/** What is open to single agents beside the services: by operators, and by DNS answers (decision D12). */
import { OutcallError } from "../errors.ts";
import { RouteNetlink } from "../linux/rtnetlink.ts";
import { hostInLog, logger } from "../log.ts";
import type { Mutex } from "../mutex.ts";
import type { DirectGrant, Opened } from "./direct.ts";
import type { Grant, GrantRequest } from "./grants.ts";
import type { KernelFirewall } from "./kernel.ts";
import type { DirectAsk } from "./opener.ts";

const log = logger("bridge");

/** The grants in force, and how they come and go. */
export class Openings {
  readonly #firewall: KernelFirewall;
  readonly #mutex: Mutex;

  /** @param mutex Held during each change of the firewall. */
  constructor(firewall: KernelFirewall, mutex: Mutex) {
    this.#firewall = firewall;
    this.#mutex = mutex;
  }

  /** Grants of operators. */
  list(): readonly Grant[] {
    return this.#firewall.grants.list(Date.now());
  }

  /** Grants that follow from DNS answers. */
  listDirect(): readonly DirectGrant[] {
    return this.#firewall.direct.list();
  }

  /** Those and the ones that have expired, whose connections go on. */
  allDirect(): readonly DirectGrant[] {
    return this.#firewall.direct.all();
  }

  /** How many of both are in force. */
  get count(): number {
    return this.list().length + this.listDirect().length;
  }

  /** Has `listener` called with the ids of grants that ended with their agents. It must not throw. */
  onEnded(listener: (ids: readonly string[]) => void): void {
    this.#firewall.onGrantsEnded(listener);
  }

  /**
   * Lets agents open connections for a time, all of them or none; in force when this resolves.
   * @throws OutcallError `grant.no_agent` (404) when no port is pinned to that address, those of
   * Grants.add, and those of nft; then nothing is granted.
   */
  grant(requests: readonly GrantRequest[]): Promise<readonly Grant[]> {
    const { grants, pinning } = this.#firewall;
    return this.#mutex.run(async () => {
      const added: Grant[] = [];
      using netlink = new RouteNetlink();
      try {
        for (const request of requests) {
          if (!pinning.agentAddresses.includes(request.agent)) {
            throw new OutcallError(404, "grant.no_agent", `no agent has address ${request.agent}`);
          }
          added.push(grants.add(request, Date.now()));
        }
        await this.#firewall.apply(netlink);
      } catch (error) {
        for (const { id } of added) grants.revoke(id);
        throw error;
      }
      for (const { agent, destination, protocol, port, ttlSecs, id } of added) {
        log.info("grant {id}: {agent} may reach {destination} {protocol}/{port} for {time}", {
          id,
          agent,
          destination: hostInLog(destination),
          protocol,
          port,
          time: ttlSecs === null ? "good" : `${ttlSecs} s`,
        });
      }
      return added;
    });
  }

  /** Opens what a DNS answer may lead to; in force when this resolves. See DirectOpener.ask. */
  openDirect(ask: DirectAsk): Promise<readonly Opened[]> {
    const { direct, pinning } = this.#firewall;
    return direct.ask(ask, () => {
      void this.#mutex.run(() => {
        direct.commit(pinning.agentAddresses);
        if (!direct.isInSync) this.#firewall.forget(); // to be repaired
        return Promise.resolve();
      });
    });
  }

  /**
   * Takes the direct grants away that `isKept` does not want kept, and their connections with them.
   * @param isKept Called at the moment of the transaction. Must not throw.
   * @returns how many were taken away, expired ones included.
   * @throws OutcallError those of nft; then it is tried again at every repair.
   */
  reviewDirect(isKept: (grant: DirectGrant) => boolean): Promise<number> {
    return this.#mutex.run(async () => {
      const revoked = this.allDirect().filter((grant) => !isKept(grant));
      await this.#revokeDirect(revoked);
      return revoked.length;
    });
  }

  /** Takes a grant away, and its connections with it; whether there was one. */
  revoke(id: string): Promise<boolean> {
    return this.#mutex.run(async () => {
      const direct = this.allDirect().filter((grant) => grant.id === id);
      if (direct.length > 0) {
        await this.#revokeDirect(direct);
        return true;
      }
      const wasThere = this.#firewall.grants.revoke(id);
      using netlink = new RouteNetlink();
      await this.#firewall.apply(netlink);
      if (wasThere) log.info("grant {id} is revoked", { id });
      return wasThere;
    });
  }

  /** Takes all grants away, and their connections with them; returns how many were in force. */
  flush(): Promise<number> {
    return this.#mutex.run(async () => {
      const count = this.#firewall.revokeAll();
      using netlink = new RouteNetlink();
      await this.#firewall.apply(netlink);
      log.info("all grants are revoked: {count}", { count });
      return count;
    });
  }

  async #revokeDirect(grants: readonly DirectGrant[]): Promise<void> {
    this.#firewall.direct.revoke(grants);
    if (this.#firewall.direct.isInSync) return;
    this.#firewall.forget();
    using netlink = new RouteNetlink();
    await this.#firewall.apply(netlink);
  }
}
