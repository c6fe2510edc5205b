/** Grants as operators speak of them: by agent and host name (S009, decisions D12 and D15). */
import type { AgentDirectory } from "./agents.ts";
import {
  type ActiveGrant,
  GRANT_DEFAULT_SECS,
  type GrantAllowRequest,
  type GrantService,
} from "./api/grants.ts";
import type { Bridges } from "./bridge/bridge.ts";
import type { DirectGrant } from "./bridge/direct.ts";
import type { Grant, GrantRequest } from "./bridge/grants.ts";
import { messageOf, OutcallError } from "./errors.ts";
import { hostInLog, logger } from "./log.ts";
import { Hostname } from "./net/host.ts";
import type { Ip } from "./net/ip.ts";
import { restrictedRange } from "./net/restricted.ts";
import type { GrantStore, StoredGrant } from "./store/grants.ts";

const log = logger("network");

/** What it works with. */
export interface OperatorGrantsParts {
  readonly bridges: Bridges;
  readonly agents: AgentDirectory;
  readonly store: GrantStore;
  /** All IPv4 addresses of a name. Rejects when there are none. */
  readonly resolve: (hostname: Hostname) => Promise<readonly Ip[]>;
}

/** The grants of one daemon. They live in memory and in the kernel; persistent ones in the database, too. */
export class OperatorGrants implements GrantService {
  readonly #parts: OperatorGrantsParts;

  constructor(parts: OperatorGrantsParts) {
    this.#parts = parts;
    parts.bridges.openings.onEnded((ids) => this.#forget(ids));
  }

  /** Those in force: operators', then those of DNS answers, each oldest first. */
  list(): Promise<readonly ActiveGrant[]> {
    const { bridges } = this.#parts;
    const direct = bridges.openings.listDirect().toSorted((a, b) => a.grantedAtMs - b.grantedAtMs);
    return Promise.all([
      ...bridges.openings.list().map((grant) => this.#describe(grant)),
      ...direct.map((grant) => this.#describeDirect(grant)),
    ]);
  }

  /**
   * See {@linkcode GrantService.allow}.
   * @throws OutcallError those of Openings.grant, `grant.no_agent`, `grant.ambiguous`,
   * `grant.not_a_container`, `grant.unresolved`, `grant.restricted`.
   */
  async allow(request: GrantAllowRequest): Promise<readonly [ActiveGrant, ...ActiveGrant[]]> {
    const { bridges, store } = this.#parts;
    const { protocol, port, persistent } = request;
    const agent = await this.#addressOf(request);
    const containerId = persistent ? await this.#containerAt(agent) : null;
    const { destinations, host } = await this.#destinationsOf(request.destination);
    const ttlSecs = request.expires_in_secs ?? (persistent ? null : GRANT_DEFAULT_SECS);
    const granted = await bridges.openings.grant(
      destinations.map((destination) => ({ agent, destination, protocol, port, ttlSecs, host })),
    );
    for (const grant of granted) {
      if (containerId === null) store.remove([grant.id]);
      else store.put(storedForm(grant, containerId));
    }
    const [first, ...others] = await Promise.all(granted.map((grant) => this.#describe(grant)));
    if (first === undefined) throw new RangeError("nothing was to be granted");
    return [first, ...others];
  }

  /** @throws OutcallError `grant.unknown` */
  async revoke(id: string): Promise<void> {
    this.#parts.store.remove([id]);
    if (await this.#parts.bridges.openings.revoke(id)) return;
    throw new OutcallError(404, "grant.unknown", `there is no grant '${id}'`, {
      hint: "outcall grants list",
    });
  }

  /** Revokes all; returns how many were in force. */
  flush(): Promise<number> {
    this.#parts.store.clear();
    return this.#parts.bridges.openings.flush();
  }

  /**
   * Opens again what was granted persistently, where the same container still has the same address;
   * forgets the others. To be called once, when it is known who is where.
   */
  async restore(): Promise<void> {
    const nowMs = Date.now();
    for (const stored of this.#parts.store.list(nowMs)) {
      // Its id is a new one, so that it stands in the database twice for no longer than needed.
      const reason = await this.#restoreOne(stored, nowMs);
      this.#parts.store.remove([stored.id]);
      if (reason === null) continue;
      log.warn("the grant of {address} for {destination} port {port} is not restored: {reason}", {
        address: stored.address,
        destination: hostInLog(stored.destination),
        port: stored.port,
        reason,
      });
    }
  }

  /** Null, or why not. */
  async #restoreOne(stored: StoredGrant, nowMs: number): Promise<string | null> {
    const { bridges, store, agents } = this.#parts;
    const { container_id: containerId, address, expires_ms: expiresMs } = stored;
    try {
      if ((await agents.identify(address))?.containerId !== containerId) {
        return "its container does not have that address any more";
      }
      const restored = await bridges.openings.grant([requestOf(stored, expiresMs, nowMs)]);
      for (const grant of restored) store.put(storedForm(grant, containerId));
      return null;
    } catch (error) {
      return messageOf(error);
    }
  }

  /** They have ended with their agents. */
  #forget(ids: readonly string[]): void {
    try {
      this.#parts.store.remove(ids);
    } catch (error) {
      log.error("ended grants stay in the database: {reason}", { reason: messageOf(error) });
    }
  }

  /** The addresses that are meant, and their name where one was given. */
  async #destinationsOf(
    text: string,
  ): Promise<{ readonly destinations: readonly string[]; readonly host: string | null }> {
    const hostname = /[a-z]/i.test(text) && !text.includes(":") ? Hostname.parse(text) : null;
    if (hostname === null) return { destinations: [text], host: null };
    const host = hostname.name;
    const addresses = await this.#resolve(hostname);
    const open = addresses.filter((address) => restrictedRange(address) === null);
    if (open.length === 0) {
      throw new OutcallError(
        422,
        "grant.restricted",
        `${host} leads to ${addresses.join(", ")}, which is not public`,
        { hint: "grant the address itself if that is meant" },
      );
    }
    return { destinations: [...new Set(open.map(({ text }) => text))], host };
  }

  async #resolve(hostname: Hostname): Promise<readonly Ip[]> {
    try {
      return await this.#parts.resolve(hostname);
    } catch (cause) {
      throw new OutcallError(422, "grant.unresolved", messageOf(cause), {
        cause,
        hint: "outcall dns status",
      });
    }
  }

  /** The one attached agent that is meant; a name and an address must mean the same one. */
  async #addressOf({ container, src_ip: address }: GrantAllowRequest): Promise<string> {
    const addresses = this.#parts.bridges.agentAddresses();
    if (container === undefined && address !== undefined) return address;
    const names = await Promise.all(addresses.map((each) => this.#nameAt(each)));
    const named = addresses.filter((each, i) =>
      names[i] === container && (address === undefined || each === address)
    );
    const [only, second] = named;
    if (container === undefined || container === "" || only === undefined) {
      throw new OutcallError(404, "grant.no_agent", `no agent '${container ?? ""}' is attached`, {
        hint: "give the name of a running agent, or its address",
      });
    }
    if (second === undefined) return only;
    throw new OutcallError(
      409,
      "grant.ambiguous",
      `several agents are called '${container}': ${named.join(", ")}`,
      { hint: "give the address of the one that is meant" },
    );
  }

  /** What tells that it is the same agent after a restart. */
  async #containerAt(address: string): Promise<string> {
    const containerId = (await this.#parts.agents.identify(address))?.containerId;
    if (containerId !== undefined) return containerId;
    throw new OutcallError(
      422,
      "grant.not_a_container",
      `${address} is no container that Docker knows: nothing would tell it from another one later`,
      { hint: "leave out --persistent" },
    );
  }

  async #nameAt(address: string): Promise<string> {
    return (await this.#parts.agents.identify(address))?.name ?? "";
  }

  async #describe(grant: Grant): Promise<ActiveGrant> {
    return {
      ...await this.#common(grant),
      persistent: this.#parts.store.has(grant.id),
      source: "operator",
      hosts: grant.host === null ? [] : [grant.host],
    };
  }

  async #describeDirect(grant: DirectGrant): Promise<ActiveGrant> {
    const common = await this.#common(grant);
    return { ...common, persistent: false, source: "dns", hosts: grant.hosts };
  }

  async #common(
    { id, agent, destination, protocol, port, grantedAtMs, expiresAtMs }: Omit<
      Grant,
      "ttlSecs" | "host"
    >,
  ): Promise<Omit<ActiveGrant, "persistent" | "source" | "hosts">> {
    const leftSecs = Math.max(0, Math.ceil((expiresAtMs - Date.now()) / 1000));
    return {
      id,
      container: await this.#nameAt(agent),
      src_ip: agent,
      destination,
      protocol,
      port,
      inserted_at: new Date(grantedAtMs).toISOString(),
      expires_in_secs: leftSecs === Infinity ? null : leftSecs,
    };
  }
}

function storedForm(grant: Grant, containerId: string): StoredGrant {
  const { id, agent, destination, protocol, port, host, expiresAtMs } = grant;
  return {
    id,
    container_id: containerId,
    address: agent,
    destination,
    protocol,
    port,
    host,
    expires_ms: expiresAtMs === Infinity ? null : expiresAtMs,
  };
}

function requestOf(
  { address: agent, destination, protocol, port, host }: StoredGrant,
  expiresMs: number | null,
  nowMs: number,
): GrantRequest {
  const ttlSecs = expiresMs === null ? null : Math.max(1, Math.floor((expiresMs - nowMs) / 1000));
  return { agent, destination, protocol, port, host, ttlSecs };
}
