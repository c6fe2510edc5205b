/** What the host API accepts. Strict: a misspelt field is refused by name, never skipped. */
import { z } from "zod";
import { LIMITS } from "../rules/limits.ts";
import type {
  AgentAttachRequest,
  AgentJoinRequest,
  ContainerCreateRequest,
  NetworkCreateRequest,
} from "./services.ts";

/** A field that may be absent or null, which mean the same. */
function optional<S extends z.ZodType>(schema: S): Optional<S> {
  return schema.nullish().transform((value) => value ?? undefined);
}

type Optional<S extends z.ZodType> = z.ZodPipe<
  z.ZodOptional<z.ZodNullable<S>>,
  z.ZodTransform<z.output<S> | undefined, z.output<S> | null | undefined>
>;

const strings = z.array(z.string()).readonly();

/** `GET /api/v1/network` and `POST /api/v1/network/destroy`: absent for the default network. */
export const networkName = z.strictObject({ name: optional(z.string()) });

/** `POST /api/v1/network/create` */
export const networkCreate = z.strictObject({
  name: optional(z.string()),
  subnet: optional(z.string()),
  gateway: optional(z.string()),
}) satisfies z.ZodType<NetworkCreateRequest>;

/** How long an agent is observed unless the request says otherwise. */
export const OBSERVE_DEFAULT_SECS = 3_600;
/** Longest observation: what needs more than a day is no trial run. */
const OBSERVE_MAX_SECS = 86_400;
/** How long to observe a new agent; absent: not at all. */
const observeSecs = z.int().min(1).max(OBSERVE_MAX_SECS);

/** `POST /api/v1/container/create` */
export const containerCreate = z.strictObject({
  image: z.string(),
  network: optional(z.string()),
  name: optional(z.string()),
  user: optional(z.string()),
  memory_limit: optional(z.int()),
  cpu_shares: optional(z.int()),
  env: optional(strings),
  cmd: optional(strings),
  entrypoint: optional(strings),
  working_dir: optional(z.string()),
  volumes: optional(strings),
  include_outcall_helper_mounts: optional(z.boolean()),
  interactive: optional(z.boolean()),
  tty: optional(z.boolean()),
  observe_secs: optional(observeSecs),
}) satisfies z.ZodType<ContainerCreateRequest>;

/** `GET /api/v1/container` */
export const containerName = z.strictObject({ name: z.string() });

/** Longest time between SIGTERM and SIGKILL (S008-FR-012, S008-FR-028). */
export const STOP_TIMEOUT_MAX_SECS = 300;
/** That time when the request does not say. */
export const STOP_TIMEOUT_DEFAULT_SECS = 10;

/** `POST /api/v1/container/stop` */
export const containerStop = z.strictObject({
  name: z.string(),
  timeout: z.int().min(0).max(STOP_TIMEOUT_MAX_SECS).nullish()
    .transform((seconds) => seconds ?? STOP_TIMEOUT_DEFAULT_SECS),
});

/** `POST /api/v1/container/remove` */
export const containerRemove = z.strictObject({
  name: z.string(),
  force: z.boolean().nullish().transform((force) => force ?? false),
});

/** `POST /api/v1/agent/attach` */
export const agentAttach = z.strictObject({
  name: optional(z.string()),
  network: optional(z.string()),
}) satisfies z.ZodType<AgentAttachRequest>;

/** `POST /api/v1/agent/join` */
export const agentJoin = z.strictObject({
  port: z.string(),
  observe_secs: optional(observeSecs),
}) satisfies z.ZodType<AgentJoinRequest>;

/** `POST /api/v1/container/pull` */
export const imagePull = z.strictObject({ image: z.string() });

/** `GET /api/v1/dns/cache` */
export const dnsCacheQuery = z.strictObject({ entries: z.enum(["true", "false"]).optional() });

/** `POST /api/v1/rules/diff`: the candidate rule files; the daemon reads no directory for anybody. */
export const diffRequest = z.strictObject({
  files: z.array(z.strictObject({
    path: z.string().min(1).max(4096),
    text: z.string().max(LIMITS.fileBytes),
  })).max(LIMITS.files),
});

/** As much text as a rules directory may hold; JSON writes a line break as two characters. */
export const DIFF_MAX_BODY_BYTES = 2 * LIMITS.totalBytes;
