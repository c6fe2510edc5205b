/**
 * Agent containers from birth to removal (S008). Everything that could open the network or the
 * host to an agent is decided here and not by the request; containers without our label are not
 * ours to look at, stop or remove.
 */
import { agentSocketFolder, agentSocketInFolder } from "../agent_socket.ts";
import type {
  ContainerCreateRequest,
  ContainerCreateResult,
  ContainerDetail,
  ContainerInfo,
  ContainerService,
  PullProgress,
} from "../api/services.ts";
import type { DecisionLog } from "../decision.ts";
import { messageOf, OutcallError } from "../errors.ts";
import type { Observe } from "../observe.ts";
import { logger } from "../log.ts";
import type { ContainerVerdict } from "../rules/container.ts";
import type { Facts } from "../rules/types.ts";
import type { Engine, EngineContainerDetail } from "./engine.ts";
import { parse as parseImage } from "./image.ts";
import { OWNER, OWNER_LABEL, PREFIX } from "./managed.ts";
import { AGENT_SOCKET_FOLDER, SHIM_DESTINATION } from "./mounts.ts";
import { agentName, containerName } from "./names.ts";
import type { ManagedNetwork, NetworkManager } from "./networks.ts";
import {
  type CheckedRequest,
  checkName,
  checkRequest,
  containerFacts,
  containerSpec,
  type HelperMount,
  isoSeconds,
  NETWORK_LABEL,
} from "./request.ts";
import { checkSources, ProtectedPaths, requireAgentSocket, requireShim } from "./sources.ts";

/** What a {@linkcode ContainerManager} works with. */
export interface ContainerManagerOptions {
  readonly engine: Engine;
  readonly networks: NetworkManager;
  /** Port of the proxy on every gateway; null: there is no proxy. */
  readonly proxyPort: number | null;
  /** What the rules say to a creation. */
  readonly judge: (facts: Pick<Facts, "docker" | "agent">) => ContainerVerdict;
  readonly observe: Observe;
  /** Where what they said is recorded. */
  readonly decisions: Pick<DecisionLog, "record">;
  /** The agent socket on the host; absolute. */
  readonly agentSocketPath: string;
  /** The shim on the host; absolute. */
  readonly shimPath: string;
  /** What no container may mount: host socket, rules, state; absolute. Docker's are added. */
  readonly protectedPaths: readonly string[];
}

const log = logger("docker_manager");

/** Longest time a container may be given to end by itself, in seconds. */
const MAX_STOP_TIMEOUT_SECS = 300;
/** S008-FR-028. */
const DEFAULT_STOP_TIMEOUT_SECS = 10;
/** Shortest part of an id that Docker prints and people copy. */
const SHORT_ID_DIGITS = 12;

function isRunning(container: EngineContainerDetail): boolean {
  return container.State.Running || container.State.Paused || container.State.Restarting;
}

function bareName(name: string): string {
  return name.replace(/^\//, "");
}

function absent(name: string): OutcallError {
  return new OutcallError(404, "container.missing", `container "${name}" does not exist`, {
    hint: "See `outcall container list`.",
  });
}

function detailOf(container: EngineContainerDetail): ContainerDetail {
  const network = container.Config.Labels[NETWORK_LABEL] ?? "";
  const address = container.NetworkSettings.Networks[network]?.IPAddress ?? "";
  return {
    container_id: container.Id,
    name: bareName(container.Name),
    image: container.Config.Image,
    state: container.State.Status,
    network,
    created_at: isoSeconds(new Date(container.Created)),
    ip_address: address === "" ? null : address,
    mounts: container.Mounts.map(({ Type, Name, Source, Destination, RW }) => {
      const source = Type === "volume" ? Name ?? Source : Source;
      return `${source}:${Destination}${RW ? "" : ":ro"}`;
    }),
    // S008-FR-015: a value may be a secret, and operators share what they see.
    env: container.Config.Env.map((entry) => `${entry.split("=")[0] ?? ""}=<redacted>`),
  };
}

/** Agent containers. See {@linkcode ContainerService} for what each call returns. */
export class ContainerManager implements ContainerService {
  readonly #engine: Engine;
  readonly #networks: NetworkManager;
  readonly #options: ContainerManagerOptions;
  readonly #protected: ProtectedPaths;

  constructor(options: ContainerManagerOptions) {
    this.#engine = options.engine;
    this.#networks = options.networks;
    this.#options = options;
    this.#protected = new ProtectedPaths([...options.protectedPaths, options.engine.socketPath]);
  }

  /**
   * Makes and starts a hardened container on a managed network.
   * @throws OutcallError with status 400 or 403 for the request's own faults, before Docker is
   * asked; `network.missing`, `image.missing` (404), `network.forged` (409), `container.blocked`
   * (403) by the rules; what Docker refuses with, after what it made was removed.
   */
  async create(request: ContainerCreateRequest): Promise<ContainerCreateResult> {
    const checked = checkRequest(request);
    const helpers = checked.withHelpers ? this.#helpers() : [];
    // The sources before the first call: a refused mount never reaches Docker (S008-SC-002). Only a
    // named volume must be looked up, and that is a question.
    const binds = await checkSources(checked.mounts, this.#protected, this.#engine);
    const network = await this.#networks.managed(checked.networkName);
    if (network === null) {
      throw new OutcallError(
        404,
        "network.missing",
        `network "${checked.networkName}" does not exist`,
        {
          hint: `Create it: outcall network create --name ${
            checked.networkName.slice(PREFIX.length)
          }`,
        },
      );
    }
    const image = await this.#engine.image(checked.image.text);
    if (image === null) {
      throw new OutcallError(
        404,
        "image.missing",
        `image "${checked.image.text}" not found locally — pull it first`,
        { hint: `outcall container pull --image ${checked.image.text}` },
      );
    }
    this.#assertPermitted(containerFacts(checked, binds, image));
    const warnings = await this.#namesakes(checked.name);
    const { proxyPort } = this.#options;
    const createdAt = new Date();
    const spec = containerSpec(checked, { network, proxyPort, binds, helpers, createdAt });
    const id = await this.#engine.createContainer(spec);
    try {
      if (checked.observeSecs !== undefined) {
        const agent = { name: agentName(checked.name, {}), containerId: id };
        await this.#options.observe(agent, checked.observeSecs);
        warnings.push(
          `"${checked.name}" is observed for ${checked.observeSecs} s: whatever no rule blocks is let out`,
        );
      }
      await this.#engine.startContainer(id);
      await this.#verify(id, network);
    } catch (error) {
      await this.#removeAfter(id, checked, error);
    }
    log.info("container {name} created on {network}", {
      name: checked.name,
      network: checked.networkName,
    });
    for (const warning of warnings) log.warn("{warning}", { warning });
    return { container_id: id, name: checked.name, created: true, warnings };
  }

  async list(): Promise<readonly ContainerInfo[]> {
    const containers = await this.#engine.containers(`${OWNER_LABEL}=${OWNER}`);
    return containers.map((container) => ({
      container_id: container.Id,
      name: containerName(container.Names),
      image: container.Image,
      state: container.State,
      network: container.Labels[NETWORK_LABEL] ?? "",
      created_at: isoSeconds(new Date(container.Created * 1_000)),
    })).sort((a, b) => a.name < b.name ? -1 : 1);
  }

  async inspect(name: string): Promise<ContainerDetail> {
    const container = await this.#managed(name);
    if (container === null) throw absent(name);
    return detailOf(container);
  }

  async stop(
    name: string,
    timeoutSecs: number,
  ): Promise<{ readonly name: string; readonly stopped: boolean }> {
    const inRange = Number.isInteger(timeoutSecs) && timeoutSecs >= 0 &&
      timeoutSecs <= MAX_STOP_TIMEOUT_SECS;
    if (!inRange) {
      throw new OutcallError(
        400,
        "container.timeout",
        `timeout ${timeoutSecs} is not a whole number from 0 to ${MAX_STOP_TIMEOUT_SECS}`,
      );
    }
    const container = await this.#managed(name);
    if (container === null) throw absent(name);
    const found = bareName(container.Name);
    if (!isRunning(container)) return { name: found, stopped: false };
    // By id: the name may belong to another container by now (S008-FR-034).
    await this.#engine.stopContainer(container.Id, timeoutSecs);
    return { name: found, stopped: true };
  }

  async remove(
    name: string,
    force: boolean,
  ): Promise<{ readonly name: string; readonly removed: boolean }> {
    const container = await this.#managed(name);
    if (container === null) return { name, removed: false };
    const found = bareName(container.Name);
    if (isRunning(container)) {
      if (!force) {
        throw new OutcallError(
          409,
          "container.running",
          `container "${found}" is still running — stop it first or use force`,
          { hint: `outcall container stop --name ${found}` },
        );
      }
      await this.#engine.stopContainer(container.Id, DEFAULT_STOP_TIMEOUT_SECS);
    }
    return { name: found, removed: await this.#engine.removeContainer(container.Id, force) };
  }

  async pull(
    image: string,
    onProgress: (progress: PullProgress) => void,
  ): Promise<{ readonly image: string; readonly pulled: boolean }> {
    const { text } = parseImage(image);
    const before = await this.#engine.image(text);
    try {
      await this.#engine.pull(text, onProgress);
    } catch (error) {
      if (!(error instanceof OutcallError) || error.code === "docker.unavailable") throw error;
      const reason = error.message.replace(/^Docker refused: /, "");
      throw new OutcallError(
        error.status,
        "image.pull_failed",
        `failed to pull image "${image}": ${reason}`,
        { hint: "Check the name, and that this host reaches the registry.", cause: error },
      );
    }
    const after = await this.#engine.image(text);
    return { image, pulled: after?.Id !== before?.Id };
  }

  /**
   * The container of this name if it is ours, or null when there is none.
   * @throws OutcallError `container.unmanaged` (403), which tells nothing about it.
   */
  async #managed(name: string): Promise<EngineContainerDetail | null> {
    const container = await this.#engine.container(checkName(name));
    if (container === null) return null;
    const named = bareName(container.Name) === name ||
      (name.length >= SHORT_ID_DIGITS && container.Id.startsWith(name));
    if (!named) return null; // Docker also takes the first digits of any id for a name
    if (container.Config.Labels[OWNER_LABEL] !== OWNER) {
      throw new OutcallError(
        403,
        "container.unmanaged",
        `container "${name}" is not managed by outcall`,
        { hint: "Use docker itself for it." },
      );
    }
    return container;
  }

  /** @throws OutcallError `container.blocked` (403), with the decision's id. */
  #assertPermitted(facts: Required<Pick<Facts, "docker" | "agent">>): void {
    const { permitted, verdict, generation } = this.#options.judge(facts);
    const { image = "" } = facts.docker;
    const { id } = this.#options.decisions.record({
      generation,
      layer: "container",
      agent: null,
      source: "operator",
      attempt: { image },
      verdict: permitted ? "allow" : "block",
      reason: verdict.reason,
      rule: verdict.rule,
    });
    if (permitted) return;
    const { rule } = verdict;
    throw new OutcallError(
      403,
      "container.blocked",
      rule === null
        ? `no rule allows a container of image "${image}" (decision ${id})`
        : `rule "${rule.id}" (${rule.file}:${rule.line}) blocks a container of image ` +
          `"${image}" (decision ${id})`,
      { hint: "Only rules that read docker.* decide this; once one of them allows, one must." },
    );
  }

  #helpers(): HelperMount[] {
    const { agentSocketPath, shimPath } = this.#options;
    requireAgentSocket(agentSocketPath);
    requireAgentSocket(agentSocketInFolder(agentSocketPath));
    requireShim(shimPath);
    return [
      { source: agentSocketFolder(agentSocketPath), destination: AGENT_SOCKET_FOLDER },
      { source: shimPath, destination: SHIM_DESTINATION },
    ];
  }

  /** The container runs where it was meant to: the network may have been replaced in between. */
  async #verify(id: string, network: ManagedNetwork): Promise<void> {
    const container = await this.#engine.container(id);
    const networks = Object.entries(container?.NetworkSettings.Networks ?? {});
    const [first, ...more] = networks;
    const isRight = first?.[0] === network.segment.network && more.length === 0 &&
      first[1].NetworkID === network.id;
    if (isRight) return;
    throw new OutcallError(
      500,
      "container.unverified",
      `the container is on ${networks.map(([name]) => `"${name}"`).join(", ") || "no network"} ` +
        `instead of "${network.segment.network}"`,
    );
  }

  /** S008-FR-035: removes a container that did not come up, and reports why. */
  async #removeAfter(id: string, request: CheckedRequest, cause: unknown): Promise<never> {
    try {
      await this.#engine.removeContainer(id, true);
    } catch (error) {
      throw new OutcallError(
        cause instanceof OutcallError ? cause.status : 500,
        "container.rollback",
        `${messageOf(cause)}; removing container "${request.name}" failed as well: ` +
          messageOf(error),
        { hint: `Remove it by hand: docker rm -f ${request.name}`, cause },
      );
    }
    throw cause;
  }

  /**
   * Warns of containers that rules cannot tell from this one. `db-agent-2` is meant as a copy of
   * `db-agent-1`, but would have the rights of an unrelated `db-agent` as well.
   */
  async #namesakes(name: string): Promise<string[]> {
    const mine = agentName(name, {});
    const warnings: string[] = [];
    for (const container of await this.#engine.containers()) {
      const networks = Object.keys(container.NetworkSettings.Networks);
      if (!networks.some((network) => network.startsWith(PREFIX))) continue;
      const other = containerName(container.Names);
      const isCopy = name !== mine && other !== mine && agentName(other, {}) === mine;
      const names = [agentName(other, {}), agentName(other, container.Labels)];
      if (!names.includes(mine) || isCopy || other === name) continue;
      warnings.push(`container "${other}" is the same agent to rules: agent.name == "${mine}"`);
    }
    return warnings;
  }
}
