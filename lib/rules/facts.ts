/**
 * Reading facts, and how large they may be. The cost bound of a condition (lib/rules/cost.ts) holds
 * for facts within these sizes; a larger one counts as a failure, which blocks.
 */
import type { FactName } from "./language.ts";
import type { Facts } from "./types.ts";

/** How much a fact may hold. */
export interface FactSize {
  /** Items of a list, entries of a map; 0 for a single value. */
  readonly items: number;
  /** UTF-16 units of the text, or of all texts in it together. */
  readonly characters: number;
}

/** A fact: how it is read, and its size. */
interface FactAccess extends FactSize {
  readonly read: (facts: Facts) => unknown;
}

const NUMBER = { items: 0, characters: 0 };
/** RFC 1035: 253; an address needs less. */
const HOST = { items: 0, characters: 255 };
const WORD = { items: 0, characters: 128 };
/** What the proxy accepts as the head of a request. */
const PATH = { items: 0, characters: 8192 };
const HEADERS = { items: 256, characters: 16_384 };
/** What the agent API's body may hold. */
const ARGUMENTS = { items: 1024, characters: 65_536 };
const TEXT = { items: 0, characters: 32_768 };

/** Every fact. Written out, because property access by constant name is what the engine optimises. */
export const FACTS: Readonly<Record<FactName, FactAccess>> = {
  "network.hostname": { ...HOST, read: (facts) => facts.network?.hostname },
  "network.ip": { ...HOST, read: (facts) => facts.network?.ip },
  "network.port": { ...NUMBER, read: (facts) => facts.network?.port },
  "network.protocol": { ...WORD, read: (facts) => facts.network?.protocol },
  "http.method": { ...WORD, read: (facts) => facts.http?.method },
  "http.path": { ...PATH, read: (facts) => facts.http?.path },
  "http.host": { ...HOST, read: (facts) => facts.http?.host },
  "http.headers": { ...HEADERS, read: (facts) => facts.http?.headers },
  "http.body_size": { ...NUMBER, read: (facts) => facts.http?.body_size },
  "dns.query": { ...HOST, read: (facts) => facts.dns?.query },
  "dns.record_type": { ...WORD, read: (facts) => facts.dns?.record_type },
  "agent.name": { ...WORD, read: (facts) => facts.agent?.name },
  "docker.image": { ...TEXT, read: (facts) => facts.docker?.image },
  "docker.command": { ...ARGUMENTS, read: (facts) => facts.docker?.command },
  "docker.volumes": { ...ARGUMENTS, read: (facts) => facts.docker?.volumes },
  "docker.env_keys": { ...ARGUMENTS, read: (facts) => facts.docker?.env_keys },
  "docker.capabilities": { ...ARGUMENTS, read: (facts) => facts.docker?.capabilities },
  "run.tool": { ...TEXT, read: (facts) => facts.run?.tool },
  "run.args": { ...ARGUMENTS, read: (facts) => facts.run?.args },
  "run.flags": { ...ARGUMENTS, read: (facts) => facts.run?.flags },
  "run.cwd": { ...TEXT, read: (facts) => facts.run?.cwd },
  "run.context": { ...ARGUMENTS, read: (facts) => facts.run?.context },
};

/** How deep a JSON value in `run.context` may be nested. */
const MAX_DEPTH = 8;

/** Counts down while walking a value; negative when the value is too large. */
class Allowance {
  constructor(public items: number, public characters: number) {}

  /** Whether `value` fits into what is left. */
  take(value: unknown, depth: number): boolean {
    if (typeof value === "string") return (this.characters -= value.length) >= 0;
    if (typeof value !== "object" || value === null) return true;
    if (depth === 0) return false;
    if (Array.isArray(value)) {
      this.items -= value.length;
      return this.items >= 0 && value.every((item) => this.take(item, depth - 1));
    }
    for (const [key, item] of Object.entries(value)) {
      this.items--;
      this.characters -= key.length;
      if (this.items < 0 || this.characters < 0 || !this.take(item, depth - 1)) return false;
    }
    return true;
  }
}

/** Whether a fact's value is larger than the cost bound assumes. */
export function isTooLarge(name: FactName, value: unknown): boolean {
  const { items, characters } = FACTS[name];
  return !new Allowance(items, characters).take(value, MAX_DEPTH);
}
