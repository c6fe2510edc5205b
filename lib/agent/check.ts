/** "May I?": an agent's intended action as facts, judged as the layers would judge the real thing. */
import { type Agent, agentFacts } from "../agents.ts";
import type { Attempt, Decision, DecisionLog, Reason } from "../decision.ts";
import { OutcallError } from "../errors.ts";
import { Hostname, parseHost } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import { restrictedRange } from "../net/restricted.ts";
import type { Answer } from "../rules/answer.ts";
import type { RequestSpec } from "../rules/request.ts";
import type { Facts } from "../rules/types.ts";
import type { Judge } from "../policy.ts";

/** What an agent may ask about (S004-FR-013). */
export const ACTION_TYPES = ["tool_exec", "network_call", "file_access", "shell_exec"] as const;

/** One question. */
export interface PermissionQuestion {
  readonly action_type: typeof ACTION_TYPES[number];
  /** Tool name, URL or host, file path, or command. */
  readonly target: string;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Asks the layers of the policy in force about a whole request (decision D31). */
export type AskPolicy = (spec: RequestSpec, agent: Facts["agent"]) =>
  | { readonly ok: true; readonly answer: Answer; readonly generation: number }
  | { readonly ok: false; readonly message: string };

/** What an answer needs from the daemon. */
export interface CheckServices {
  readonly ask: AskPolicy;
  readonly judge: Judge;
  readonly decisions: DecisionLog;
  /** S004-FR-015: what takes longer is denied. */
  readonly timeoutMs: number;
}

/** The answer as it is sent: nothing of rules but that one decided (S004-FR-010). */
export interface PermissionVerdict {
  readonly allowed: boolean;
  /** Names the decision, for the operator to look up. */
  readonly decision: string;
  /** An opaque name of the rule, the same while the daemon runs. */
  readonly matched_rule: string | null;
  /** Null when allowed. */
  readonly reason: string | null;
}

type Outcome = Pick<Decision, "generation" | "verdict" | "reason" | "rule">;

const HOST_AND_PORT = /^(?<host>[^/?#@\s]+?)(?::(?<port>[0-9]{1,5}))?$/;

/**
 * Decides and records.
 * @throws OutcallError `request.invalid` (422) for a target or metadata that makes no sense.
 */
export async function checkPermission(
  { ask, judge, decisions, timeoutMs }: CheckServices,
  agent: Agent,
  question: PermissionQuestion,
): Promise<PermissionVerdict> {
  const startedMs = performance.now();
  const outcome = question.action_type === "network_call"
    ? networkOutcome(ask, agent, question)
    : toolOutcome(judge, agent, question);
  const tookMs = performance.now() - startedMs;
  const timedOut = tookMs > timeoutMs;
  const decision = decisions.record({
    layer: "agent",
    agent,
    source: agent.address,
    attempt: attemptOf(question),
    ...outcome,
    ...(timedOut ? { verdict: "block", reason: "limit" } : {}),
  });
  return {
    allowed: decision.verdict === "allow",
    decision: decision.id,
    matched_rule: decision.rule === null ? null : await opaqueName(decision.rule.id),
    reason: decision.verdict === "allow"
      ? null
      : timedOut
      ? "evaluation timeout"
      : blockReason(question, outcome.reason),
  };
}

function blockReason({ action_type, target }: PermissionQuestion, reason: Reason): string {
  if (reason === "rule") return "blocked by policy";
  if (reason === "rule_error") return "policy evaluation unavailable";
  if (reason === "restricted_address") return "the address is not public";
  if (reason === "port") return `no rule allows ${action_type} to this port of ${target}`;
  return `no rule allows ${action_type} to ${target}`;
}

/** A program at the beginning of what may be a whole command line, with secrets behind it. */
const PROGRAM = /^[\p{L}\p{N}_.\/+-]+/u;

/** What the record keeps: never arguments, queries or other metadata, which may hold secrets. */
function attemptOf({ action_type, target, metadata }: PermissionQuestion): Attempt {
  if (action_type === "file_access") return { path: target };
  if (action_type !== "network_call") return { tool: PROGRAM.exec(target)?.[0] ?? "" };
  const url = target.includes("://") ? URL.parse(target) : null;
  if (url === null) {
    const { host = target, port = "443" } = HOST_AND_PORT.exec(target)?.groups ?? {};
    return { host: String(parseHost(host) ?? host), port: Number(port) };
  }
  return {
    host: String(parseHost(url.hostname) ?? url.hostname),
    port: url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port),
    method: (metadata["method"] ?? "GET").toUpperCase(),
    path: url.pathname,
  };
}

function invalid(message: string): OutcallError {
  return new OutcallError(422, "request.invalid", `invalid request: ${message}`);
}

function networkOutcome(ask: AskPolicy, agent: Agent, question: PermissionQuestion): Outcome {
  const spec = networkSpec(agent, question);
  const asked = ask(spec, agentFacts(agent));
  // The message repeats what the agent sent, and nothing else.
  if (!asked.ok) throw invalid(asked.message);
  const { answer: { allowed, steps }, generation } = asked;
  const last = steps.at(-1)?.verdict;
  const blocked = { generation, verdict: "block" as const, rule: last?.rule ?? null };
  if (!allowed || last === undefined) return { ...blocked, reason: last?.reason ?? "default" };
  // No proxy carries UDP (decision D31: a yes means that it will work).
  if (question.metadata["protocol"] === "udp" && spec.direct === undefined) {
    return { ...blocked, rule: null, reason: "default" };
  }
  const host = steps.at(-1)?.facts.network?.hostname ?? "";
  const address = Ip.parse(host);
  if (address !== null && restrictedRange(address) !== null && !last.egress?.allowPrivateIps) {
    return { ...blocked, reason: "restricted_address" };
  }
  return { generation, verdict: "allow", reason: last.reason, rule: last.rule };
}

function networkSpec(agent: Agent, { target, metadata }: PermissionQuestion): RequestSpec {
  const protocol = metadata["protocol"] ?? "tcp";
  if (protocol !== "tcp" && protocol !== "udp") throw invalid("metadata.protocol is tcp or udp");
  if (!target.includes("://")) {
    const { host, port = "443" } = HOST_AND_PORT.exec(target)?.groups ?? {};
    const isPort = Number(port) >= 1 && Number(port) <= 65_535;
    if (host === undefined || !isPort) throw invalid("the target is no URL and no host[:port]");
    const isDirect = protocol === "udp" && Hostname.parse(host) !== null;
    return isDirect
      ? { direct: `${host}:${port}/udp`, agent: agent.name }
      : { connect: target, agent: agent.name };
  }
  const url = URL.parse(target);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw invalid("the target is not an http or https URL");
  }
  if (url.username !== "" || url.password !== "") {
    throw invalid("a URL with credentials in it is not accepted");
  }
  if (url.port === "0") throw invalid("port 0 does not exist");
  const method = metadata["method"] ?? "GET";
  if (!/^[A-Za-z]{1,32}$/.test(method)) throw invalid("metadata.method is 1 to 32 letters");
  return { url: target, method, agent: agent.name };
}

function toolOutcome(judge: Judge, agent: Agent, question: PermissionQuestion): Outcome {
  const { action_type, target, metadata } = question;
  const isFile = action_type === "file_access";
  const args = isFile ? [target] : argumentsIn(metadata);
  const facts: Facts = {
    run: {
      tool: isFile ? "file" : target,
      args,
      // A lone "-" stands for standard input.
      flags: args.filter((arg) => arg.startsWith("-") && arg !== "-"),
      cwd: metadata["cwd"] ?? "",
      context: { ...metadata, action_type, target },
    },
    agent: agentFacts(agent),
  };
  const { verdict, generation } = judge("agent", facts);
  return {
    generation,
    verdict: verdict.allowed ? "allow" : "block",
    reason: verdict.reason,
    rule: verdict.rule,
  };
}

const MAX_ARGUMENTS = 1024;
const MAX_ARGUMENT_BYTES = 32_768;

/** `args_json` is the exact vector; `args` one text, from callers that have no more. */
function argumentsIn(metadata: Readonly<Record<string, string>>): readonly string[] {
  const { args_json: json, args } = metadata;
  if (json === undefined) return args === undefined ? [] : [args];
  let vector: unknown;
  try {
    vector = JSON.parse(json);
  } catch {
    throw invalid("metadata.args_json is not JSON");
  }
  const texts: string[] = [];
  if (!Array.isArray(vector)) throw invalid("metadata.args_json is not an array of texts");
  if (vector.length > MAX_ARGUMENTS) throw invalid(`more than ${MAX_ARGUMENTS} arguments`);
  for (const item of vector) {
    if (typeof item !== "string") throw invalid("metadata.args_json is not an array of texts");
    if (new TextEncoder().encode(item).length > MAX_ARGUMENT_BYTES) {
      throw invalid(`an argument of more than ${MAX_ARGUMENT_BYTES} bytes`);
    }
    texts.push(item);
  }
  return texts;
}

/** Makes opaque names impossible to compare with guesses of rule names. */
const SALT = crypto.randomUUID();

async function opaqueName(ruleId: string): Promise<string> {
  const bytes = new TextEncoder().encode(`${SALT}${ruleId}`);
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(hash.subarray(0, 6), (byte) => byte.toString(16).padStart(2, "0"));
  return `rule-${hex.join("")}`;
}
