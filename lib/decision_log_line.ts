/** Writes each decision as one canonical line: blocks at info, allows at debug (decision D16). */
import type { Change, Decision } from "./decision.ts";
import { logger, type Target } from "./log.ts";

const TARGET_OF_LAYER: Readonly<Record<Decision["layer"], Target>> = {
  dns: "dns",
  grant: "dns",
  connect: "proxy",
  sni: "proxy",
  http: "proxy",
  dial: "proxy",
  agent: "agent_api",
  container: "docker_manager",
  kernel: "bridge",
};

/** What only some decisions have (S007-FR-022: whether it was cached, else how long it took). */
function extras({ upstreamMs, count }: Decision): string {
  const parts = [
    upstreamMs === null ? "cached=true" : "",
    typeof upstreamMs === "number" ? `upstream_ms=${upstreamMs}` : "",
    count === undefined ? "" : `times=${count}`,
  ];
  return parts.filter((part) => part !== "").map((part) => ` ${part}`).join("");
}

/** Logs one decision under its layer's target, once: records that grow would flood the log. */
export function logDecision(decision: Decision, change: Change): void {
  if (change !== "new") return;
  const { attempt } = decision;
  const host = attempt.host ?? attempt.address ?? attempt.image ?? "";
  const what = [
    attempt.method,
    attempt.tool,
    attempt.port === undefined ? host : `${host}:${attempt.port}`,
    attempt.path,
    attempt.recordType,
  ].filter((part) => part !== undefined && part !== "").join(" ");
  const fields = {
    id: decision.id,
    verdict: decision.verdict,
    layer: decision.layer,
    agent: decision.agent?.name ?? "",
    source: decision.source,
    what,
    reason: decision.reason,
    rule: decision.rule?.id ?? "default",
    generation: decision.generation,
    extras: extras(decision),
  };
  const log = logger(TARGET_OF_LAYER[decision.layer]);
  const line =
    "{verdict} {layer} {what} source={source} agent={agent} reason={reason} rule={rule} id={id}{extras}";
  if (decision.verdict === "block") log.info(line, fields);
  else log.debug(line, fields);
}
