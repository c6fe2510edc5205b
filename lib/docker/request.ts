/**
 * A request for a container, checked field by field before Docker is asked, and turned into what
 * Docker is to make (S008-FR-002, FR-016, FR-025 to FR-027, FR-038, ADV-CONTAINER). Pure.
 */
import type { ContainerCreateRequest } from "../api/services.ts";
import { OutcallError } from "../errors.ts";
import type { Facts } from "../rules/types.ts";
import type { EngineContainerSpec, EngineImage } from "./engine.ts";
import { type ImageReference, parse as parseImage } from "./image.ts";
import type { ManagedNetwork } from "./networks.ts";
import { fullNetworkName, OWNER, OWNER_LABEL, PREFIX } from "./managed.ts";
import { clean, type Mount, parseMount } from "./mounts.ts";
import { agentName } from "./names.ts";

/** Label with the network's full name. */
export const NETWORK_LABEL = "outcall.network";
/** Label with the time of creation, ISO 8601 in UTC. */
const CREATED_LABEL = "outcall.created-at";

/** Bytes; S008-FR-016. */
const DEFAULT_MEMORY_BYTES = 536_870_912;
/** Bytes; below it Docker refuses, since nothing could start. */
const MIN_MEMORY_BYTES = 6_291_456;
const DEFAULT_CPU_SHARES = 1_024;
/** Bounds of the kernel's cgroup v1 weight. */
const MIN_CPU_SHARES = 2;
const MAX_CPU_SHARES = 262_144;
/** Stops fork bombs; a compiler run in parallel needs a few dozen. */
const PID_LIMIT = 256;
/** A user no image and no host knows. */
const DEFAULT_USER = "65532:65532";
/** Largest user and group id the container runtime takes. */
const MAX_ID = 2_147_483_647;
const MAX_NAME_BYTES = 128;
const MAX_ENV_ENTRIES = 256;
const MAX_ENV_BYTES = 65_536;
const MAX_ARGUMENTS = 1_024;
const MAX_ARGUMENT_BYTES = 32_768;
const MAX_ALL_ARGUMENTS_BYTES = 262_144;
const MAX_MOUNTS = 256;
const MAX_MOUNT_BYTES = 8_192;
const MAX_WORKING_DIR_BYTES = 4_096;

/** Programs disagree about case and about which of these they read, so no spelling is the caller's. */
const PROXY_VARIABLES = ["http_proxy", "https_proxy", "no_proxy", "all_proxy", "ftp_proxy"];

/** A request that passed every check that needs neither Docker nor the host's files. */
export interface CheckedRequest {
  readonly image: ImageReference;
  /** Docker's name of the network. */
  readonly networkName: string;
  readonly name: string;
  readonly user: string;
  readonly memoryBytes: number;
  readonly cpuShares: number;
  /** `NAME=value`, without proxy variables. */
  readonly env: readonly string[];
  readonly cmd: readonly string[] | undefined;
  readonly entrypoint: readonly string[] | undefined;
  readonly workingDir: string | undefined;
  readonly mounts: readonly Mount[];
  readonly withHelpers: boolean;
  readonly interactive: boolean;
  readonly tty: boolean;
  /** Undefined: not at all. */
  readonly observeSecs: number | undefined;
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}

function invalid(field: string, message: string, hint?: string): OutcallError {
  return new OutcallError(400, `container.${field}`, message, hint === undefined ? {} : { hint });
}

/**
 * @throws OutcallError `container.name` (400) unless Docker can take `name`, and no path or flag
 * can hide in it.
 */
export function checkName(name: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]+$/.test(name) && name.length <= MAX_NAME_BYTES) return name;
  throw invalid(
    "name",
    `container name ${JSON.stringify(name.slice(0, 200))} is not valid`,
    `Use 2 to ${MAX_NAME_BYTES} letters, digits, "_", "." and "-", a letter or digit first.`,
  );
}

function generatedName(): string {
  const digits = [...crypto.getRandomValues(new Uint8Array(4))].map((byte) =>
    byte.toString(16).padStart(2, "0")
  );
  return `${PREFIX}${digits.join("")}`;
}

function checkUser(user: string): string {
  const ids = /^([1-9][0-9]{0,9}):([1-9][0-9]{0,9})$/.exec(user);
  if (ids !== null && Number(ids[1]) <= MAX_ID && Number(ids[2]) <= MAX_ID) return user;
  throw invalid(
    "user",
    `user ${JSON.stringify(user.slice(0, 80))} is not a numeric UID:GID, both non-zero`,
    "Give it as 1000:1000; containers never run as root.",
  );
}

function checkLimit(
  field: string,
  value: number | undefined,
  standard: number,
  least: number,
  most: number,
): number {
  if (value === undefined) return standard;
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw invalid(field, `${field} ${value} is not a whole number from ${least} to ${most}`);
}

function checkEnv(env: readonly string[]): string[] {
  if (env.length > MAX_ENV_ENTRIES) {
    throw invalid("env", `more than ${MAX_ENV_ENTRIES} environment variables`);
  }
  const names = new Set<string>();
  return env.filter((entry, i) => {
    const equals = entry.indexOf("=");
    const name = entry.slice(0, Math.max(equals, 0));
    // The entry itself is not repeated: it may hold a secret.
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      throw invalid("env", `environment variable number ${i + 1} is not NAME=value`);
    }
    if (entry.includes("\0") || byteLength(entry) > MAX_ENV_BYTES) {
      throw invalid("env", `environment variable ${name} is too long or contains a NUL`);
    }
    if (names.has(name)) throw invalid("env", `environment variable ${name} is given twice`);
    names.add(name);
    return !PROXY_VARIABLES.includes(name.toLowerCase());
  });
}

function checkArguments(field: string, args: readonly string[] | undefined): typeof args {
  if (args === undefined) return undefined;
  const sizes = args.map(byteLength);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (
    args.length > MAX_ARGUMENTS || total > MAX_ALL_ARGUMENTS_BYTES ||
    sizes.some((size) => size > MAX_ARGUMENT_BYTES) || args.some((arg) => arg.includes("\0"))
  ) {
    throw invalid(field, `${field} is too long, or contains a NUL`);
  }
  return args;
}

function checkWorkingDir(path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  if (path === clean(path) && byteLength(path) <= MAX_WORKING_DIR_BYTES && !/\p{Cc}/u.test(path)) {
    return path;
  }
  throw invalid(
    "working_dir",
    `working directory ${JSON.stringify(path.slice(0, 200))} is not a clean absolute path`,
  );
}

function checkMounts(volumes: readonly string[]): Mount[] {
  if (volumes.length > MAX_MOUNTS || volumes.some((text) => byteLength(text) > MAX_MOUNT_BYTES)) {
    throw invalid("volumes", `more than ${MAX_MOUNTS} volumes, or one that is too long`);
  }
  return volumes.map(parseMount);
}

/**
 * Checks a request.
 * @throws OutcallError with status 400 (403 for mounts) and a code that names the field.
 */
export function checkRequest(request: ContainerCreateRequest): CheckedRequest {
  return {
    image: parseImage(request.image),
    networkName: fullNetworkName(request.network),
    name: request.name === undefined ? generatedName() : checkName(request.name),
    user: request.user === undefined ? DEFAULT_USER : checkUser(request.user),
    memoryBytes: checkLimit(
      "memory_limit",
      request.memory_limit,
      DEFAULT_MEMORY_BYTES,
      MIN_MEMORY_BYTES,
      Number.MAX_SAFE_INTEGER,
    ),
    cpuShares: checkLimit(
      "cpu_shares",
      request.cpu_shares,
      DEFAULT_CPU_SHARES,
      MIN_CPU_SHARES,
      MAX_CPU_SHARES,
    ),
    env: checkEnv(request.env ?? []),
    cmd: checkArguments("cmd", request.cmd),
    entrypoint: checkArguments("entrypoint", request.entrypoint),
    workingDir: checkWorkingDir(request.working_dir),
    mounts: checkMounts(request.volumes ?? []),
    withHelpers: request.include_outcall_helper_mounts ?? false,
    interactive: request.interactive ?? false,
    tty: request.tty ?? false,
    observeSecs: request.observe_secs,
  };
}

/**
 * What rules see of a request, in the container that it makes.
 * @param binds Docker's text of the mounts, their sources resolved: a link hides nothing.
 * @param image What it adds where the request is silent, as Docker does.
 */
export function containerFacts(
  request: CheckedRequest,
  binds: readonly string[],
  image: EngineImage,
): Required<Pick<Facts, "docker" | "agent">> {
  const { entrypoint, cmd } = request;
  // With an entrypoint of the request's own Docker forgets the image's command.
  const arguments_ = cmd ?? (entrypoint === undefined ? image.Config.Cmd : undefined);
  const program = entrypoint ?? image.Config.Entrypoint ?? [];
  return {
    agent: { name: agentName(request.name, {}) },
    docker: {
      image: request.image.text,
      command: [...typeof program === "string" ? [program] : program, ...arguments_ ?? []],
      volumes: binds,
      env_keys: request.env.map((entry) => entry.split("=")[0] ?? ""),
      capabilities: [], // every one is dropped, and none can be asked for
    },
  };
}

/** The proxy variables of a container, in both cases; none without a proxy. */
export function proxyVariables(gateway: string, proxyPort: number | null): string[] {
  if (proxyPort === null) return [];
  const url = `http://${gateway}:${proxyPort}`;
  const values = { http_proxy: url, https_proxy: url, no_proxy: "localhost,127.0.0.1" };
  return Object.entries(values).flatMap(([name, value]) => [
    `${name.toUpperCase()}=${value}`,
    `${name}=${value}`,
  ]);
}

/** A read-only mount of one of our own files. */
export interface HelperMount {
  readonly source: string;
  readonly destination: string;
}

/** What {@linkcode containerSpec} needs beside the request. */
export interface Surroundings {
  readonly network: ManagedNetwork;
  /** Null: there is no proxy. */
  readonly proxyPort: number | null;
  /** Docker's text of the caller's mounts, sources checked. */
  readonly binds: readonly string[];
  readonly helpers: readonly HelperMount[];
  readonly createdAt: Date;
}

/** ISO 8601 in UTC, to the second. */
export function isoSeconds(time: Date): string {
  return time.toISOString().replace(/\.\d+Z$/, "Z");
}

/** What Docker is asked to make. Nothing in it but limits, user and content is the caller's choice. */
export function containerSpec(
  request: CheckedRequest,
  around: Surroundings,
): EngineContainerSpec {
  const { network: name, gateway } = around.network.segment;
  return {
    name: request.name,
    Image: request.image.text,
    User: request.user,
    Env: [...request.env, ...proxyVariables(gateway, around.proxyPort)],
    ...request.cmd === undefined ? {} : { Cmd: [...request.cmd] },
    ...request.entrypoint === undefined ? {} : { Entrypoint: [...request.entrypoint] },
    ...request.workingDir === undefined ? {} : { WorkingDir: request.workingDir },
    OpenStdin: request.interactive,
    Tty: request.tty,
    Labels: {
      [OWNER_LABEL]: OWNER,
      [NETWORK_LABEL]: name,
      [CREATED_LABEL]: isoSeconds(around.createdAt),
    },
    HostConfig: {
      NetworkMode: name,
      Dns: [gateway],
      // Names are asked as they are, and never with the host's search domains behind them.
      DnsOptions: ["ndots:0"],
      DnsSearch: ["."],
      Binds: [...around.binds],
      // Not Binds: Docker would make a folder where the socket is missing.
      Mounts: around.helpers.map(({ source, destination }) => ({
        Type: "bind",
        Source: source,
        Target: destination,
        ReadOnly: true,
      })),
      ReadonlyRootfs: true,
      Tmpfs: { "/tmp": "rw,nosuid,nodev,mode=1777" },
      Init: true,
      Privileged: false,
      CapDrop: ["ALL"],
      SecurityOpt: ["no-new-privileges:true"],
      PidsLimit: PID_LIMIT,
      Memory: request.memoryBytes,
      CpuShares: request.cpuShares,
    },
    NetworkingConfig: { EndpointsConfig: { [name]: {} } },
  };
}
