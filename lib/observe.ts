/**
 * Observation: one agent, for a time, is let out where no rule allows it and none blocks, so that the
 * rules it needs can be written from what it did (`outcall suggest`).
 *
 * It is a hole on purpose, and so it is bound: to one container or namespace agent and not to a name,
 * to a time limit, and to this daemon; no file remembers it. What ends it: its time, its agent, the
 * loss of Docker's events (nobody could tell then that a container has ended), an operator, a restart.
 */
import type { Agent } from "./agents.ts";
import type { ActiveObservation, ObservationService } from "./api/observe.ts";
import { messageOf, OutcallError } from "./errors.ts";
import type { PartHealth } from "./health.ts";
import { logger } from "./log.ts";

const log = logger("rule_engine");

/** Whom to observe: one of both ids must be there. */
export type Observed = Pick<Agent, "name" | "containerId" | "cable">;

/** Begins an observation; settles when it is in force everywhere. */
export type Observe = (agent: Observed, durationSecs: number) => Promise<void>;

interface Observation {
  readonly agent: Observed;
  readonly beganAtMs: number;
  readonly endsAtMs: number;
  readonly timer: ReturnType<typeof setTimeout>;
}

function nameOf({ name }: Observed): string {
  return name === "" ? "an agent without a name" : name;
}

/** The observations of one daemon. */
export class Observations implements ObservationService {
  readonly #apply: (keys: ReadonlySet<string>) => Promise<void>;
  readonly #byKey = new Map<string, Observation>();

  /** @param apply Puts exactly these agents under observation; as `ActivePolicy.observe`. */
  constructor(apply: (keys: ReadonlySet<string>) => Promise<void>) {
    this.#apply = apply;
  }

  /** A bound function: see {@linkcode Observe}. */
  readonly begin: Observe = async (agent, durationSecs) => {
    const key = agent.containerId ?? agent.cable;
    if (key === undefined) throw new RangeError("nobody can tell who is to be observed");
    clearTimeout(this.#byKey.get(key)?.timer);
    const beganAtMs = Date.now();
    const timer = setTimeout(() => void this.#end(key, "its time is up"), durationSecs * 1_000);
    // Whoever stops the daemon does not wait for it.
    Deno.unrefTimer(timer);
    this.#byKey.set(key, { agent, beganAtMs, endsAtMs: beganAtMs + durationSecs * 1_000, timer });
    log.warn("{agent} is observed for {durationSecs} s: whatever no rule blocks is let out", {
      agent: nameOf(agent),
      durationSecs,
    });
    try {
      await this.#update();
    } catch (thrown) {
      await this.#end(key, "it could not begin everywhere");
      throw thrown;
    }
  };

  /** An agent is gone; null: any container may be. */
  gone(key: string | null): void {
    for (const [each, { agent }] of this.#byKey) {
      if (key === each) void this.#end(each, "it is gone");
      else if (key === null && agent.containerId !== undefined) {
        void this.#end(each, "Docker is away, and cannot tell when it ends");
      }
    }
  }

  list(): readonly ActiveObservation[] {
    return [...this.#byKey].map(([key, { agent, beganAtMs, endsAtMs }]) => ({
      agent: agent.name,
      key,
      began_at: new Date(beganAtMs).toISOString(),
      ends_in_secs: Math.max(0, Math.ceil((endsAtMs - Date.now()) / 1_000)),
    }));
  }

  async end(agent: string): Promise<number> {
    const keys = [...this.#byKey].filter(([key, each]) =>
      key === agent || each.agent.name === agent
    )
      .map(([key]) => key);
    if (keys.length === 0) {
      throw new OutcallError(404, "observe.unknown", `no agent "${agent}" is observed`, {
        hint: "outcall observe list",
      });
    }
    await Promise.all(keys.map((key) => this.#end(key, "an operator ended it")));
    return keys.length;
  }

  /** Null while nobody is observed: there is nothing to warn of. */
  health(): PartHealth | null {
    const observed = this.list();
    if (observed.length === 0) return null;
    const list = observed.map(({ agent, ends_in_secs: secs }) =>
      `${agent === "" ? "an agent without a name" : agent} (${secs} s left)`
    );
    return {
      name: "observation",
      state: "degraded",
      detail: `what no rule blocks is let out for ${list.join(", ")}`,
    };
  }

  /** Never rejects: nobody waits for most ends. */
  async #end(key: string, why: string): Promise<void> {
    const observation = this.#byKey.get(key);
    if (observation === undefined) return;
    clearTimeout(observation.timer);
    this.#byKey.delete(key);
    log.warn("{agent} is no longer observed: {why}", { agent: nameOf(observation.agent), why });
    try {
      await this.#update();
    } catch (thrown) {
      log.error("the end of an observation is not in force everywhere: {error}", {
        error: messageOf(thrown),
      });
    }
  }

  #update(): Promise<void> {
    return this.#apply(new Set(this.#byKey.keys()));
  }
}
