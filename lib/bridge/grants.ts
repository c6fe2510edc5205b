/**
 * What operators have opened to single agents for a time (decision D12): bookkeeping, and the
 * elements that make the kernel keep to it.
 *
 * Two sets hold the same tuples. `grants` lets new connections begin, and its elements have kernel
 * timeouts, so that they end even when the daemon is gone. `granted` lets packets of connections
 * that did begin go on: an expired grant stays in it, a revoked one leaves it at once, which stops
 * its connections at their next packet. Nothing depends on connection tracking entries, which the
 * kernel makes anew for a TCP packet in mid-stream.
 */
import { OutcallError } from "../errors.ts";
import { Cidr } from "../net/cidr.ts";
import { Ip } from "../net/ip.ts";
import { ipv4, ipv4Subnet } from "./elements.ts";
import type { Part } from "./table.ts";

/** Decision D12: further ones push out those that have expired, then are refused. */
export const MAX_GRANTS_PER_AGENT = 256;
/** S009-FR-015: a day. */
const MAX_GRANT_SECS = 86_400;

/** What a grant opens. */
export interface GrantRequest {
  /** The agent's address. */
  readonly agent: string;
  /** IPv4 address or network in CIDR form. */
  readonly destination: string;
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  /** 1 to {@linkcode MAX_GRANT_SECS}; null: until it is revoked. */
  readonly ttlSecs: number | null;
  /** The name that was asked for, where the destination is one of its addresses. */
  readonly host: string | null;
}

/** A grant in force, or one that has expired and whose connections go on. */
export interface Grant extends GrantRequest {
  readonly id: string;
  /** On the clock of `Date.now()`. */
  readonly grantedAtMs: number;
  /** Infinity: never. */
  readonly expiresAtMs: number;
}

function invalid(message: string, hint: string): OutcallError {
  return new OutcallError(422, "grant.invalid", message, { hint });
}

/** The destination in canonical CIDR form. */
function canonicalDestination(text: string): string {
  const ip = Ip.parse(text);
  if (ip?.version === 4) return ip.text;
  const cidr = Cidr.parse(text);
  if (cidr?.network.version === 4) return cidr.prefix === 32 ? cidr.network.text : cidr.toString();
  throw invalid(
    `'${text}' is not an IPv4 address or network`,
    "give an address such as 93.184.216.34 or a network such as 93.184.216.0/24",
  );
}

function overlap(a: string, b: string): boolean {
  const [left, right] = [a, b].map((text) => Cidr.parse(text.includes("/") ? text : `${text}/32`));
  if (left === null || left === undefined || right === null || right === undefined) return true;
  return left.contains(right.network) || right.contains(left.network);
}

function isLifetime(secs: number): boolean {
  return Number.isInteger(secs) && secs >= 1 && secs <= MAX_GRANT_SECS;
}

/** All grants of this daemon. */
export class Grants {
  readonly #grants = new Map<string, Grant>();

  /** Those that have not expired, oldest first. */
  list(nowMs: number): readonly Grant[] {
    return [...this.#grants.values()].filter(({ expiresAtMs }) => expiresAtMs > nowMs);
  }

  /**
   * Adds a grant, or gives the same one another deadline.
   * @throws OutcallError `grant.invalid` (422), `grant.overlap` (409) or `grant.limit` (429).
   */
  add(request: GrantRequest, nowMs: number): Grant {
    const { agent, protocol, port, ttlSecs, host } = request;
    if (ttlSecs !== null && !isLifetime(ttlSecs)) {
      throw invalid(`${ttlSecs} s is no time for a grant`, `1 to ${MAX_GRANT_SECS} seconds`);
    }
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      throw invalid(`${port} is not a port`, "1 to 65535");
    }
    const destination = canonicalDestination(request.destination);
    const siblings = [...this.#grants.values()].filter((grant) =>
      grant.agent === agent && grant.protocol === protocol && grant.port === port
    );
    const same = siblings.find((grant) => grant.destination === destination);
    // The kernel's interval sets hold no overlapping elements.
    for (const sibling of siblings) {
      if (sibling === same || !overlap(sibling.destination, destination)) continue;
      if (sibling.expiresAtMs > nowMs) {
        throw new OutcallError(
          409,
          "grant.overlap",
          `${destination} overlaps with the grant for ${sibling.destination}`,
          { hint: `revoke it first: outcall grants revoke ${sibling.id}` },
        );
      }
      this.#grants.delete(sibling.id);
    }
    if (same === undefined) this.#makeRoom(agent, nowMs);
    const grant: Grant = {
      agent,
      destination,
      protocol,
      port,
      ttlSecs,
      host,
      id: same?.id ?? crypto.randomUUID().slice(0, 8),
      grantedAtMs: nowMs,
      expiresAtMs: ttlSecs === null ? Infinity : nowMs + ttlSecs * 1000,
    };
    this.#grants.set(grant.id, grant);
    return grant;
  }

  /** Takes a grant away, an expired one too; whether there was one. */
  revoke(id: string): boolean {
    return this.#grants.delete(id);
  }

  /** Takes all away; returns how many had not expired. */
  flush(nowMs: number): number {
    const count = this.list(nowMs).length;
    this.#grants.clear();
    return count;
  }

  /** Takes away those of agents at these addresses, which are gone; returns their ids. */
  dropAgents(addresses: readonly string[]): readonly string[] {
    const gone = [...this.#grants.values()].filter(({ agent }) => addresses.includes(agent));
    for (const { id } of gone) this.#grants.delete(id);
    return gone.map(({ id }) => id);
  }

  /** Elements of the set `granted`. */
  elements(): Part[][] {
    return [...this.#grants.values()].map(elementOf);
  }

  /** Statements that fill the set `grants`, which must exist, in place of what is in it. */
  renderOpen(family: string, table: string, nowMs: number): string {
    const lines = [`flush set ${family} ${table} grants`];
    for (const grant of this.list(nowMs)) {
      const element = elementOf(grant).map((part) =>
        typeof part === "object" ? `${part.prefix.addr}/${part.prefix.len}` : part
      ).join(" . ");
      const timeout = grant.expiresAtMs === Infinity
        ? ""
        : ` timeout ${Math.max(1, grant.expiresAtMs - nowMs)}ms`;
      lines.push(`add element ${family} ${table} grants { ${element}${timeout} }`);
    }
    return `${lines.join("\n")}\n`;
  }

  #makeRoom(agent: string, nowMs: number): void {
    const own = [...this.#grants.values()].filter((grant) => grant.agent === agent);
    if (own.length < MAX_GRANTS_PER_AGENT) return;
    const expired = own.find(({ expiresAtMs }) => expiresAtMs <= nowMs);
    if (expired === undefined) {
      throw new OutcallError(
        429,
        "grant.limit",
        `${agent} has ${MAX_GRANTS_PER_AGENT} grants already`,
        { hint: "revoke some, grant a network instead of single addresses, or write a rule" },
      );
    }
    this.#grants.delete(expired.id);
  }
}

function elementOf({ agent, destination, protocol, port }: Grant): Part[] {
  return [
    ipv4(agent),
    destination.includes("/") ? ipv4Subnet(destination) : ipv4(destination),
    protocol,
    port,
  ];
}
