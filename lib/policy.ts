/**
 * The policy in force: loads the rules directory, swaps whole snapshots, and judges.
 *
 * A reload validates the whole set before one pointer is swapped; whoever judged with the old
 * snapshot finishes on it. Listeners then re-judge what is alive (DNS cache, tunnels).
 */
import type {
  PolicyDiffResult,
  PolicyService,
  ReloadResult,
  RuleDetail,
  RuleSummary,
} from "./api/services.ts";
import type { PolicyLoads } from "./api/status.ts";
import type { Change, Decision } from "./decision.ts";
import { messageOf, OutcallError } from "./errors.ts";
import { logger } from "./log.ts";
import { Mutex } from "./mutex.ts";
import { type DecisionExplanation, explainDecision } from "./record/explain.ts";
import { suggest, type Suggestion, type SuggestionRequest } from "./record/suggest.ts";
import { type Answer, answer } from "./rules/answer.ts";
import { compilePolicy, type CompileResult } from "./rules/compile.ts";
import { type RuleCounter, RuleCounters } from "./rules/counters.ts";
import { decide } from "./rules/decide.ts";
import { type Diagnostic, formatDiagnostic } from "./rules/diagnostic.ts";
import { diffPolicies, diffRules, diffTests } from "./rules/diff.ts";
import { explain, type Explanation } from "./rules/explain.ts";
import { PolicyHistory } from "./rules/history.ts";
import {
  buildPolicy,
  type CompiledRule,
  emptyPolicy,
  type Policy,
  withObserved,
} from "./rules/policy.ts";
import type { PolicyTest } from "./rules/policytests.ts";
import { readRulesDir, type RuleFile, type RulesDirectory } from "./rules/read.ts";
import type { RequestSpec } from "./rules/request.ts";
import {
  DEFAULT_BODY_BYTES,
  type Egress,
  type Facts,
  type Layer,
  type RuleFailure,
  type Verdict,
} from "./rules/types.ts";

const log = logger("rule_engine");

/** A verdict and the generation of the snapshot that gave it. */
export interface Judgement {
  readonly verdict: Verdict;
  readonly generation: number;
}

/** What the policy in force says to a whole request, or what is wrong with the request. */
export type Asked =
  | { readonly ok: true; readonly answer: Answer; readonly generation: number }
  | { readonly ok: false; readonly message: string };

/** Judges an attempt at a layer by the policy in force at this moment. */
export type Judge = (layer: Layer, facts: Facts) => Judgement;

function warningText(warning: Diagnostic): string {
  return `${warning.file}:${warning.line}: ${warning.message}`;
}

type Compiled = Extract<CompileResult, { ok: true }>;

function summaryOf(rule: CompiledRule): RuleSummary {
  const { id, file, line, action, priority, condition, description } = rule;
  return { id, file, line, action, priority, condition, description };
}

/** Re-judges what is alive; settles when nothing is judged by the old snapshot any more. */
export type SwapListener = (policy: Policy) => void | Promise<void>;

/** The rules directory, compiled; nothing is allowed before the first {@linkcode reload}. */
export class ActivePolicy implements PolicyService {
  readonly #dir: string;
  readonly #proxyEnabled: boolean;
  readonly #isWithdrawn: (path: string) => boolean;
  readonly #listeners: SwapListener[] = [];
  readonly #mutex = new Mutex();
  readonly #counters = new RuleCounters();
  readonly #history = new PolicyHistory();
  #policy: Policy = emptyPolicy(0);
  #tests: readonly PolicyTest[] = [];
  #loads: Omit<PolicyLoads, "generation" | "rules"> = {
    files: 0,
    loaded_at: null,
    reloads: 0,
    reloads_refused: 0,
    refusal: null,
  };

  /**
   * @param dir The rules directory; a missing one is an empty set.
   * @param proxyEnabled False refuses rules that ask for the proxy: without it they would be
   * allowed on paper and dead in practice (`--no-proxy`).
   * @param isWithdrawn Files of the directory that are not to be loaded: rules that were granted for
   * a time must end with it, even where their file cannot be removed.
   */
  constructor(
    dir: string,
    proxyEnabled: boolean,
    isWithdrawn: (path: string) => boolean = () => false,
  ) {
    this.#dir = dir;
    this.#proxyEnabled = proxyEnabled;
    this.#isWithdrawn = isWithdrawn;
  }

  /** Calls `listener` after each swap; {@linkcode reload} waits for it. */
  onSwap(listener: SwapListener): void {
    this.#listeners.push(listener);
  }

  /** Of the snapshot in force; it rises with each change of the rules. */
  get generation(): number {
    return this.#policy.generation;
  }

  /** What is loaded, and how often it was tried. */
  loads(): PolicyLoads {
    const { generation, rules } = this.#policy;
    return { generation, rules: rules.length, ...this.#loads };
  }

  list(): readonly RuleSummary[] {
    return this.#policy.rules.map(summaryOf);
  }

  find(id: string): RuleDetail | undefined {
    const rule = this.#policy.byId.get(id);
    return rule && {
      ...summaryOf(rule),
      ...this.#counters.of(rule),
      log: rule.log,
      egress: rule.egress && egressDetail(rule.egress),
    };
  }

  counters(): readonly RuleCounter[] {
    return this.#counters.list(this.#policy);
  }

  explain(request: RequestSpec): Explanation {
    return explain(this.#policy, request);
  }

  explainDecision(decision: Decision, recorded: Iterable<Decision>): DecisionExplanation {
    return explainDecision(decision, this.#history, this.#policy, recorded);
  }

  suggest(recorded: Iterable<Decision>, request: SuggestionRequest): Suggestion {
    return suggest(this.#policy, recorded, request);
  }

  evaluate(layer: Layer, facts: Facts): Verdict {
    return decide(this.#policy, layer, facts);
  }

  /** What the layers say to a whole request (decision D31); recorded by the caller. */
  ask(request: RequestSpec, agent: Facts["agent"]): Asked {
    const policy = this.#policy;
    const asked = answer(policy, request, agent);
    return asked.ok ? { ...asked, generation: policy.generation } : asked;
  }

  /**
   * Lets these agents, and no others, be observed: what no rule allows them passes, and is recorded
   * as such. Settles when nothing is judged otherwise any more.
   * @param observed Keys of agents, as in `Facts.agent.key`.
   */
  observe(observed: ReadonlySet<string>): Promise<void> {
    return this.#mutex.run(async () => {
      const before = this.#policy;
      await this.#swap(withObserved(before, before.generation + 1, observed));
    });
  }

  /**
   * Takes the rules of one file out of the policy in force. Unlike a reload this cannot fail, whatever
   * the directory holds by now.
   */
  withdraw(path: string): Promise<void> {
    return this.#mutex.run(async () => {
      const before = this.#policy;
      const rules = before.data.rules.filter(({ file }) => file !== path);
      if (rules.length === before.data.rules.length) return;
      await this.#swap(buildPolicy({ ...before.data, generation: before.generation + 1, rules }));
    });
  }

  /** A bound function, so that it can be handed to the enforcement points as it is. */
  readonly judge: Judge = (layer, facts) => {
    const policy = this.#policy;
    const verdict = decide(policy, layer, facts);
    if (verdict.failures !== undefined) this.countFailures(verdict.failures);
    return { verdict, generation: policy.generation };
  };

  /** Counts what an enforcement point decided, and logs it for rules that ask; to be a sink of the decision log. */
  readonly count = (decision: Decision, change: Change): void => {
    const { id, rule, reason, verdict, layer, time, count } = decision;
    // A rule that is named for its port did not match.
    if (change !== "new" || rule === null || reason === "port") return;
    // Other reasons refuse what the rule would have let pass.
    const blocked = verdict === "block" && (reason === "rule" || reason === "rule_error");
    this.#counters.countMatch(rule, blocked, Date.parse(time), count);
    if (this.#policy.byId.get(rule.id)?.log !== true) return;
    const fields = { rule: rule.id, file: rule.file, verdict, layer, id };
    log.info("rule {rule} ({file}) matched: {verdict} {layer} id={id}", fields);
  };

  /**
   * Reads, checks and compiles the directory, then swaps.
   * @throws OutcallError `rules.invalid` (422) with every mistake; the old set stays.
   */
  reload(): Promise<ReloadResult> {
    return this.#mutex.run(async () => {
      try {
        const result = await this.#load();
        this.#loads = {
          ...this.#loads,
          files: result.files_loaded,
          loaded_at: new Date().toISOString(),
          reloads: this.#loads.reloads + 1,
          refusal: null,
        };
        return result;
      } catch (thrown) {
        const refused = this.#loads.reloads_refused + 1;
        this.#loads = { ...this.#loads, reloads_refused: refused, refusal: messageOf(thrown) };
        throw thrown;
      }
    });
  }

  diff(files: readonly RuleFile[], recorded: Iterable<Decision>): PolicyDiffResult {
    const { policy, policyTests } = this.#compile({ files, problems: [] });
    const current = this.#policy;
    return {
      rules: diffRules(current, policy),
      decisions: diffPolicies(current, policy, recorded),
      tests: diffTests(current, policy, [...this.#tests, ...policyTests]),
    };
  }

  #compile({ files, problems }: Readonly<RulesDirectory>): Compiled {
    const compiled = compilePolicy(files, { generation: this.#policy.generation + 1 });
    const errors = [...problems, ...(compiled.ok ? [] : compiled.errors)];
    if (compiled.ok && !this.#proxyEnabled) errors.push(...proxyRules(compiled.policy));
    const [first] = errors;
    if (first === undefined && compiled.ok) return compiled;
    throw new OutcallError(
      422,
      "rules.invalid",
      first === undefined ? "the rules are invalid" : warningText(first),
      {
        hint: "nothing was changed; correct the rules (outcall rules check shows each mistake) " +
          "and load them again",
        details: errors,
        report: errors.map(formatDiagnostic).join("\n"),
      },
    );
  }

  async #load(): Promise<ReloadResult> {
    const found = readRulesDir(this.#dir);
    const directory = {
      files: found.files.filter(({ path }) => !this.#isWithdrawn(path)),
      problems: found.problems,
    };
    const { policy, policyTests, warnings } = this.#compile(directory);
    this.#tests = policyTests;
    await this.#swap(withObserved(policy, policy.generation, this.#policy.observed));
    for (const warning of warnings) {
      log.warn("{warning}", { warning: warningText(warning) });
    }
    return {
      files_loaded: directory.files.length,
      rules_loaded: policy.rules.length,
      generation: policy.generation,
      warnings: warnings.map(warningText),
    };
  }

  async #swap(policy: Policy): Promise<void> {
    this.#counters.keepUnchanged(this.#policy, policy);
    this.#policy = policy;
    this.#history.add(policy.data, Date.now());
    await Promise.all(this.#listeners.map((listener) => this.#tell(listener, policy)));
  }

  /** Counts rules that failed where another thread judged, and warns of them now and then. */
  readonly countFailures = (failures: readonly RuleFailure[]): void => {
    for (const { id, file, line, message } of this.#counters.countFailures(failures, Date.now())) {
      const place = `${file}:${line}`;
      log.warn("{place}: rule {id} cannot be evaluated: {message}", { place, id, message });
    }
  };

  /** One listener that throws must not keep the others from cutting what the new rules forbid. */
  async #tell(listener: SwapListener, policy: Policy): Promise<void> {
    try {
      await listener(policy);
    } catch (thrown) {
      log.error("after the reload: {error}", { error: messageOf(thrown) });
    }
  }
}

/** Rules that only the proxy could serve, as problems (ADV-HOST-11b). */
function proxyRules(policy: Policy): Diagnostic[] {
  return policy.rules.filter((rule) => rule.egress?.mode === "proxy").map((rule) => ({
    severity: "error" as const,
    code: "rules.no_proxy",
    file: rule.file,
    line: rule.line,
    column: 1,
    message: `rule "${rule.id}" needs the proxy, and the daemon runs with --no-proxy`,
  }));
}

/** What a rule grants, as the API tells it. */
export function egressDetail(egress: Egress): NonNullable<RuleDetail["egress"]> {
  return {
    mode: egress.mode,
    ports: egress.ports ?? null,
    allow_private_ips: egress.allowPrivateIps,
    tls: egress.tls,
    max_body_bytes: egress.maxBodyBytes ?? DEFAULT_BODY_BYTES,
  };
}
