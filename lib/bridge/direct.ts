/**
 * What DNS answers open in the kernel (`egress.mode: direct_ip`, decision D12): bookkeeping, and the
 * changes of elements that follow from it. Pure.
 *
 * As with operators' grants (grants.ts) one set lets connections begin, and its elements have kernel
 * timeouts; another lets them go on until the grant is revoked. These two are hash sets of single
 * addresses: an element is put in or taken out in microseconds, however many there are.
 */
import { concatenatedKey, type SetChange } from "../linux/nftables.ts";
import { Ip } from "../net/ip.ts";
import type { Opening } from "../rules/types.ts";
import { ipv4 } from "./elements.ts";

/** Decision D12: further ones push out those that have expired, then are refused. */
export const MAX_DIRECT_GRANTS_PER_AGENT = 256;

/** Less than that later an end is not worth a transaction. */
const SLACK_MS = 1000;

/** Names that one grant is known to follow from: at a content network there may be thousands. */
const MAX_HOSTS = 16;

/** The sets: who may begin a connection, and whose connections may go on. */
export const DIRECT_SETS = { begin: "direct", goOn: "directed" } as const;

// include/uapi/linux/in.h
const PROTOCOL_NUMBERS = { tcp: 6, udp: 17 } as const;

/** One destination of one agent. */
export interface DirectTarget extends Opening {
  /** The agent's address. */
  readonly agent: string;
  /** IPv4, canonical. */
  readonly destination: string;
}

/** A target that is open, or that was and whose connections go on. */
export interface DirectGrant extends DirectTarget {
  readonly id: string;
  /** Whom it was opened to, as in `Agent.name`. */
  readonly agentName: string;
  /** The names it follows from, as in `Hostname.name`, the newest last. */
  readonly hosts: readonly string[];
  /** On the clock of `Date.now()`. */
  readonly grantedAtMs: number;
  readonly expiresAtMs: number;
}

/** For whom, and for how long. */
export interface DirectTerms {
  readonly agentName: string;
  /** The name that resolved to it. */
  readonly host: string;
  readonly lifeMs: number;
}

/** What came of asking for a target. */
export interface Opened {
  readonly grant: DirectGrant;
  /** The kernel has to be told. */
  readonly isChanged: boolean;
  /** It was not open before. */
  readonly isNew: boolean;
  /** An expired grant that made room, which the kernel has to be told, too. */
  readonly evicted: DirectGrant | null;
}

/** The same for the same target, and for no other one. */
export function targetKey({ agent, destination, protocol, port }: DirectTarget): string {
  return `${agent} ${destination} ${protocol} ${port}`;
}

function kernelKey({ agent, destination, protocol, port }: DirectTarget): Uint8Array {
  const address = (text: string): Uint8Array => Ip.parse(ipv4(text))?.bytes ?? new Uint8Array();
  return concatenatedKey(
    address(agent),
    address(destination),
    new Uint8Array([PROTOCOL_NUMBERS[protocol]]),
    new Uint8Array([port >> 8, port & 0xff]),
  );
}

/** What has to change in the kernel when `put` are opened, or prolonged, and `remove` revoked. */
export function changesOf(
  put: readonly DirectGrant[],
  remove: readonly DirectGrant[],
  nowMs: number,
): SetChange[] {
  const opened = put.map((grant) => ({
    key: kernelKey(grant),
    timeoutMs: Math.max(1, grant.expiresAtMs - nowMs),
  }));
  const gone = remove.map(kernelKey);
  return [
    { set: DIRECT_SETS.begin, put: opened, remove: gone },
    {
      set: DIRECT_SETS.goOn,
      put: opened.map(({ key }) => ({ key, timeoutMs: null })),
      remove: gone,
    },
  ];
}

/** All of them. */
export class DirectGrants {
  /** By agent, then by target. */
  readonly #byAgent = new Map<string, Map<string, DirectGrant>>();

  /** Those that have not expired. */
  list(nowMs: number): readonly DirectGrant[] {
    return this.all().filter(({ expiresAtMs }) => expiresAtMs > nowMs);
  }

  /** All whose connections may go on, expired ones, too. */
  all(): readonly DirectGrant[] {
    return [...this.#byAgent.values()].flatMap((grants) => [...grants.values()]);
  }

  /** Whether this target is among them. */
  has(target: DirectTarget): boolean {
    return this.#byAgent.get(target.agent)?.has(targetKey(target)) ?? false;
  }

  /**
   * Opens `target` for `lifeMs` from now, if it would end sooner; null when the agent has as many
   * grants as it may have.
   */
  open(target: DirectTarget, terms: DirectTerms, nowMs: number): Opened | null {
    const { agentName, host, lifeMs } = terms;
    const own = this.#byAgent.get(target.agent) ?? new Map<string, DirectGrant>();
    const key = targetKey(target);
    const before = own.get(key);
    let evicted: DirectGrant | null = null;
    if (before === undefined && own.size >= MAX_DIRECT_GRANTS_PER_AGENT) {
      evicted = longestExpired(own, nowMs);
      if (evicted === null) return null;
      own.delete(targetKey(evicted));
    }
    const endsAtMs = nowMs + lifeMs;
    const isNew = before === undefined || before.expiresAtMs <= nowMs;
    const isChanged = isNew || endsAtMs - before.expiresAtMs >= SLACK_MS;
    const known = before?.agentName === agentName ? before.hosts : [];
    const others = known.filter((name) => name !== host);
    const { agent, destination, protocol, port } = target;
    const grant: DirectGrant = {
      agent,
      destination,
      protocol,
      port,
      agentName,
      id: before?.id ?? crypto.randomUUID().slice(0, 8),
      hosts: [...others.slice(1 - MAX_HOSTS), host],
      grantedAtMs: isNew ? nowMs : before.grantedAtMs,
      expiresAtMs: isChanged ? endsAtMs : before.expiresAtMs,
    };
    own.set(key, grant);
    this.#byAgent.set(agent, own);
    return { grant, isChanged, isNew, evicted };
  }

  /** Forgets these: the kernel does not hold them, or is told to give them up. */
  forget(grants: readonly DirectGrant[]): void {
    for (const grant of grants) {
      const own = this.#byAgent.get(grant.agent);
      own?.delete(targetKey(grant));
      if (own?.size === 0) this.#byAgent.delete(grant.agent);
    }
  }

  /** Statements that give both sets, which must exist, what they are to hold. */
  render(family: string, table: string, nowMs: number): string {
    const lines = Object.values(DIRECT_SETS).map((set) => `flush set ${family} ${table} ${set}`);
    for (const { agent, destination, protocol, port, expiresAtMs } of this.all()) {
      const element = `${ipv4(agent)} . ${ipv4(destination)} . ${protocol} . ${port}`;
      lines.push(`add element ${family} ${table} ${DIRECT_SETS.goOn} { ${element} }`);
      if (expiresAtMs <= nowMs) continue;
      const timeout = `timeout ${expiresAtMs - nowMs}ms`;
      lines.push(`add element ${family} ${table} ${DIRECT_SETS.begin} { ${element} ${timeout} }`);
    }
    return `${lines.join("\n")}\n`;
  }
}

function longestExpired(
  grants: ReadonlyMap<string, DirectGrant>,
  nowMs: number,
): DirectGrant | null {
  let found: DirectGrant | null = null;
  for (const grant of grants.values()) {
    if (grant.expiresAtMs > nowMs) continue;
    if (found === null || grant.expiresAtMs < found.expiresAtMs) found = grant;
  }
  return found;
}
