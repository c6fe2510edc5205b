/** The rules for what one agent did: few, readable, and no wider than they say. */
import { ownDomain } from "../../rules/domain.ts";
import { type Draft, isOneOf, isOneOfNumbers, literal, newRuleId } from "../../rules/draft.ts";
import type { Policy } from "../../rules/policy.ts";
import type { Attempts, Kind, Of } from "./attempts.ts";
import { pathClause } from "./paths.ts";

/** This many hosts of one owner are written as the domain: nobody reviews a longer list. */
const MAX_HOSTS_OF_DOMAIN = 8;

/** Hosts that are told in one comment. */
const MAX_TOLD = 12;

const ADDRESS_TYPES: ReadonlySet<string> = new Set(["A", "AAAA", "HTTPS", "SVCB"]);

/** A rule with what it is for. */
export interface Part {
  readonly draft: Draft;
  readonly comments: readonly string[];
}

function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function sorted(texts: Iterable<string>): string[] {
  return [...new Set(texts)].sort(byText);
}

function sortedNumbers(numbers: Iterable<number>): number[] {
  return [...new Set(numbers)].sort((a, b) => a - b);
}

function groupBy<T>(items: Iterable<T>, keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}

/** Writes the rules for one agent's attempts. */
export class Author {
  readonly #agent: string;
  readonly #attempts: Attempts;
  readonly #taken: Set<string>;
  readonly parts: Part[] = [];

  constructor(agent: string, attempts: Attempts, policy: Policy) {
    this.#agent = agent;
    this.#attempts = attempts;
    this.#taken = new Set(policy.byId.keys());
    this.#tunnels();
    this.#requests();
    this.#lookups();
    this.#tools();
  }

  #add(
    words: readonly string[],
    description: string,
    clauses: readonly string[],
    comments: readonly string[],
  ): void {
    const name = this.#agent === "" ? "nameless" : this.#agent;
    const id = newRuleId([name, ...words], (id) => this.#taken.has(id));
    this.#taken.add(id);
    this.parts.push({
      draft: {
        id,
        description,
        clauses: [`agent.name == ${literal(this.#agent)}`, ...clauses],
      },
      comments,
    });
  }

  #counts(hosts: readonly string[]): string {
    const told = hosts.map((host) => `${host} (${this.#attempts.countOf(new Set([host]))})`);
    const rest = told.length - MAX_TOLD;
    const list = told.slice(0, MAX_TOLD).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
    return `${attemptsText(this.#attempts.countOf(new Set(hosts)))}: ${list}`;
  }

  /** Hosts with the same ports share a rule; many of one owner become the owner's domain. */
  #tunnels(): void {
    const byHost = groupBy(this.#attempts.of("tunnel"), ({ subject }) => subject.host);
    const portsOf = ([, kinds]: [string, { readonly subject: Of<"tunnel"> }[]]): number[] =>
      sortedNumbers(kinds.map(({ subject }) => subject.port));
    for (const [signature, entries] of groupBy(byHost, (entry) => portsOf(entry).join("-"))) {
      const [first] = entries;
      const ports = first === undefined ? [] : portsOf(first);
      const isUsual = ports.length === 1 && ports[0] === 443;
      const rest = [
        'http.method == "CONNECT"',
        ...(isUsual ? [] : [isOneOfNumbers("network.port", ports)]),
      ];
      const what = isUsual
        ? "HTTPS"
        : `TLS to port${ports.length === 1 ? "" : "s"} ${ports.join(", ")}`;
      const words = isUsual ? ["https"] : ["tls", signature];
      const { hosts, domains } = folded(sorted(entries.map(([host]) => host)));
      if (hosts.length > 0) {
        this.#add(words, `${what} to these hosts`, [isOneOf("http.host", hosts), ...rest], [
          this.#counts(hosts),
        ]);
      }
      for (const [domain, members] of domains) {
        this.#add(
          [...words, domain],
          `${what} to a domain`,
          [`http.host.under(${literal(domain)})`, ...rest],
          [
            this.#counts(members),
            `WIDER than what was seen: every name below ${domain}, for its ${members.length} hosts`,
          ],
        );
      }
    }
  }

  /** Hosts with the same ports, methods and paths share a rule. */
  #requests(): void {
    const byHost = groupBy(this.#attempts.of("request"), ({ subject }) => subject.host);
    const shapes = [...byHost].map(([host, kinds]) => {
      const path = pathClause(kinds.map(({ subject }) => subject.path));
      return {
        host,
        clauses: [
          isOneOfNumbers("network.port", sortedNumbers(kinds.map(({ subject }) => subject.port))),
          isOneOf("http.method", sorted(kinds.map(({ subject }) => subject.method))),
          ...(path.clause === null ? [] : [path.clause]),
        ],
        comments: path.comments,
      };
    });
    for (const alike of groupBy(shapes, ({ clauses }) => clauses.join()).values()) {
      const [first] = alike;
      if (first === undefined) continue;
      const hosts = sorted(alike.map(({ host }) => host));
      this.#add(
        hosts.length === 1 ? ["http", ...hosts] : ["http"],
        "plain HTTP",
        [isOneOf("http.host", hosts), ...first.clauses],
        [this.#counts(hosts), ...sorted(alike.flatMap(({ comments }) => comments))],
      );
    }
  }

  /** Names that were looked up, and nothing else; those of a connection resolve by its rule. */
  #lookups(): void {
    const connected = new Set(
      [...this.#attempts.of("tunnel"), ...this.#attempts.of("request")]
        .map(({ subject }) => subject.host),
    );
    const alone = this.#attempts.of("lookup").filter(({ subject }) =>
      !ADDRESS_TYPES.has(subject.recordType) || !connected.has(subject.host)
    );
    const byHost = groupBy(alone, ({ subject }) => subject.host);
    const typesOf = ([, kinds]: [string, { readonly subject: Of<"lookup"> }[]]): string[] =>
      sorted(kinds.map(({ subject }) => subject.recordType));
    for (const entries of groupBy(byHost, (entry) => typesOf(entry).join()).values()) {
      const [first] = entries;
      if (first === undefined) continue;
      const hosts = sorted(entries.map(([host]) => host));
      this.#add(
        ["look-ups"],
        "look-ups alone: no connection",
        [isOneOf("dns.query", hosts), isOneOf("dns.record_type", typesOf(first))],
        [this.#counts(hosts)],
      );
    }
  }

  #tools(): void {
    const tools = this.#attempts.of("tool");
    const count = (kinds: readonly Kind[]): string =>
      attemptsText(kinds.reduce((sum, { count }) => sum + count, 0));
    if (tools.length > 0) {
      const names = sorted(tools.map(({ subject }) => subject.tool));
      this.#add(["tools"], "tools, with any arguments", [isOneOf("run.tool", names)], [
        `${count(tools)}; records hold no arguments, so that none are asked for`,
      ]);
    }
    const files = this.#attempts.of("file");
    if (files.length > 0) {
      const paths = sorted(files.map(({ subject }) => subject.path)).map(literal).join(", ");
      const clauses = ['run.tool == "file"', `run.args.all(path, path in [${paths}])`];
      this.#add(["files"], "files", clauses, [count(files)]);
    }
  }
}

/** `1 attempt`, `2 attempts`. */
export function attemptsText(count: number): string {
  return `${count} attempt${count === 1 ? "" : "s"}`;
}

/** Hosts, and domains in place of many hosts of one owner. */
function folded(
  hosts: readonly string[],
): { readonly hosts: readonly string[]; readonly domains: ReadonlyMap<string, string[]> } {
  const byDomain = groupBy(hosts, (host) => ownDomain(host) ?? "");
  byDomain.delete("");
  const domains = new Map(
    [...byDomain].filter(([, members]) => members.length > MAX_HOSTS_OF_DOMAIN),
  );
  const inside = new Set([...domains.values()].flat());
  return { hosts: hosts.filter((host) => !inside.has(host)), domains };
}
