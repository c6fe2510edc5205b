/**
 * Rules that would allow a recorded attempt, from narrow to wide. Each is compiled and asked before it
 * is shown: a proposal that does not allow what it is for is none.
 */
import { Ip } from "../net/ip.ts";
import { restrictedRange } from "../net/restricted.ts";
import { compilePolicy } from "./compile.ts";
import { decide } from "./decide.ts";
import type { RecordedAttempt } from "./diff.ts";
import { ownDomain } from "./domain.ts";
import { type Draft, draftText, fileText, literal, newRuleId } from "./draft.ts";
import { HostIndex } from "./index.ts";
import { lint } from "./lint.ts";
import { buildPolicy, type CompiledRule, type Policy, type RuleData } from "./policy.ts";
import { type Subject, subjectOf, walkOf } from "./replay.ts";
import type { Step } from "./request.ts";
import { attemptText } from "./words.ts";
import type { Layer, Verdict } from "./types.ts";

/** How much a proposal opens. */
export type Width = "request" | "host" | "domain";

/** A recorded attempt, with what became of it. */
export interface RecordedDecision extends RecordedAttempt {
  readonly verdict: "allow" | "block";
  readonly reason: string;
  readonly count?: number;
}

/** A block rule that decides before a proposed rule is asked. */
export interface RuleInFront {
  readonly id: string;
  readonly file: string;
  readonly line: number;
  readonly priority: number;
  readonly layer: Layer;
}

/** One rule that would allow the attempt. */
export interface Proposal {
  readonly width: Width;
  readonly id: string;
  /** YAML, an item of `rules:`. */
  readonly rule: string;
  /** What it opens, in plain words. */
  readonly opens: readonly string[];
  /** What its author may want to reconsider. */
  readonly warnings: readonly string[];
  /** Null: to put the rule into any file of the directory is enough. */
  readonly inFront: RuleInFront | null;
  /** Other recorded attempts that were not allowed by a rule, and would be. */
  readonly alsoAdmits: { readonly count: number; readonly examples: readonly string[] };
}

/** Priority of a rule that does not say: where it is pasted decides what comes before it. */
const DEFAULT_PRIORITY = 100;

const MAX_EXAMPLES = 5;

/** Types that every allowed name is answered with. */
const ADDRESS_TYPES: ReadonlySet<string> = new Set(["A", "AAAA", "HTTPS", "SVCB"]);

/** A draft without its id. */
interface Shape {
  readonly width: Width;
  /** Words for the id. */
  readonly named: readonly string[];
  readonly clauses: readonly string[];
  readonly ports?: readonly number[];
  readonly isDirect?: boolean;
  readonly opens: readonly string[];
}

const EVERYTHING = "every method and path";

/** What a tunnel is for, unless a rule says more. */
function tunnelText(named: string, ports: readonly number[]): string {
  const isUsual = ports.length === 1 && ports[0] === 443;
  return `${isUsual ? "HTTPS" : "HTTPS and other TLS"} to ${named}, ${portsText(ports)}: ` +
    `${EVERYTHING}, since nobody sees inside` +
    (isUsual ? "" : " (without TLS: add egress tls: any)");
}

function portsText(ports: readonly number[]): string {
  return `port${ports.length === 1 ? "" : "s"} ${ports.join(", ")}`;
}

/** All that a client needs of a host, or of a domain. */
function wide(
  names: Pick<Shape, "width" | "named">,
  clause: string,
  subject: string,
  tunnelPort: number,
): Shape {
  const ports = tunnelPort === 443 ? undefined : [80, 443, tunnelPort].toSorted((a, b) => a - b);
  return {
    ...names,
    clauses: [clause],
    ...(ports === undefined ? {} : { ports }),
    opens: [
      tunnelText(subject, ports ?? [443]),
      `plain HTTP to ${subject}, ${
        ports === undefined ? "any port but those of other services" : portsText(ports)
      }: ${EVERYTHING}`,
      `look-ups of ${subject}`,
    ],
  };
}

/** Host and domain, as they are named in rules and to people. */
function wideShapes(host: string, port: number): Shape[] {
  const domain = ownDomain(host);
  const ofHost = wide(
    { width: "host", named: [host] },
    `http.host == ${literal(host)}`,
    host,
    port,
  );
  if (domain === null) return [ofHost];
  const ofDomain = wide(
    { width: "domain", named: ["under", domain] },
    `http.host.under(${literal(domain)})`,
    `${domain} and all names below it`,
    port,
  );
  return [ofHost, ofDomain];
}

function lookupShapes(host: string, recordType: string): Shape[] {
  const only: Shape = {
    width: "request",
    named: [host, recordType],
    clauses: [
      `dns.query == ${literal(host)}`,
      `dns.record_type == ${literal(recordType)}`,
    ],
    opens: [`look-ups of ${host}, type ${recordType}: no connection to it`],
  };
  if (ADDRESS_TYPES.has(recordType)) return [only, ...wideShapes(host, 443)];
  const domain = ownDomain(host);
  if (domain === null) return [only];
  return [only, {
    width: "domain",
    named: ["under", domain, recordType],
    clauses: [
      `dns.query.under(${literal(domain)})`,
      `dns.record_type == ${literal(recordType)}`,
    ],
    opens: [
      `look-ups of ${domain} and all names below it, type ${recordType}: no connection to them`,
    ],
  }];
}

function shapesOf(subject: Subject): Shape[] {
  switch (subject.kind) {
    case "lookup":
      return lookupShapes(subject.host, subject.recordType);
    case "tunnel": {
      const { host, port } = subject;
      return [{
        width: "request",
        named: [host, String(port)],
        clauses: [
          `http.host == ${literal(host)}`,
          'http.method == "CONNECT"',
          `network.port == ${port}`,
        ],
        opens: [tunnelText(host, [port]), `look-ups of ${host}`],
      }, ...wideShapes(host, port)];
    }
    case "request": {
      const { host, port, method, path } = subject;
      return [{
        width: "request",
        named: [host, method],
        clauses: [
          `http.host == ${literal(host)}`,
          `network.port == ${port}`,
          `http.method == ${literal(method)}`,
          `http.path == ${literal(path)}`,
        ],
        opens: [
          `plain HTTP: ${method} ${host}:${port}${path}, whatever the query, headers and body`,
          `look-ups of ${host}`,
        ],
      }, ...wideShapes(host, 443)];
    }
    case "direct": {
      const { host, port, protocol } = subject;
      return [{
        width: "request",
        named: ["direct", host, String(port)],
        isDirect: true,
        clauses: [
          `network.hostname == ${literal(host)}`,
          `network.port == ${port}`,
          `network.protocol == ${literal(protocol)}`,
        ],
        opens: [
          `${protocol} port ${port} of the addresses that ${host} resolves to, past the proxy: nobody sees what is sent`,
          `look-ups of ${host}`,
        ],
      }];
    }
    case "tool":
      return [{
        width: "request",
        named: [subject.tool],
        clauses: [`run.tool == ${literal(subject.tool)}`],
        opens: [`${subject.tool} with any arguments, in any directory`],
      }];
    case "file":
      return [{
        width: "request",
        named: ["file"],
        clauses: ['run.tool == "file"', `${literal(subject.path)} in run.args`],
        opens: [`access to ${subject.path}`],
      }];
  }
}

/** The policy with one more rule, where it is asked last among those without a priority. */
function withRule(policy: Policy, rule: RuleData): Policy {
  const after = policy.rules.findIndex(({ priority }) => priority > DEFAULT_PRIORITY);
  const at = after < 0 ? policy.rules.length : after;
  // The rules that there are need not be compiled again: there may be thousands.
  const rules = policy.rules.toSpliced(
    at,
    0,
    ...buildPolicy({ generation: 0, rules: [rule] }).rules,
  );
  return {
    ...policy,
    rules,
    byId: new Map(rules.map((each) => [each.id, each])),
    index: new HostIndex(rules.map(({ expr }) => expr)),
    data: { ...policy.data, rules: policy.data.rules.toSpliced(at, 0, rule) },
  };
}

/**
 * Whether the proxy would refuse the address all the same (decision D23): a rule that does not open
 * private addresses does nothing for one.
 */
function isRestricted({ layer, facts }: Step, { egress }: Verdict): boolean {
  const ip = layer === "dns" ? null : Ip.parse(facts.network?.ip ?? "");
  return ip !== null && restrictedRange(ip) !== null && egress?.allowPrivateIps !== true;
}

/** The first verdict that is no yes; null when every layer says yes. */
function obstacle(
  policy: Policy,
  steps: readonly Step[],
): { readonly layer: Layer; readonly verdict: Verdict } | null {
  for (const step of steps) {
    const verdict = decide(policy, step.layer, step.facts);
    if (!verdict.allowed || isRestricted(step, verdict)) return { layer: step.layer, verdict };
  }
  return null;
}

/** Whether every layer that a recorded attempt met would let it pass. */
export function isAdmitted(policy: Policy, steps: readonly Step[]): boolean {
  return steps.length > 0 && obstacle(policy, steps) === null;
}

function inFrontOf(policy: Policy, { layer, verdict }: NonNullable<ReturnType<typeof obstacle>>):
  | RuleInFront
  | null {
  const rule: CompiledRule | undefined = policy.byId.get(verdict.rule?.id ?? "");
  if (rule?.action !== "block") return null;
  const { id, file, line, priority } = rule;
  return { id, file, line, priority, layer };
}

/** One kind of attempt that no rule allowed. */
interface Refused {
  readonly text: string;
  readonly steps: readonly Step[];
  count: number;
}

/** What no rule allowed, other than `subject` by `agent`, and still would not; each kind once. */
function refused(
  policy: Policy,
  own: string,
  recorded: Iterable<RecordedDecision>,
): readonly Refused[] {
  const kinds = new Map<string, Refused | null>();
  for (const record of recorded) {
    if (record.reason !== "default" && record.reason !== "port" && record.reason !== "observed") {
      continue;
    }
    const key = kindOf(record);
    if (key === own) continue;
    let kind = kinds.get(key);
    if (kind === undefined) {
      const steps = walkOf(record);
      const counts = steps.length > 0 && !isAdmitted(policy, steps);
      kind = counts ? { text: attemptText(record), steps, count: 0 } : null;
      kinds.set(key, kind);
    }
    if (kind !== null) kind.count += record.count ?? 1;
  }
  return [...kinds.values()].filter((kind) => kind !== null)
    .toSorted((a, b) => b.count - a.count);
}

function kindOf(record: RecordedAttempt): string {
  return JSON.stringify([record.layer === "dns", record.agent?.name, subjectOf(record)]);
}

/** A proposed rule, compiled, or null when it does not compile: nothing unproven is shown. */
function compiled(draft: Draft): RuleData | null {
  const result = compilePolicy([{ path: "proposal.yaml", text: fileText([draft]) }], {
    generation: 0,
  });
  return result.ok ? result.policy.data.rules[0] ?? null : null;
}

/**
 * Rules that would allow what a record is about, by the rules in force; narrow ones first. Empty when
 * they allow it already, and where no rule could.
 * @param recorded What else was attempted.
 */
export function propose(
  policy: Policy,
  record: RecordedAttempt,
  recorded: Iterable<RecordedDecision>,
): readonly Proposal[] {
  const subject = subjectOf(record);
  const steps = walkOf(record);
  const agent = record.agent?.name;
  if (subject === null || agent === undefined || steps.length === 0) return [];
  if (isAdmitted(policy, steps)) return [];
  const others = refused(policy, kindOf(record), recorded);
  const taken = new Set(policy.byId.keys());
  return shapesOf(subject).flatMap((shape) => {
    const { width, opens } = shape;
    const words = ["allow", agent, ...shape.named].filter((word) => word !== "");
    const id = newRuleId(words, (id) => taken.has(id));
    taken.add(id);
    const draft: Draft = {
      id,
      description: `the ${
        subject.kind === "lookup" && width === "request" ? "look-up" : width
      } that ${agent === "" ? "an agent without a name" : agent} asked for`,
      clauses: [`agent.name == ${literal(agent)}`, ...shape.clauses],
      ...(shape.ports === undefined ? {} : { ports: shape.ports }),
      ...(shape.isDirect === undefined ? {} : { isDirect: shape.isDirect }),
    };
    const rule = compiled(draft);
    if (rule === null) return [];
    const candidate = withRule(policy, rule);
    const left = obstacle(candidate, steps);
    const inFront = left === null ? null : inFrontOf(candidate, left);
    // Neither proven nor kept from it by a block rule: a rule that does nothing.
    if (left !== null && inFront === null) return [];
    const admitted = others.filter(({ steps }) => isAdmitted(candidate, steps));
    return [{
      width,
      id,
      rule: draftText(draft),
      opens,
      warnings: lint(buildPolicy({ generation: 0, rules: [rule] })).map(({ message, hint }) =>
        hint === undefined ? message : `${message}. ${hint}`
      ),
      inFront,
      alsoAdmits: {
        count: admitted.reduce((sum, { count }) => sum + count, 0),
        examples: admitted.slice(0, MAX_EXAMPLES).map(({ text, count }) =>
          count === 1 ? text : `${text} (${count} times)`
        ),
      },
    }];
  });
}
