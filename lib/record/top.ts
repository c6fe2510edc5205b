/** What happens now, by agent and by host: rates and counts over the last minute, of a stream of decisions. */
import type { Decision } from "../decision.ts";
import { whatText } from "../rules/words.ts";
import { hostOf } from "./filter.ts";

/** Seconds that rates are taken over. */
const RATE_SECS = 10;

/** Seconds that counts are taken over. */
export const COUNT_SECS = 60;

/** Agents, hosts and growing records that are kept; the least recent ones go first. */
const MAX_KEPT = 5_000;

/** One agent or host. */
export interface TopRow {
  readonly name: string;
  /** Attempts a second, over the last {@linkcode RATE_SECS}. */
  readonly allow_rate: number;
  readonly block_rate: number;
  /** Attempts in the last {@linkcode COUNT_SECS}. */
  readonly allowed: number;
  readonly blocked: number;
  /** Bytes from and to agents, of tunnels that ended while this was watched. */
  readonly up_bytes: number;
  readonly down_bytes: number;
  /** Of the newest block. */
  readonly newest: { readonly id: string; readonly reason: string; readonly what: string } | null;
}

/** Everything at one moment; the busiest first. */
export interface TopView {
  readonly all: TopRow;
  readonly agents: readonly TopRow[];
  readonly hosts: readonly TopRow[];
}

/** Attempts by second, for as long as they count. */
class Window {
  readonly #counts = new Array<number>(COUNT_SECS).fill(0);
  #second = 0;

  add(second: number, count: number): void {
    this.#moveTo(second);
    if (second <= this.#second - COUNT_SECS) return; // told late
    const slot = second % COUNT_SECS;
    this.#counts[slot] = (this.#counts[slot] ?? 0) + count;
  }

  /** Attempts in the last `seconds` up to now. */
  sum(now: number, seconds: number): number {
    this.#moveTo(now);
    let sum = 0;
    for (let second = now - seconds + 1; second <= now; second++) {
      sum += this.#counts[second % COUNT_SECS] ?? 0;
    }
    return sum;
  }

  #moveTo(second: number): void {
    const from = Math.max(this.#second + 1, second - COUNT_SECS + 1);
    for (let passed = from; passed <= second; passed++) this.#counts[passed % COUNT_SECS] = 0;
    this.#second = Math.max(this.#second, second);
  }
}

/** One agent or host while it is watched. */
class Entry {
  readonly #allowed = new Window();
  readonly #blocked = new Window();
  #upBytes = 0;
  #downBytes = 0;
  #newest: TopRow["newest"] = null;

  count(decision: Decision, second: number, count: number): void {
    if (decision.verdict === "allow") return this.#allowed.add(second, count);
    this.#blocked.add(second, count);
    const { id, reason } = decision;
    this.#newest = { id, reason, what: whatText(decision) };
  }

  addBytes(up: number, down: number): void {
    this.#upBytes += up;
    this.#downBytes += down;
  }

  row(name: string, now: number): TopRow {
    return {
      name,
      allow_rate: this.#allowed.sum(now, RATE_SECS) / RATE_SECS,
      block_rate: this.#blocked.sum(now, RATE_SECS) / RATE_SECS,
      allowed: this.#allowed.sum(now, COUNT_SECS),
      blocked: this.#blocked.sum(now, COUNT_SECS),
      up_bytes: this.#upBytes,
      down_bytes: this.#downBytes,
      newest: this.#newest,
    };
  }
}

/** A bounded map that forgets what was not used for the longest time. */
class Recent<T> {
  readonly #entries = new Map<string, T>();

  /** What is there, as the newest. */
  use(key: string, make: () => T): T {
    const entry = this.#entries.get(key) ?? make();
    this.set(key, entry);
    return entry;
  }

  get(key: string): T | undefined {
    return this.#entries.get(key);
  }

  set(key: string, entry: T): void {
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (this.#entries.size <= MAX_KEPT) return;
    for (const [oldest] of this.#entries) {
      this.#entries.delete(oldest);
      break;
    }
  }

  [Symbol.iterator](): IterableIterator<[string, T]> {
    return this.#entries.entries();
  }
}

/** What was counted of a record that may grow. */
interface Counted {
  readonly count: number;
  readonly up: number;
  readonly down: number;
}

function secondOf(time: string): number {
  return Math.floor(Date.parse(time) / 1_000);
}

function byActivity(a: TopRow, b: TopRow): number {
  return b.allow_rate + b.block_rate - a.allow_rate - a.block_rate ||
    b.allowed + b.blocked - a.allowed - a.blocked || (a.name < b.name ? -1 : 1);
}

function isActive({ allowed, blocked }: TopRow): boolean {
  return allowed + blocked > 0;
}

/** Takes decisions in as they come, and tells at any time what is going on. */
export class Top {
  readonly #all = new Entry();
  readonly #agents = new Recent<Entry>();
  readonly #hosts = new Recent<Entry>();
  readonly #counted = new Recent<Counted>();

  /** Takes in a decision, or a newer version of one: what it grew by is counted. */
  add(decision: Decision): void {
    const { id, agent, source, attempt, count = 1, tunnel, time, updated } = decision;
    const known = this.#counted.get(id);
    const counted = { count, up: tunnel?.upBytes ?? 0, down: tunnel?.downBytes ?? 0 };
    this.#counted.set(id, counted);
    const host = hostOf(attempt);
    const entries = [
      this.#all,
      this.#agents.use(agent?.name || source, () => new Entry()),
      ...(host === "" ? [] : [this.#hosts.use(host, () => new Entry())]),
    ];
    const more = Math.max(0, count - (known?.count ?? 0));
    // One that was not seen before may have grown to what it is at any time since it began.
    const second = secondOf(known === undefined ? time : updated ?? time);
    const up = counted.up - (known?.up ?? 0);
    const down = counted.down - (known?.down ?? 0);
    for (const entry of entries) {
      if (more > 0) entry.count(decision, second, more);
      if (up > 0 || down > 0) entry.addBytes(up, down);
    }
  }

  /** Everything at this moment; agents and hosts without attempts in the last minute are left out. */
  view(nowMs: number): TopView {
    const now = Math.floor(nowMs / 1_000);
    const rows = (entries: Iterable<[string, Entry]>): TopRow[] =>
      [...entries].map(([name, entry]) => entry.row(name, now)).filter(isActive).sort(byActivity);
    return {
      all: this.#all.row("", now),
      agents: rows(this.#agents),
      hosts: rows(this.#hosts),
    };
  }
}
