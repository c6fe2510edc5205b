/** Grants as operators speak of them: by agent name or address (S009, decision D12). */
import type { AgentDirectory } from "./agents.ts";
import type { ActiveGrant, GrantAllowRequest, GrantService } from "./api/grants.ts";
import type { Bridges } from "./bridge/bridge.ts";
import type { Grant } from "./bridge/grants.ts";
import { OutcallError } from "./errors.ts";

/** The grants of one daemon. They live in memory and in the kernel, and end with the daemon. */
export class OperatorGrants implements GrantService {
  readonly #bridges: Bridges;
  readonly #agents: AgentDirectory;

  constructor(bridges: Bridges, agents: AgentDirectory) {
    this.#bridges = bridges;
    this.#agents = agents;
  }

  /** Those in force: operators', then those of DNS answers, each oldest first. */
  list(): Promise<readonly ActiveGrant[]> {
    const direct = this.#bridges.directGrants()
      .toSorted((a, b) => a.grantedAtMs - b.grantedAtMs);
    return Promise.all([
      ...this.#bridges.grants().map((grant) => this.#describe(grant, "operator", [])),
      ...direct.map((grant) => this.#describe(grant, "dns", grant.hosts)),
    ]);
  }

  /** @throws OutcallError those of {@linkcode Bridges.grant}, `grant.no_agent`, `grant.ambiguous`. */
  async allow(request: GrantAllowRequest): Promise<ActiveGrant> {
    const { destination, protocol, port, expires_in_secs: ttlSecs } = request;
    const agent = await this.#addressOf(request);
    return this.#describe(
      await this.#bridges.grant({ agent, destination, protocol, port, ttlSecs }),
      "operator",
      [],
    );
  }

  /** @throws OutcallError `grant.unknown` */
  async revoke(id: string): Promise<void> {
    if (await this.#bridges.revoke(id)) return;
    throw new OutcallError(404, "grant.unknown", `there is no grant '${id}'`, {
      hint: "outcall grants list",
    });
  }

  /** Revokes all; returns how many were in force. */
  flush(): Promise<number> {
    return this.#bridges.flushGrants();
  }

  /** The one attached agent that is meant; a name and an address must mean the same one. */
  async #addressOf({ container, src_ip: address }: GrantAllowRequest): Promise<string> {
    const addresses = this.#bridges.agentAddresses();
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

  async #nameAt(address: string): Promise<string> {
    return (await this.#agents.identify(address))?.name ?? "";
  }

  async #describe(
    grant: Omit<Grant, "ttlSecs">,
    source: ActiveGrant["source"],
    hosts: readonly string[],
  ): Promise<ActiveGrant> {
    const { id, agent, destination, protocol, port, grantedAtMs, expiresAtMs } = grant;
    return {
      id,
      container: await this.#nameAt(agent),
      src_ip: agent,
      destination,
      protocol,
      port,
      inserted_at: new Date(grantedAtMs).toISOString(),
      expires_in_secs: Math.max(0, Math.ceil((expiresAtMs - Date.now()) / 1000)),
      source,
      hosts,
    };
  }
}
