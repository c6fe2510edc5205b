/** Writes each decision as one canonical line: blocks at info, allows at debug (decision D16). */
import type { Change, Decision } from "./decision.ts";
import { hostInLog, logger, type Target } from "./log.ts";
import { whatText } from "./rules/words.ts";

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

/** Lines in one second; a flood must cost neither the disk of the log nor those who decide. */
const MAX_LINES_PER_SEC = 1_000;

const LINE =
  "{verdict} {layer} {what} source={source} agent={agent} reason={reason} rule={rule} id={id}{extras}";

/** What only some decisions have (S007-FR-022: whether it was cached, else how long it took). */
function extras({ upstreamMs, count }: Decision): string {
  const parts = [
    upstreamMs === null ? "cached=true" : "",
    typeof upstreamMs === "number" ? `upstream_ms=${upstreamMs}` : "",
    count === undefined ? "" : `times=${count}`,
  ];
  return parts.filter((part) => part !== "").map((part) => ` ${part}`).join("");
}

/** Writes the lines, as many as a second may have. */
export class DecisionLines {
  #endsAtMs = Number.NEGATIVE_INFINITY;
  #written = 0;
  #leftOut = 0;
  #leftOutEver = 0;

  /** Decisions without a line, since start-up. */
  get leftOut(): number {
    return this.#leftOutEver;
  }

  /**
   * Logs one decision under its layer's target, once: records that grow would flood the log. To be a
   * sink of the decision log.
   */
  readonly add = (decision: Decision, change: Change): void => {
    if (change !== "new") return;
    const log = logger(TARGET_OF_LAYER[decision.layer]);
    // What passes for being observed is to be seen as much as what is blocked.
    const isSeen = decision.verdict === "block" || decision.reason === "observed";
    if (!log.isEnabledFor(isSeen ? "info" : "debug") || !this.#hasRoom()) return;
    const fields = {
      id: decision.id,
      verdict: decision.verdict,
      layer: decision.layer,
      agent: decision.agent?.name ?? "",
      source: decision.source,
      what: whatText(decision, hostInLog),
      reason: decision.reason,
      rule: decision.rule?.id ?? "default",
      generation: decision.generation,
      extras: extras(decision),
    };
    if (isSeen) log.info(LINE, fields);
    else log.debug(LINE, fields);
  };

  #hasRoom(): boolean {
    const nowMs = performance.now();
    if (nowMs >= this.#endsAtMs) {
      this.#endsAtMs = nowMs + 1_000;
      this.#written = 0;
    }
    if (this.#written < MAX_LINES_PER_SEC) {
      this.#written++;
      return true;
    }
    if (this.#leftOut === 0) setTimeout(() => this.#sayLeftOut(), this.#endsAtMs - nowMs);
    this.#leftOut++;
    this.#leftOutEver++;
    return false;
  }

  #sayLeftOut(): void {
    logger("host_api").warn("{count} more decisions in this second have no line here", {
      count: this.#leftOut,
    });
    this.#leftOut = 0;
  }
}
