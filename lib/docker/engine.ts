/**
 * The Docker Engine, as far as this product needs it: dockerode over the Unix socket, with every
 * call bounded in time and every failure turned into an {@linkcode OutcallError}.
 *
 * Docker's own types stop at this file's exports: callers see plain values and null for "no such".
 */
// @ts-types="@types/dockerode"
import Dockerode from "dockerode";
import { Agent } from "node:http";
import { getSystemErrorMap } from "node:util";
import type { PullProgress } from "../api/services.ts";
import { type FailureStatus, messageOf, OutcallError } from "../errors.ts";
import { pause } from "../pause.ts";
import { parse } from "./image.ts";
import { PullTally } from "./progress.ts";

/** A network as Docker lists it; `Containers` is filled by inspection only. */
export type EngineNetwork = Dockerode.NetworkInspectInfo;
/** One line of Docker's container list. */
export type EngineContainer = Dockerode.ContainerInfo;
/** A container as inspected. */
export type EngineContainerDetail = Dockerode.ContainerInspectInfo;
/** What Docker is asked to make. */
export type EngineContainerSpec = Dockerode.ContainerCreateOptions;
/** What Docker is asked to make. */
export type EngineNetworkSpec = Dockerode.NetworkCreateOptions;
/** An image as inspected. */
export type EngineImage = Dockerode.ImageInspectInfo;
/** A volume as inspected. */
export type EngineVolume = Dockerode.VolumeInspectInfo;

/** One event of Docker's stream (`GET /events`): `Type` and `Action` such as `network`, `connect`. */
export interface EngineEvent {
  readonly Type: string;
  readonly Action: string;
  readonly Actor: {
    readonly ID: string;
    readonly Attributes: Readonly<Record<string, string>>;
  };
}

/** What {@linkcode Engine.watch} reports. */
export type EngineSignal =
  /** The stream is up. Whatever happened before it is unknown: resynchronise. */
  | { readonly kind: "connected" }
  /** The stream has ended or could not be opened; it is being reopened. */
  | { readonly kind: "disconnected"; readonly error: OutcallError }
  | { readonly kind: "event"; readonly event: EngineEvent };

/** S008-FR-036: an engine that does not answer its ping within this time counts as away. */
const PING_TIMEOUT_MS = 3_000;
/** Inspecting and listing take milliseconds; creating a container on a busy host takes seconds. */
const CALL_TIMEOUT_MS = 30_000;
/** A registry that sends nothing for this long will not send anything any more. */
const PULL_IDLE_TIMEOUT_MS = 120_000;
/** Reconnecting starts fast, since a restart of Docker takes about a second, and calms down. */
const RECONNECT_MIN_MS = 100;
const RECONNECT_MAX_MS = 2_000;

/**
 * The Unix socket of the engine: DOCKER_HOST when it names one (`unix:///path`), else Docker's
 * default. An engine behind TCP is on another host, whose kernel this daemon cannot filter.
 */
export function engineSocket(dockerHost: string | undefined): string {
  const prefix = "unix://";
  return dockerHost?.startsWith(prefix) === true
    ? dockerHost.slice(prefix.length)
    : "/var/run/docker.sock";
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** A property of something foreign. */
function field(value: unknown, name: string): unknown {
  return isObject(value) ? Reflect.get(value, name) : undefined;
}

/** The HTTP status Docker refused with; undefined: there was no answer. */
function statusOf(thrown: unknown): number | undefined {
  const status = field(thrown, "statusCode");
  return typeof status === "number" ? status : undefined;
}

/** Docker's own words, without dockerode's wrapping. */
function refusalText(thrown: unknown): string {
  const message = field(field(thrown, "json"), "message");
  if (typeof message === "string") return message;
  // Of an answer that was to be a stream there is only the text: "(HTTP code 404) reason - words ".
  return messageOf(thrown).replace(/^\(HTTP code \d+\) [^-]* - /, "").trim();
}

/** The operating system's reason, such as "no such file or directory". */
function systemReason(thrown: unknown): string {
  const errno = field(thrown, "errno");
  const known = typeof errno === "number" ? getSystemErrorMap().get(errno)?.[1] : undefined;
  return known ?? messageOf(thrown);
}

/** Docker's refusals that are the caller's to mend keep their status; the rest are failures. */
const KEPT_STATUSES: ReadonlyMap<number, FailureStatus> = new Map([
  [400, 400],
  [403, 403],
  [404, 404],
  [409, 409],
]);

/** Docker's refusal in its own words. */
function refusal(thrown: unknown, status: number): OutcallError {
  return new OutcallError(
    KEPT_STATUSES.get(status) ?? 500,
    "docker.refused",
    `Docker refused: ${refusalText(thrown)}`,
    { cause: thrown },
  );
}

/** `promise`, or null where Docker answers that there is no such thing. */
async function orNull<T>(promise: Promise<T>): Promise<T | null> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof OutcallError && error.status === 404) return null;
    throw error;
  }
}

function isEvent(value: unknown): value is EngineEvent {
  const actor = field(value, "Actor");
  return typeof field(value, "Type") === "string" && typeof field(value, "Action") === "string" &&
    typeof field(actor, "ID") === "string" && isObject(field(actor, "Attributes"));
}

/** The JSON values of a stream of lines. */
async function* jsonLines(stream: NodeJS.ReadableStream): AsyncGenerator<unknown, void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    rest += typeof chunk === "string" ? chunk : decoder.decode(chunk, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.trim() !== "") yield JSON.parse(line);
  }
}

/** A bound for one wait, which may be set anew while there is progress. */
class Deadline {
  readonly #passed = Promise.withResolvers<never>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly timeoutMs: number) {
    this.#passed.promise.catch(() => {}); // may pass with nobody waiting
    this.restart();
  }

  /** `promise`, or a failure when the time is up first. */
  bound<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#passed.promise]);
  }

  restart(): void {
    this.cancel();
    const reason = `no answer within ${this.timeoutMs / 1_000} s`;
    this.#timer = setTimeout(() => this.#passed.reject(new Error(reason)), this.timeoutMs);
  }

  cancel(): void {
    clearTimeout(this.#timer);
  }
}

/**
 * One engine. Holds no connection between calls, so it survives any restart of Docker.
 *
 * Unless noted otherwise every method throws `docker.unavailable` (503) when Docker cannot be
 * reached or does not answer in time, and `docker.refused` with Docker's own words when it refuses.
 */
export class Engine {
  /**
   * @param socketPath See {@linkcode engineSocket}.
   * @param callTimeoutMs Bound of each call, except where a call has its own.
   */
  constructor(
    readonly socketPath: string,
    readonly callTimeoutMs: number = CALL_TIMEOUT_MS,
  ) {}

  /** Whether Docker answers, within {@linkcode PING_TIMEOUT_MS}. */
  async ping(): Promise<void> {
    await this.#call((docker) => docker.ping(), PING_TIMEOUT_MS);
  }

  /** Every network, without its containers. */
  networks(): Promise<EngineNetwork[]> {
    return this.#call((docker) => docker.listNetworks());
  }

  /** A network with its running containers; null: there is none. */
  network(idOrName: string): Promise<EngineNetwork | null> {
    return orNull(
      this.#call((docker) => docker.getNetwork(encodeURIComponent(idOrName)).inspect()),
    );
  }

  /** Makes a network; returns its id. */
  createNetwork(spec: EngineNetworkSpec): Promise<string> {
    return this.#call(async (docker) => (await docker.createNetwork(spec)).id);
  }

  /** Removes a network; false: there was none. */
  async removeNetwork(id: string): Promise<boolean> {
    const removed = this.#call(async (docker) => {
      await docker.getNetwork(encodeURIComponent(id)).remove();
      return true;
    });
    return await orNull(removed) ?? false;
  }

  /** Containers in any state, those with `label` (`key=value`) only when it is given. */
  containers(label?: string): Promise<EngineContainer[]> {
    const filters = label === undefined ? {} : { filters: { label: [label] } };
    return this.#call((docker) => docker.listContainers({ all: true, ...filters }));
  }

  /** A container; null: there is none. */
  container(idOrName: string): Promise<EngineContainerDetail | null> {
    return orNull(
      this.#call((docker) => docker.getContainer(encodeURIComponent(idOrName)).inspect()),
    );
  }

  /** Makes a container without starting it; returns its id. */
  createContainer(spec: EngineContainerSpec): Promise<string> {
    return this.#call(async (docker) => (await docker.createContainer(spec)).id);
  }

  /** Starts a container. */
  async startContainer(id: string): Promise<void> {
    await this.#call((docker) => docker.getContainer(id).start());
  }

  /** SIGTERM, then SIGKILL after `timeoutSecs`. */
  async stopContainer(id: string, timeoutSecs: number): Promise<void> {
    await this.#call(
      (docker) => docker.getContainer(id).stop({ t: timeoutSecs }),
      this.callTimeoutMs + timeoutSecs * 1_000,
    );
  }

  /** Removes a container with its anonymous volumes; false: there was none. */
  async removeContainer(id: string, force: boolean): Promise<boolean> {
    const removed = this.#call(async (docker) => {
      await docker.getContainer(id).remove({ force, v: true });
      return true;
    });
    return await orNull(removed) ?? false;
  }

  /** A local image; null: there is none. */
  image(reference: string): Promise<EngineImage | null> {
    return orNull(this.#call((docker) => docker.getImage(reference).inspect()));
  }

  /** A volume; null: there is none. */
  volume(name: string): Promise<EngineVolume | null> {
    return orNull(this.#call((docker) => docker.getVolume(encodeURIComponent(name)).inspect()));
  }

  /**
   * Pulls an image; `onProgress` is called with each line of Docker's.
   * @throws OutcallError `docker.refused` with the registry's or Docker's words.
   */
  async pull(reference: string, onProgress: (progress: PullProgress) => void): Promise<void> {
    const tally = new PullTally();
    const { repository, tag, digest } = parse(reference);
    await this.#call(async (docker, deadline) => {
      const stream = await docker.createImage({ fromImage: repository, tag: digest ?? tag });
      for await (const line of jsonLines(stream)) {
        deadline.restart();
        const error = field(line, "error");
        if (error !== undefined) {
          throw new OutcallError(500, "docker.refused", `Docker refused: ${String(error)}`);
        }
        onProgress(tally.take(line));
      }
    }, PULL_IDLE_TIMEOUT_MS);
  }

  /**
   * Docker's events about networks and containers, for as long as `signal` allows: reconnects by
   * itself, and says so. Never throws. An event may come twice.
   */
  async *watch(signal: AbortSignal): AsyncGenerator<EngineSignal, void> {
    let pauseMs = RECONNECT_MIN_MS;
    while (!signal.aborted) {
      const agent = new Agent({ keepAlive: false });
      const hangUp = (): void => agent.destroy();
      signal.addEventListener("abort", hangUp);
      // Headers of the stream come shortly before Docker subscribes us: ask for that second again.
      const since = Math.floor(Date.now() / 1_000) - 1;
      const deadline = new Deadline(PING_TIMEOUT_MS);
      let error: OutcallError | undefined;
      try {
        const stream = await deadline.bound(
          this.#client(agent).getEvents({
            since,
            filters: { type: ["container", "network"] },
          }),
        );
        deadline.cancel();
        pauseMs = RECONNECT_MIN_MS;
        yield { kind: "connected" };
        for await (const event of jsonLines(stream)) {
          if (isEvent(event)) yield { kind: "event", event };
        }
      } catch (thrown) {
        error = this.#translate(thrown);
      } finally {
        deadline.cancel();
        signal.removeEventListener("abort", hangUp);
        agent.destroy();
      }
      if (signal.aborted) return;
      yield {
        kind: "disconnected",
        error: error ?? this.#unavailable("it ended the event stream"),
      };
      await pause(pauseMs, signal);
      pauseMs = Math.min(pauseMs * 2, RECONNECT_MAX_MS);
    }
  }

  /** A client whose connections `agent` can cut. */
  #client(agent: Agent): Dockerode {
    const options = { socketPath: this.socketPath, protocol: "http", agent } as const;
    // Dockerode lets DOCKER_HOST and DOCKER_CERT_PATH win over the path it is given.
    return new Dockerode(
      Object.assign({ ...options }, { host: undefined, key: undefined, cert: undefined }),
    );
  }

  /** One bounded call on a connection of its own: a kept one may belong to a Docker that is gone. */
  async #call<T>(
    work: (docker: Dockerode, deadline: Deadline) => Promise<T>,
    timeoutMs: number = this.callTimeoutMs,
  ): Promise<T> {
    const agent = new Agent({ keepAlive: false });
    const deadline = new Deadline(timeoutMs);
    try {
      return await deadline.bound(work(this.#client(agent), deadline));
    } catch (thrown) {
      throw this.#translate(thrown);
    } finally {
      deadline.cancel();
      agent.destroy(); // also what goes on after the time was up
    }
  }

  #translate(thrown: unknown): OutcallError {
    if (thrown instanceof OutcallError) return thrown;
    const status = statusOf(thrown);
    if (status !== undefined) return refusal(thrown, status);
    return this.#unavailable(systemReason(thrown), thrown);
  }

  #unavailable(reason: string, cause?: unknown): OutcallError {
    return new OutcallError(
      503,
      "docker.unavailable",
      `Docker is unavailable at ${this.socketPath}: ${reason}`,
      {
        hint: "Start Docker, or set DOCKER_HOST=unix:///path/to/docker.sock for the daemon; " +
          "enforcement goes on without it.",
        cause,
      },
    );
  }
}
