/**
 * Decisions as OpenTelemetry spans, through Deno's own exporter: it is on with `OTEL_DENO=true`, and
 * the usual `OTEL_…` variables say where to. Without it nothing here runs.
 *
 * Names of attributes are those of OpenTelemetry's semantic conventions where there is one.
 */
import { type Attributes, type Span, SpanKind, trace, type Tracer } from "@opentelemetry/api";
import type { Change, Decision, DecisionSink } from "../decision.ts";
import { VERSION } from "../version.ts";

/** What a span says of its decision. Never more than the record, which has no secrets. */
export function attributesOf(decision: Decision): Attributes {
  const { id, generation, layer, agent, source, attempt, verdict, reason, rule } = decision;
  const { count, targets, tunnel, upstreamMs } = decision;
  const all: Readonly<Record<string, string | number | undefined>> = {
    "outcall.decision.id": id,
    "outcall.layer": layer,
    "outcall.verdict": verdict,
    "outcall.reason": reason,
    "outcall.generation": generation,
    "outcall.rule.id": rule?.id,
    "outcall.rule.file": rule?.file,
    "outcall.rule.line": rule?.line,
    "outcall.agent": agent?.name,
    "outcall.network": agent?.network,
    "outcall.count": count,
    "outcall.targets": targets?.distinct,
    "outcall.upstream_ms": upstreamMs ?? undefined,
    "outcall.tunnel.up_bytes": tunnel?.upBytes,
    "outcall.tunnel.down_bytes": tunnel?.downBytes,
    "outcall.tunnel.end": tunnel?.end,
    "outcall.tool": attempt.tool,
    "container.id": agent?.containerId,
    "container.image.name": attempt.image,
    "client.address": source,
    "server.address": attempt.host ?? attempt.address,
    "server.port": attempt.port,
    "network.peer.address": attempt.address,
    "network.transport": attempt.protocol,
    "http.request.method": attempt.method,
    "url.path": attempt.path,
    "dns.question.type": attempt.recordType,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** Makes a span of each decision, and one more of each tunnel that has ended. */
export class DecisionTracer {
  readonly #tracer: Tracer;

  constructor(tracer: Tracer) {
    this.#tracer = tracer;
  }

  /** To be a sink of the decision log. */
  readonly trace: DecisionSink = (decision: Decision, change: Change): void => {
    const { layer, tunnel, time, updated, durationMs = 0, upstreamMs } = decision;
    const decidedAtMs = Date.parse(time);
    if (change === "new") {
      const tookMs = tunnel === undefined ? durationMs || (upstreamMs ?? 0) : 0;
      this.#span(layer, decision, decidedAtMs, tookMs);
    }
    // One that ended at once may be new with its end.
    if (tunnel !== undefined) {
      const endedAtMs = updated === undefined ? decidedAtMs + durationMs : Date.parse(updated);
      this.#span("tunnel", decision, endedAtMs, durationMs);
    }
  };

  /** A span that ended at `endMs`. Each is a trace of its own: nothing of ours called it. */
  #span(name: string, decision: Decision, endMs: number, durationMs: number): void {
    const span: Span = this.#tracer.startSpan(`outcall ${name}`, {
      root: true,
      kind: SpanKind.SERVER,
      startTime: endMs - durationMs,
      attributes: attributesOf(decision),
    });
    span.end(endMs);
  }
}

/** The sink of this process, or null when Deno exports nothing. */
export function decisionTracing(): DecisionSink | null {
  if (Deno.env.get("OTEL_DENO") !== "true") return null;
  return new DecisionTracer(trace.getTracer("outcall", VERSION)).trace;
}
