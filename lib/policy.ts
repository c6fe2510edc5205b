/**
 * The policy in force: loads the rules directory, swaps whole snapshots, and judges.
 *
 * A reload validates the whole set before one pointer is swapped; whoever judged with the old
 * snapshot finishes on it. Listeners then re-judge what is alive (DNS cache, tunnels).
 */
import type { PolicyService, ReloadResult, RuleSummary } from "./api/services.ts";
import { messageOf, OutcallError } from "./errors.ts";
import { logger } from "./log.ts";
import { Mutex } from "./mutex.ts";
import { compilePolicy } from "./rules/compile.ts";
import { decide } from "./rules/decide.ts";
import type { Diagnostic } from "./rules/diagnostic.ts";
import type { Policy } from "./rules/policy.ts";
import { readRulesDir } from "./rules/read.ts";
import type { Facts, Layer, Verdict } from "./rules/types.ts";

const log = logger("rule_engine");

/** A verdict and the generation of the snapshot that gave it. */
export interface Judgement {
  readonly verdict: Verdict;
  readonly generation: number;
}

/** Judges an attempt at a layer by the policy in force at this moment. */
export type Judge = (layer: Layer, facts: Facts) => Judgement;

function warningText(warning: Diagnostic): string {
  return `${warning.file}:${warning.line}: ${warning.message}`;
}

/** Re-judges what is alive; settles when nothing is judged by the old snapshot any more. */
export type SwapListener = (policy: Policy) => void | Promise<void>;

/** The rules directory, compiled; nothing is allowed before the first {@linkcode reload}. */
export class ActivePolicy implements PolicyService {
  readonly #dir: string;
  readonly #proxyEnabled: boolean;
  readonly #listeners: SwapListener[] = [];
  readonly #mutex = new Mutex();
  #policy: Policy | null = null;
  #generation = 0;

  /**
   * @param dir The rules directory; a missing one is an empty set.
   * @param proxyEnabled False refuses rules that ask for the proxy: without it they would be
   * allowed on paper and dead in practice (`--no-proxy`).
   */
  constructor(dir: string, proxyEnabled: boolean) {
    this.#dir = dir;
    this.#proxyEnabled = proxyEnabled;
  }

  /** Calls `listener` after each swap; {@linkcode reload} waits for it. */
  onSwap(listener: SwapListener): void {
    this.#listeners.push(listener);
  }

  list(): readonly RuleSummary[] {
    return (this.#policy?.rules ?? []).map((rule) => ({
      id: rule.id,
      file: rule.file,
      line: rule.line,
      action: rule.action,
      priority: rule.priority,
      condition: rule.condition,
      description: rule.description,
    }));
  }

  evaluate(layer: Layer, facts: Facts): Verdict {
    return this.judge(layer, facts).verdict;
  }

  /** A bound function, so that it can be handed to the enforcement points as it is. */
  readonly judge: Judge = (layer, facts) => {
    const policy = this.#policy;
    const verdict: Verdict = policy === null
      ? { allowed: false, reason: "default", rule: null, egress: null }
      : decide(policy, layer, facts);
    return { verdict, generation: policy?.generation ?? 0 };
  };

  /**
   * Reads, checks and compiles the directory, then swaps.
   * @throws OutcallError `rules.invalid` (422) with every mistake; the old set stays.
   */
  reload(): Promise<ReloadResult> {
    return this.#mutex.run(() => this.#load());
  }

  async #load(): Promise<ReloadResult> {
    const { files, problems } = readRulesDir(this.#dir);
    const compiled = compilePolicy(files, { generation: this.#generation + 1 });
    const errors = [...problems, ...(compiled.ok ? [] : compiled.errors)];
    if (compiled.ok && !this.#proxyEnabled) errors.push(...proxyRules(compiled.policy));
    const [first] = errors;
    if (first !== undefined || !compiled.ok) {
      throw new OutcallError(
        422,
        "rules.invalid",
        first === undefined ? "the rules are invalid" : warningText(first),
        {
          hint: "nothing was changed; correct the rules and reload",
          details: errors,
        },
      );
    }
    this.#generation = compiled.policy.generation;
    this.#policy = compiled.policy;
    await Promise.all(this.#listeners.map((listener) => this.#tell(listener, compiled.policy)));
    for (const warning of compiled.warnings) {
      log.warn("{warning}", { warning: warningText(warning) });
    }
    return {
      files_loaded: files.length,
      rules_loaded: compiled.policy.rules.length,
      generation: this.#generation,
      warnings: compiled.warnings.map(warningText),
    };
  }

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
