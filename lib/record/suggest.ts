/**
 * From what an agent did to the smallest readable rules that cover it: what an observed run becomes
 * before it is enforced. Nothing is suggested that was not compiled, tested and asked.
 */
import type { Decision } from "../decision.ts";
import { OutcallError } from "../errors.ts";
import { printable } from "../printable.ts";
import { judge } from "../rules/answer.ts";
import { compilePolicy } from "../rules/compile.ts";
import { ownDomain } from "../rules/domain.ts";
import {
  type Draft,
  draftText,
  isOneOf,
  isOneOfNumbers,
  literal,
  newRuleId,
} from "../rules/draft.ts";
import { buildPolicy, type Policy } from "../rules/policy.ts";
import { isAdmitted } from "../rules/propose.ts";
import { type Subject, subjectOf, walkOf } from "../rules/replay.ts";
import { type RequestSpec, type Step, stepsOf } from "../rules/request.ts";
import { attemptText } from "../rules/words.ts";
import { meaningOf } from "./advice.ts";
import { pathClause } from "./paths.ts";

/** This many hosts of one owner are written as the domain: nobody reviews a longer list. */
const MAX_HOSTS_OF_DOMAIN = 8;

/** Kinds of attempts that are covered; more would make no rule set that anybody reads. */
const MAX_KINDS = 2_000;

/** Kinds that are told in one comment. */
const MAX_TOLD = 12;

const ADDRESS_TYPES: ReadonlySet<string> = new Set(["A", "AAAA", "HTTPS", "SVCB"]);

/** What to suggest rules for. */
export interface SuggestionRequest {
  readonly agent: string;
  /** Cover what was refused because no rule allowed it, too, and not only what was observed. */
  readonly includeBlocked: boolean;
}

/** Attempts that the suggestion leaves out. */
export interface NotCovered {
  readonly attempt: string;
  readonly count: number;
  readonly why: string;
}

/** A suggestion. */
export interface Suggestion {
  /** A rule file with its tests. */
  readonly file: string;
  readonly rules: number;
  readonly tests: number;
  /** Attempts that the rules cover. */
  readonly covered: number;
  readonly notCovered: readonly NotCovered[];
}

/** Attempts that are alike. */
interface Kind {
  readonly subject: Subject;
  readonly steps: readonly Step[];
  readonly text: string;
  count: number;
}

/** A rule with what it is for. */
interface Part {
  readonly draft: Draft;
  readonly comments: readonly string[];
}

type Of<K extends Subject["kind"]> = Extract<Subject, { readonly kind: K }>;

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

interface Left {
  readonly attempt: string;
  count: number;
  readonly why: string;
  readonly key: string;
}

function keyOf(subject: Subject | null): string {
  return JSON.stringify(subject);
}

const REFUSED = "it was refused, and not observed";

/** Why a record is nothing to cover; null: it is. */
function exclusion(decision: Decision, includeBlocked: boolean): string | null {
  if (decision.reason === "observed") return null;
  if (decision.reason === "default" || decision.reason === "port") {
    return includeBlocked ? null : REFUSED;
  }
  return meaningOf(decision.reason);
}

/** What happened, sorted into what is to be covered and what is not. */
class Attempts {
  readonly kinds = new Map<string, Kind>();
  readonly #left = new Map<string, Left>();

  constructor(policy: Policy, recorded: Iterable<Decision>, request: SuggestionRequest) {
    for (const decision of recorded) {
      if ((decision.agent?.name ?? null) !== request.agent) continue;
      // What a rule decided is as the operator wants it.
      if (decision.reason === "rule" || decision.layer === "container") continue;
      const why = exclusion(decision, request.includeBlocked);
      if (why === null) this.#add(policy, decision);
      else this.leave(attemptText(decision), decision.count ?? 1, why, keyOf(subjectOf(decision)));
    }
  }

  /** What no rule of the suggestion covers, the most frequent first. */
  get left(): readonly NotCovered[] {
    return [...this.#left.values()]
      // Before the observation began, or after it: the rules are for it, too.
      .filter(({ why, key }) => why !== REFUSED || !this.kinds.has(key))
      .map(({ attempt, count, why }) => ({ attempt, count, why }))
      .sort((a, b) => b.count - a.count);
  }

  #add(policy: Policy, decision: Decision): void {
    const subject = subjectOf(decision);
    const text = attemptText(decision);
    const count = decision.count ?? 1;
    if (subject === null) return this.leave(text, count, "the record does not say enough");
    // Observation opens nothing past the proxy, and neither does what is written from it.
    if (subject.kind === "direct") return this.leave(text, count, "it went past the proxy");
    const key = keyOf(subject);
    const kind = this.kinds.get(key);
    if (kind !== undefined) {
      kind.count += count;
      return;
    }
    const steps = walkOf(decision);
    if (steps.length === 0) return this.leave(text, count, "no rule can name it");
    if (isAdmitted(policy, steps)) return; // by a rule that is in force by now
    if (this.kinds.size >= MAX_KINDS) return this.leave(text, count, "it is too much for one set");
    this.kinds.set(key, { subject, steps, text, count });
  }

  /** @param key Of the kind that it would be. */
  leave(attempt: string, count: number, why: string, key = ""): void {
    const entry = this.#left.get(`${attempt} ${why}`);
    if (entry === undefined) this.#left.set(`${attempt} ${why}`, { attempt, count, why, key });
    else entry.count += count;
  }

  of<K extends Subject["kind"]>(wanted: K): (Kind & { readonly subject: Of<K> })[] {
    return [...this.kinds.values()].filter((kind): kind is Kind & { readonly subject: Of<K> } =>
      kind.subject.kind === wanted
    );
  }

  /** Attempts with a host, look-ups included. */
  countOf(hosts: ReadonlySet<string>): number {
    return [...this.kinds.values()].reduce(
      (sum, { subject, count }) => "host" in subject && hosts.has(subject.host) ? sum + count : sum,
      0,
    );
  }
}

/** Writes the rules for one agent's attempts. */
class Author {
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

function attemptsText(count: number): string {
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

/** A policy test of the suggestion. */
interface Test {
  readonly request: RequestSpec;
  readonly expect: "allow" | "block";
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** The attempt as a policy test would make it; null where that would be another one. */
function requestOf(agent: string, subject: Subject): RequestSpec | null {
  switch (subject.kind) {
    case "lookup":
      return { dns: subject.host, record_type: subject.recordType, agent };
    case "direct":
      return null;
    case "tunnel":
      return { connect: `${bracketed(subject.host)}:${subject.port}`, agent };
    case "tool":
      return { tool: subject.tool, agent };
    case "file":
      return { tool: "file", args: [subject.path], agent };
    case "request": {
      const { host, port, method, path } = subject;
      const url = `http://${bracketed(host)}${port === 80 ? "" : `:${port}`}${path}`;
      const request = { url, method, agent };
      const steps = stepsOf(request);
      // A URL parser may read a path otherwise than the proxy that recorded it.
      const isSame = steps.ok && steps.steps.at(-1)?.facts.http?.path === path;
      return isSame ? request : null;
    }
  }
}

/** What must stay blocked, near what was seen: other agents, hosts, ports, methods and paths. */
function neighbours(agent: string, kinds: readonly Kind[]): RequestSpec[] {
  const requests: RequestSpec[] = [{ connect: "not-observed.invalid:443", agent }];
  const first = <K extends Subject["kind"]>(kind: K): Of<K> | undefined =>
    kinds.map(({ subject }) => subject)
      .find((subject): subject is Of<K> => subject.kind === kind);
  const tunnel = first("tunnel");
  if (tunnel !== undefined) {
    const { host, port } = tunnel;
    const domain = ownDomain(host);
    requests.push(
      { connect: `${bracketed(host)}:${port}`, agent: "not-observed" },
      { connect: `${bracketed(host)}:22`, agent },
      ...(domain === null ? [] : [
        { connect: `not-observed.${host}:${port}`, agent },
        { connect: `not${domain}:${port}`, agent },
      ]),
    );
  }
  const plain = first("request");
  if (plain !== undefined) {
    const { host, port, path } = plain;
    const origin = `http://${bracketed(host)}${port === 80 ? "" : `:${port}`}`;
    requests.push(
      { url: `${origin}${path}`, method: "DELETE", agent },
      { url: `${origin}/not-observed`, method: plain.method, agent },
      { url: `https://${bracketed(host)}/`, agent },
    );
  }
  const lookup = first("lookup");
  if (lookup !== undefined) requests.push({ dns: `not-observed.${lookup.host}`, agent });
  if (first("tool") !== undefined) requests.push({ tool: "not-observed", agent });
  return requests;
}

function testText({ request, expect }: Test): string {
  const fields = Object.entries(request).map(([name, value]: [string, unknown]) =>
    `${name}: ${
      Array.isArray(value) ? `[${value.map((item) => literal(String(item))).join(", ")}]` : literal(
        String(value),
      )
    }`
  );
  return `  - { ${[...fields, `expect: ${expect}`].join(", ")} }`;
}

function fileText(
  header: readonly string[],
  parts: readonly Part[],
  tests: readonly Test[],
): string {
  const comment = (indent: string, text: string): string => `${indent}# ${printable(text)}`;
  const isNegative = ({ expect }: Test): boolean => expect === "block";
  return [
    ...header.map((line) => comment("", line)),
    'version: "1"',
    "rules:",
    ...parts.flatMap(({ draft, comments }) => [
      ...comments.map((text) => comment("  ", text)),
      draftText(draft),
    ]),
    ...(tests.length === 0 ? [] : [
      "tests:",
      comment("  ", "what was seen"),
      ...tests.filter((test) => !isNegative(test)).map(testText),
      comment("  ", "what must stay blocked"),
      ...tests.filter(isNegative).map(testText),
    ]),
    "",
  ].join("\n");
}

/** The rules of a file; what is wrong with them is a defect of ours. */
function compiledRules(text: string): Policy {
  const result = compilePolicy([{ path: "suggestion.yaml", text }], { generation: 0 });
  if (result.ok) return result.policy;
  const [first] = result.errors;
  throw new OutcallError(
    500,
    "suggest.unproven",
    `the suggestion does not hold: line ${first?.line ?? 1}: ${first?.message ?? "unknown"}`,
  );
}

/** The rules in force with those of a suggestion, as if its file were the last one. */
function together(policy: Policy, suggestion: Policy): Policy {
  const isEarly = ({ priority }: { readonly priority: number }): boolean => priority <= 100;
  const { rules } = policy.data;
  return buildPolicy({
    generation: 0,
    rules: [
      ...rules.filter(isEarly),
      ...suggestion.data.rules,
      ...rules.filter((rule) => !isEarly(rule)),
    ],
  });
}

function isBlocked(policy: Policy, request: RequestSpec): boolean {
  const steps = stepsOf(request);
  return steps.ok && !judge(policy, steps.steps).allowed;
}

/**
 * Suggests rules for what an agent was seen to do.
 * @param policy The rules in force: what they allow needs no other rule.
 * @param recorded What was recorded in the time that is meant.
 * @throws OutcallError `suggest.nothing` (404) when there is nothing to cover.
 */
export function suggest(
  policy: Policy,
  recorded: Iterable<Decision>,
  request: SuggestionRequest,
): Suggestion {
  const { agent } = request;
  const attempts = new Attempts(policy, recorded, request);
  if (attempts.kinds.size === 0) throw nothing(request, attempts);
  const draft = compiledRules(fileText([], new Author(agent, attempts, policy).parts, []));
  const drafted = together(policy, draft);
  for (const [key, { steps, text, count }] of attempts.kinds) {
    if (isAdmitted(drafted, steps)) continue;
    attempts.kinds.delete(key);
    attempts.leave(text, count, "a block rule, or a restriction of addresses, comes first");
  }
  if (attempts.kinds.size === 0) throw nothing(request, attempts);
  const { parts } = new Author(agent, attempts, policy);
  const alone = compiledRules(fileText([], parts, []));
  const all = together(policy, alone);
  const kinds = [...attempts.kinds.values()];
  const tests: Test[] = [
    ...kinds.flatMap(({ subject }) => {
      const spec = requestOf(agent, subject);
      // With an address in place of a name a block rule on addresses may speak up already.
      return spec === null || isBlocked(alone, spec) || isBlocked(all, spec)
        ? []
        : [{ request: spec, expect: "allow" as const }];
    }),
    ...neighbours(agent, kinds)
      .filter((spec) => isBlocked(alone, spec) && isBlocked(all, spec))
      .map((spec) => ({ request: spec, expect: "block" as const })),
  ];
  const covered = kinds.reduce((sum, { count }) => sum + count, 0);
  const notCovered = attempts.left;
  const file = fileText(header(request, covered, kinds.length, notCovered), parts, tests);
  compiledRules(file);
  return { file, rules: parts.length, tests: tests.length, covered, notCovered };
}

function nothing({ agent, includeBlocked }: SuggestionRequest, { left }: Attempts): OutcallError {
  const refused = left.filter(({ why }) => why === REFUSED)
    .reduce((sum, { count }) => sum + count, 0);
  return new OutcallError(
    404,
    "suggest.nothing",
    `nothing to suggest: no attempt of agent "${agent}" in that time was ${
      includeBlocked ? "without a rule" : "observed"
    }`,
    {
      hint: refused > 0
        ? `${attemptsText(refused)} without a rule were refused: --blocked covers them.`
        : "Run the agent with --observe, or give a longer --since.",
    },
  );
}

function header(
  { agent }: SuggestionRequest,
  covered: number,
  kinds: number,
  notCovered: readonly NotCovered[],
): string[] {
  const rest = notCovered.length - MAX_TOLD;
  return [
    `Suggested from ${attemptsText(covered)} of ${kinds} kind${kinds === 1 ? "" : "s"} by agent ${
      literal(agent)
    }.`,
    "Read it, and narrow what is too wide; then: outcall rules check, outcall rules diff.",
    ...(notCovered.length === 0 ? [] : ["Not covered:"]),
    ...notCovered.slice(0, MAX_TOLD).map(({ attempt, count, why }) =>
      `  ${count} x ${attempt}: ${why}`
    ),
    ...(rest > 0 ? [`  and ${rest} more kinds`] : []),
  ];
}
