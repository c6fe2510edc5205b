/** What would change: requests judged by the policy in force and by a candidate, and the rules themselves. */
import { type Answer, judge } from "./answer.ts";
import { decide } from "./decide.ts";
import { isSameRule, type Policy } from "./policy.ts";
import type { PolicyTest } from "./policytests.ts";
import { stepsOf } from "./request.ts";
import type { Facts, Layer, Verdict } from "./types.ts";

/** What a decision record holds of an attempt; the parts of it that rules can see. */
export interface RecordedAttempt {
  readonly layer: Layer | "kernel";
  readonly agent: { readonly name: string } | null;
  readonly attempt: {
    readonly host?: string;
    readonly address?: string;
    readonly port?: number;
    readonly method?: string;
    readonly path?: string;
    readonly protocol?: string;
    readonly recordType?: string;
    readonly tool?: string;
    readonly image?: string;
  };
}

/** One kind of attempt whose verdict would change. */
export interface Flip {
  readonly layer: Layer;
  readonly facts: Facts;
  /** How many of the recorded attempts are this one. */
  readonly count: number;
  readonly before: Verdict;
  readonly after: Verdict;
}

/** What would change. */
export interface PolicyDiff {
  /** Recorded attempts that could be judged again. */
  readonly examined: number;
  /** Most frequent first. */
  readonly flips: readonly Flip[];
}

/** `{ [key]: value }`, or nothing where the value is unknown. */
function known<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  const result: { [P in K]?: V } = {};
  if (value !== undefined) result[key] = value;
  return result;
}

/**
 * The facts of a recorded attempt, or null where the policy was not asked. What records leave out
 * (headers, arguments) stays unknown.
 */
export function recordedFacts({ layer, agent, attempt }: RecordedAttempt): Facts | null {
  if (layer === "kernel" || agent === null) return null;
  const { host, address, port, protocol, method, path, recordType } = attempt;
  const isDns = layer === "dns" || layer === "grant";
  return {
    network: {
      ...known("hostname", host),
      ...known("ip", address),
      ...known("port", port),
      ...known("protocol", isDns ? protocol : "tcp"),
    },
    http: { ...known("host", host), ...known("method", method), ...known("path", path) },
    ...(isDns ? { dns: { ...known("query", host), ...known("record_type", recordType) } } : {}),
    agent: { name: agent.name },
  };
}

/** Judges recorded attempts by both policies and lists those that differ. */
export function diffPolicies(
  before: Policy,
  after: Policy,
  recorded: Iterable<RecordedAttempt>,
): PolicyDiff {
  const kinds = new Map<string, { layer: Layer; facts: Facts; count: number }>();
  let examined = 0;
  for (const record of recorded) {
    const facts = recordedFacts(record);
    if (facts === null || record.layer === "kernel") continue;
    examined++;
    const key = JSON.stringify([record.layer, facts]);
    const kind = kinds.get(key);
    if (kind === undefined) kinds.set(key, { layer: record.layer, facts, count: 1 });
    else kind.count++;
  }
  const flips = [...kinds.values()].flatMap(({ layer, facts, count }) => {
    const was = decide(before, layer, facts);
    const is = decide(after, layer, facts);
    return was.allowed === is.allowed ? [] : [{ layer, facts, count, before: was, after: is }];
  });
  return { examined, flips: flips.sort((a, b) => b.count - a.count) };
}

/** A policy test's request that would get another answer. */
export interface TestFlip {
  readonly name: string;
  readonly before: Answer;
  readonly after: Answer;
}

/** What would change for policy tests. */
export interface TestDiff {
  /** Different requests among them. */
  readonly examined: number;
  /** In the order of the tests. */
  readonly flips: readonly TestFlip[];
}

/** Judges the requests of policy tests by both policies and lists those that differ. */
export function diffTests(before: Policy, after: Policy, tests: readonly PolicyTest[]): TestDiff {
  const requests = new Map(tests.map((test) => [JSON.stringify(test.request), test]));
  const flips = [...requests.values()].flatMap(({ name, request }) => {
    const steps = stepsOf(request);
    if (!steps.ok) return [];
    const [was, is] = [judge(before, steps.steps), judge(after, steps.steps)];
    return was.allowed === is.allowed ? [] : [{ name, before: was, after: is }];
  });
  return { examined: requests.size, flips };
}

/** Ids of rules that only one of two policies has, or that say something else. */
export interface RuleChanges {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  readonly changed: readonly string[];
}

/** Compares two policies rule by rule. */
export function diffRules(before: Policy, after: Policy): RuleChanges {
  const added = after.rules.filter(({ id }) => !before.byId.has(id));
  const removed = before.rules.filter(({ id }) => !after.byId.has(id));
  const changed = after.rules.filter((rule) => {
    const old = before.byId.get(rule.id);
    return old !== undefined && !isSameRule(old, rule);
  });
  const ids = (rules: readonly { id: string }[]): string[] => rules.map(({ id }) => id);
  return { added: ids(added), removed: ids(removed), changed: ids(changed) };
}
