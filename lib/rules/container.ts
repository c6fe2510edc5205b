/** Whether the rules let an operator create a container: the `container` layer. Pure. */
import { decide } from "./decide.ts";
import { mentions } from "./ir.ts";
import type { FactName } from "./language.ts";
import { buildPolicy, type Policy } from "./policy.ts";
import type { Facts, Verdict } from "./types.ts";

const DOCKER_FACTS: readonly FactName[] = [
  "docker.image",
  "docker.command",
  "docker.volumes",
  "docker.env_keys",
  "docker.capabilities",
];

/** What the rules say to the creation of a container. */
export interface ContainerVerdict {
  /** Whether it may be created; also where no rule speaks of containers. */
  readonly permitted: boolean;
  readonly verdict: Verdict;
  /** Of the policy that decided. */
  readonly generation: number;
}

/**
 * The rules of a policy that speak of containers: those that read a `docker.*` fact.
 *
 * Only they decide about creation. A rule such as `agent.name == "x"`, or a closing block rule
 * `true`, is about traffic, and must not keep an operator from starting anything. While no allow rule
 * is among them, what no block rule refuses is permitted, since creating is the act of an operator
 * and opens no network; from the first allow rule on, one has to match, because a list of permitted
 * images that permits every other image as well would be no list.
 */
export class ContainerRules {
  readonly #policy: Policy;
  readonly #needsAllowRule: boolean;

  constructor({ data }: Policy) {
    const rules = data.rules.filter(({ expr }) =>
      DOCKER_FACTS.some((fact) => mentions(expr, fact))
    );
    this.#policy = buildPolicy({ generation: data.generation, rules });
    this.#needsAllowRule = rules.some(({ action }) => action === "allow");
  }

  /** Judges one creation. Never throws. */
  judge(facts: Pick<Facts, "docker" | "agent">): ContainerVerdict {
    const verdict = decide(this.#policy, "container", facts);
    const isOpen = verdict.reason === "default" && !this.#needsAllowRule;
    return {
      permitted: verdict.allowed || isOpen,
      verdict,
      generation: this.#policy.generation,
    };
  }
}
