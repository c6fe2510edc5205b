import { deepEqual, equal, ok } from "node:assert/strict";
import { DecisionLog, type NewDecision } from "../../lib/decision.ts";
import { attributesOf, DecisionTracer, decisionTracing } from "../../lib/metrics/trace.ts";
import { INVALID_SPAN_CONTEXT, trace, type Tracer } from "@opentelemetry/api";

const BLOCKED: NewDecision = {
  generation: 4,
  layer: "connect",
  agent: {
    name: "worker",
    containerId: "a1b2",
    address: "10.200.0.2",
    network: "outcall-agent-net",
  },
  source: "10.200.0.2",
  attempt: { host: "example.org", port: 443, method: "CONNECT" },
  verdict: "block",
  reason: "rule",
  rule: { id: "no-example", file: "/r/a.yaml", line: 7 },
};

Deno.test("a span's attributes are the decision's fields, without those that it does not have", () => {
  const decision = new DecisionLog().record(BLOCKED);
  deepEqual(attributesOf(decision), {
    "outcall.decision.id": decision.id,
    "outcall.layer": "connect",
    "outcall.verdict": "block",
    "outcall.reason": "rule",
    "outcall.generation": 4,
    "outcall.rule.id": "no-example",
    "outcall.rule.file": "/r/a.yaml",
    "outcall.rule.line": 7,
    "outcall.agent": "worker",
    "outcall.network": "outcall-agent-net",
    "container.id": "a1b2",
    "client.address": "10.200.0.2",
    "server.address": "example.org",
    "server.port": 443,
    "http.request.method": "CONNECT",
  });
});

Deno.test("every field of an attempt is in the span", () => {
  const attempt = {
    host: "h",
    address: "1.1.1.1",
    port: 1,
    protocol: "tcp",
    method: "GET",
    path: "/p",
    recordType: "A",
    image: "i",
    tool: "t",
  };
  const values = Object.values(attributesOf(new DecisionLog().record({ ...BLOCKED, attempt })));
  for (const value of Object.values(attempt)) ok(values.includes(value), `${value}`);
});

/** Remembers which spans were begun, and how long each lasted. */
function remembering(spans: (readonly [name: string, durationMs: number])[]): Tracer {
  return {
    startSpan: (name, { startTime = 0 } = {}) => {
      const span = trace.wrapSpanContext(INVALID_SPAN_CONTEXT);
      span.end = (endTime): void => {
        spans.push([name, Number(endTime) - Number(startTime)]);
      };
      return span;
    },
    startActiveSpan: trace.getTracer("none").startActiveSpan,
  };
}

Deno.test("a decision is one span, a tunnel that has ended one more, growth of other kinds none", () => {
  const spans: (readonly [string, number])[] = [];
  const log = new DecisionLog();
  log.addSink(new DecisionTracer(remembering(spans)).trace);
  const tunnel = { upBytes: 1, downBytes: 2, end: "closed" } as const;
  log.record({ ...BLOCKED, layer: "dns", upstreamMs: 30 });
  log.record({ ...BLOCKED, layer: "http", durationMs: 8 });
  log.update(log.record(BLOCKED), { durationMs: 900, tunnel });
  log.record({ ...BLOCKED, durationMs: 5, tunnel });
  log.update(log.record({ ...BLOCKED, layer: "kernel" }), { count: 7 });
  deepEqual(spans, [
    ["outcall dns", 30],
    ["outcall http", 8],
    ["outcall connect", 0],
    ["outcall tunnel", 900],
    ["outcall connect", 0],
    ["outcall tunnel", 5],
    ["outcall kernel", 0],
  ]);
});

Deno.test("nothing is traced unless Deno exports", () => {
  equal(decisionTracing(), null);
});
