/** What was blocked of late, attempts that are alike taken together. */
import type { DecisionService } from "../api/services.ts";
import type { DaemonStatus } from "../api/status.ts";
import type { Decision } from "../decision.ts";
import { whatText } from "../rules/words.ts";

type Blocked = DaemonStatus["blocked"];

/** How far back it goes. */
const SPAN_MS = 3_600_000;
/** Decisions that are read for it: a flood of them must not cost more. */
const MAX_DECISIONS = 5_000;
/** Lines that fit on a screen beside everything else. */
const TOP_LINES = 5;

function groupOf(decision: Decision): Blocked["top"][number] {
  const { agent, source, layer, reason, count = 1, targets, id } = decision;
  const others = (targets?.distinct ?? 1) - 1;
  return {
    agent: agent === null || agent.name === "" ? source : agent.name,
    layer,
    what: `${whatText(decision)}${others > 0 ? ` and ${others} more` : ""}`,
    reason,
    attempts: count,
    last_id: id,
  };
}

/** Attempts that are alike as one, those that were made most first. */
export function topBlocked(decisions: readonly Decision[]): Blocked["top"] {
  const groups = new Map<string, Blocked["top"][number]>();
  for (const decision of decisions) {
    const { attempts, last_id: id, ...group } = groupOf(decision);
    const key = Object.values(group).join("\n");
    const before = groups.get(key)?.attempts ?? 0;
    groups.set(key, { ...group, attempts: before + attempts, last_id: id });
  }
  return [...groups.values()].sort((a, b) => b.attempts - a.attempts).slice(0, TOP_LINES);
}

/** What was blocked in the last hour. */
export async function blockedOfLate(
  decisions: Pick<DecisionService, "query">,
  nowMs: number,
): Promise<Blocked> {
  const sinceMs = nowMs - SPAN_MS;
  const { decisions: found, incomplete } = await decisions.query({
    verdict: "block",
    sinceMs,
    limit: MAX_DECISIONS,
  });
  return {
    since: new Date(sinceMs).toISOString(),
    attempts: found.reduce((sum, { count = 1 }) => sum + count, 0),
    top: topBlocked(found),
    incomplete: incomplete ??
      (found.length < MAX_DECISIONS ? null : `only the newest ${MAX_DECISIONS} were counted`),
  };
}
