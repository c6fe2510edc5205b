/**
 * Rules with `egress.mode: direct_ip` (decision D12): the addresses of a name they allow are opened
 * to the agent that asked, and what is open is judged again when rules or agents change.
 */
import { type Agent, type AgentDirectory, isSameAgent } from "./agents.ts";
import type { DirectGrant, Opened } from "./bridge/direct.ts";
import type { Openings } from "./bridge/openings.ts";
import type { DecisionRecorder } from "./dns/filter.ts";
import type {
  AddressOpener,
  LearnedAddresses,
  OpenedAddresses,
  OpeningRefusal,
} from "./dns/opener.ts";
import { messageOf, OutcallError } from "./errors.ts";
import { logger } from "./log.ts";
import { Ip } from "./net/ip.ts";
import { restrictedRange } from "./net/restricted.ts";
import type { Judge, Judgement } from "./policy.ts";
import { grantFacts } from "./rules/request.ts";
import type { Opening } from "./rules/types.ts";

const log = logger("rule_engine");

/**
 * Targets of one answer that are judged, twice what an agent may have: a hostile answer times a long
 * rule would hold everybody up for a second.
 */
const MAX_JUDGED = 512;

/** What it works with. */
export interface DirectAccessParts {
  readonly openings: Pick<Openings, "openDirect" | "reviewDirect" | "allDirect">;
  readonly agents: AgentDirectory;
  readonly judge: Judge;
  readonly decisions: DecisionRecorder;
}

/** One address and port, and what the rules say. */
interface Judged {
  readonly address: Ip;
  readonly opening: Opening;
  readonly judgement: Judgement;
  /** Null: it is to be opened. */
  readonly refusal: OpeningRefusal | null;
}

/** Opens addresses to agents, and closes them again. */
export class DirectAccess implements AddressOpener {
  readonly #parts: DirectAccessParts;
  /** Rises whenever another agent may be at some address. */
  #identities = 0;

  constructor(parts: DirectAccessParts) {
    this.#parts = parts;
  }

  async open(learned: LearnedAddresses): Promise<OpenedAddresses> {
    const { agent, hostname, lifeSecs } = learned;
    const identities = this.#identities;
    // The upstream had its time: who asked may be gone, and another agent have the address.
    if (!isSameAgent(agent, await this.#agentAt(agent.address))) throw agentChanged(agent);
    let judged: readonly Judged[] = [];
    const opened = await this.#parts.openings.openDirect({
      agent: agent.address,
      agentName: agent.name,
      host: hostname.name,
      lifeMs: lifeSecs * 1000,
      targets: () => {
        // It may be another agent's address by now.
        if (identities !== this.#identities) throw agentChanged(agent);
        judged = this.#judgeAll(learned);
        return judged.filter(({ refusal }) => refusal === null)
          .map(({ address, opening }) => ({ ...opening, destination: address.text }));
      },
    });
    this.#record(agent, hostname.name, judged, opened);
    return outcomeOf(judged, opened);
  }

  #judgeAll({ agent, hostname, addresses, openings }: LearnedAddresses): readonly Judged[] {
    const room = Math.ceil(MAX_JUDGED / Math.max(1, openings.length));
    return addresses.slice(0, room).flatMap((address) =>
      openings.map((opening) => {
        const judgement = this.#judge(agent.name, hostname.name, address, opening);
        return { address, opening, judgement, refusal: refusalOf(judgement, address) };
      })
    );
  }

  #judge(agentName: string, host: string, address: Ip, opening: Opening): Judgement {
    const facts = grantFacts({ host, ...opening, agentName, ip: address.text });
    return this.#parts.judge("grant", facts);
  }

  /** A decision for each target that was closed before; a renewal is none. */
  #record(
    agent: Agent,
    host: string,
    judged: readonly Judged[],
    opened: readonly Opened[],
  ): void {
    for (const { grant: { destination, port, protocol }, isNew } of opened) {
      const found = judged.find(({ address, opening }) =>
        address.text === destination && opening.port === port && opening.protocol === protocol
      );
      if (!isNew || found === undefined) continue;
      const { verdict, generation } = found.judgement;
      this.#parts.decisions.record({
        generation,
        layer: "grant",
        agent,
        source: agent.address,
        attempt: { host, address: destination, port, protocol },
        verdict: "allow",
        reason: verdict.reason,
        rule: verdict.rule,
      });
    }
  }

  /** The rules have changed: closes what they would not open now, live connections included. */
  async rejudge(): Promise<void> {
    const revoked = await this.#parts.openings.reviewDirect((grant) => this.#isAdmitted(grant));
    if (revoked > 0) {
      log.info("grants of DNS answers revoked by the new rules: {revoked}", { revoked });
    }
  }

  #isAdmitted({ agentName, hosts, destination, protocol, port }: DirectGrant): boolean {
    const address = Ip.parse(destination);
    return address !== null &&
      hosts.some((host) =>
        refusalOf(this.#judge(agentName, host, address, { protocol, port }), address) === null
      );
  }

  /** Agents have come or gone: closes what was opened to somebody else, soon. */
  identitiesChanged(): void {
    this.#identities++;
    this.#reidentify().catch((error: unknown) => {
      log.error("grants of agents that are gone: {reason}", { reason: messageOf(error) });
    });
  }

  async #reidentify(): Promise<void> {
    const { openings } = this.#parts;
    const names = new Map<string, string | null>();
    const addresses = new Set(openings.allDirect().map(({ agent }) => agent));
    await Promise.all([...addresses].map(async (address) => {
      names.set(address, (await this.#agentAt(address))?.name ?? null);
    }));
    // One that is not among them was opened meanwhile, to whoever is there now.
    const revoked = await openings.reviewDirect(({ agent, agentName }) =>
      !names.has(agent) || names.get(agent) === agentName
    );
    if (revoked > 0) {
      log.info("grants of DNS answers revoked with their agent: {revoked}", { revoked });
    }
  }

  async #agentAt(address: string): Promise<Agent | null> {
    try {
      return await this.#parts.agents.identify(address);
    } catch {
      return null; // who it is cannot be said
    }
  }
}

function agentChanged({ address }: Agent): OutcallError {
  return new OutcallError(409, "grant.agent_changed", `another agent may be at ${address} by now`);
}

/** Why an address is not opened; null: it is. Decision D23 holds for each rule by itself. */
function refusalOf(judgement: Judgement, address: Ip): OpeningRefusal | null {
  const { allowed, reason, egress } = judgement.verdict;
  if (!allowed) return { reason, judgement };
  if (egress?.mode !== "direct_ip") return { reason: "proxy_only", judgement };
  if (!egress.allowPrivateIps && restrictedRange(address) !== null) {
    return { reason: "restricted_address", judgement };
  }
  return null;
}

/** An address counts as open when everything that the rules admit of it is. */
function outcomeOf(judged: readonly Judged[], opened: readonly Opened[]): OpenedAddresses {
  const open = new Set(
    opened.map(({ grant }) => `${grant.destination} ${grant.protocol} ${grant.port}`),
  );
  const addresses = new Set<string>();
  let refusal: OpeningRefusal | null = null;
  for (const [text, targets] of Map.groupBy(judged, ({ address }) => address.text)) {
    const admitted = targets.filter((target) => target.refusal === null);
    const isFull = admitted.some(({ opening: { protocol, port } }) =>
      !open.has(`${text} ${protocol} ${port}`)
    );
    if (admitted.length > 0 && !isFull) addresses.add(text);
    else if (isFull) refusal ??= { reason: "grant_limit", judgement: null };
    else refusal ??= targets[0]?.refusal ?? null;
  }
  const ends = opened.filter(({ grant }) => addresses.has(grant.destination))
    .map(({ grant }) => grant.expiresAtMs);
  const lifeMs = ends.length === 0 ? 0 : Math.min(...ends) - Date.now();
  return { addresses, lifeSecs: Math.max(0, Math.floor(lifeMs / 1000)), refusal };
}
