/**
 * Keeps the kernel's sets of direct grants (direct.ts) and what is known of them alike. What answers
 * ask for while a transaction of anybody's is under way goes into the next one, together.
 */
import { messageOf, OutcallError } from "../errors.ts";
import { logger } from "../log.ts";
import type { AppliedTables } from "./apply.ts";
import {
  changesOf,
  type DirectGrant,
  DirectGrants,
  type DirectTarget,
  type DirectTerms,
  type Opened,
  targetKey,
} from "./direct.ts";
import { FIREWALL_TABLE } from "./firewall.ts";

const log = logger("bridge");

/** What one answer wants opened. */
export interface DirectAsk extends DirectTerms {
  /** The agent's address. */
  readonly agent: string;
  /**
   * What the rules admit, asked at the moment of the transaction, so that no reload comes in between.
   * May throw, which fails this one alone.
   */
  readonly targets: () => readonly Omit<DirectTarget, "agent">[];
}

interface Waiting extends DirectAsk {
  readonly done: (opened: readonly Opened[]) => void;
  readonly failed: (error: unknown) => void;
}

/** The direct grants of one daemon. */
export class DirectOpener {
  readonly #grants = new DirectGrants();
  readonly #tables: AppliedTables;
  #waiting: Waiting[] = [];
  #isInSync = false;

  /** @param tables Where the sets are. */
  constructor(tables: AppliedTables) {
    this.#tables = tables;
  }

  /** Whether the kernel holds what is known here; false until the sets were filled once. */
  get isInSync(): boolean {
    return this.#isInSync;
  }

  /** Somebody else may have changed the sets. */
  distrust(): void {
    this.#isInSync = false;
  }

  /** The kernel has taken what {@linkcode render} said. */
  trust(): void {
    this.#isInSync = true;
  }

  /** See {@linkcode DirectGrants.render}. */
  render(): string {
    return this.#grants.render(FIREWALL_TABLE.family, FIREWALL_TABLE.name, Date.now());
  }

  /** Those that have not expired. */
  list(): readonly DirectGrant[] {
    return this.#grants.list(Date.now());
  }

  /** All whose connections may go on, expired ones, too. */
  all(): readonly DirectGrant[] {
    return this.#grants.all();
  }

  /**
   * Waits for the next {@linkcode commit}.
   * @param commit Called when there is none to come yet.
   * @returns what is open now; without those for which there was no room.
   * @throws OutcallError `grant.no_agent` (404), `grant.kernel` (500); or what `targets` threw.
   */
  ask(ask: DirectAsk, commit: () => void): Promise<readonly Opened[]> {
    const { promise, resolve: done, reject: failed } = Promise.withResolvers<readonly Opened[]>();
    this.#waiting.push({ ...ask, done, failed });
    if (this.#waiting.length === 1) commit();
    return promise;
  }

  /** Opens what is waited for; returns when it is in force, or was refused. Does not throw. */
  commit(agents: readonly string[]): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    const nowMs = Date.now();
    const answers: { readonly waiting: Waiting; readonly opened: readonly Opened[] }[] = [];
    for (const each of waiting) {
      try {
        answers.push({ waiting: each, opened: this.#open(each, agents, nowMs) });
      } catch (error) {
        each.failed(error);
      }
    }
    const changed = answers.flatMap(({ opened }) => opened.filter(({ isChanged }) => isChanged));
    // Each target once, or the kernel refuses the whole of it: agents choose what is asked together.
    const put = [...new Map(changed.map(({ grant }) => [targetKey(grant), grant])).values()];
    const remove = changed.flatMap(({ evicted }) =>
      evicted === null || this.#grants.has(evicted) ? [] : evicted
    );
    const failure = this.#change(put, remove, nowMs);
    for (const { waiting: { done, failed }, opened } of answers) {
      if (failure === null || opened.every(({ isChanged }) => !isChanged)) done(opened);
      else failed(failure);
    }
  }

  #open(ask: DirectAsk, agents: readonly string[], nowMs: number): readonly Opened[] {
    const { agent } = ask;
    if (!agents.includes(agent)) {
      throw new OutcallError(404, "grant.no_agent", `no agent has address ${agent}`);
    }
    return ask.targets().flatMap((target) =>
      this.#grants.open({ agent, ...target }, ask, nowMs) ?? []
    );
  }

  /** Takes grants away, and their connections with them. */
  revoke(grants: readonly DirectGrant[]): void {
    this.#change([], grants, Date.now());
  }

  /** Takes those of agents at these addresses away, which are gone. */
  dropAgents(addresses: readonly string[]): void {
    this.revoke(this.all().filter(({ agent }) => addresses.includes(agent)));
  }

  /** Null, or why the kernel did not obey: then the sets must be filled anew. */
  #change(
    put: readonly DirectGrant[],
    remove: readonly DirectGrant[],
    nowMs: number,
  ): OutcallError | null {
    this.#grants.forget(remove);
    if (put.length + remove.length === 0) return null;
    try {
      this.#tables.changeElements(FIREWALL_TABLE.name, changesOf(put, remove, nowMs));
      return null;
    } catch (cause) {
      this.#grants.forget(put);
      this.distrust();
      const reason = messageOf(cause);
      log.error("the kernel does not take grants of DNS answers: {reason}", { reason });
      return new OutcallError(500, "grant.kernel", `the kernel refused a grant: ${reason}`, {
        cause,
        hint: "look at the table: nft list table inet outcall",
      });
    }
  }
}
