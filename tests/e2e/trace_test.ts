/** Decisions as OpenTelemetry spans, received by a collector on the host's loopback. */
import assert from "node:assert/strict";
import { z } from "zod";
import { eventually } from "../eventually.ts";
import { recordedDecisions } from "../lab/decisions.ts";
import { Lab } from "../lab/lab.ts";
import type { Process } from "../lab/process.ts";
import { labTest } from "../lab/requirements.ts";
import { ALLOW_EXAMPLE } from "./rules.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl", "dig", "python3"];

/** Prints each batch of spans that is posted to it as one line. */
const COLLECTOR = `
import http.server, json
class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/traces": print(json.dumps(json.loads(body)), flush=True)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 4318), Collector)
print("listening", flush=True)
server.serve_forever()
`;

const batch = z.object({
  resourceSpans: z.array(z.object({
    scopeSpans: z.array(z.object({
      spans: z.array(z.object({
        name: z.string(),
        attributes: z.array(z.object({
          key: z.string(),
          value: z.object({ stringValue: z.string().optional() }),
        })),
      })),
    })),
  })),
});

interface ReceivedSpan {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string | undefined>;
}

function received(collector: Process): ReceivedSpan[] {
  return collector.stdout.filter((line) => line.startsWith("{"))
    .flatMap((line) => batch.parse(JSON.parse(line)).resourceSpans)
    .flatMap(({ scopeSpans }) => scopeSpans).flatMap(({ spans }) => spans)
    .map(({ name, attributes }) => ({
      name,
      attributes: new Map(attributes.map(({ key, value }) => [key, value.stringValue])),
    }));
}

labTest("with OTEL_DENO=true each decision is a span with the record's id, and a tunnel one more", {
  tools: TOOLS,
}, async () => {
  await using lab = await Lab.create({ docker: false });
  const collector = lab.host.spawn(["python3", "-c", COLLECTOR]);
  await collector.line("stdout", (line) => line === "listening");
  await lab.startDaemon({
    rules: { "a.yaml": ALLOW_EXAMPLE },
    env: {
      OTEL_DENO: "true",
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4318",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_BSP_SCHEDULE_DELAY: "100",
    },
  });
  const agent = await lab.agent();
  await agent.run(["dig", "+short", "+time=2", "+tries=1", "blocked.example"]);
  const curl = ["curl", "-sS", "-m", "5", "-o", "/dev/null", "-x", "http://10.200.255.1:8080"];
  const fetched = await agent.run([...curl, "https://example.com/"]);
  assert.equal(fetched.code, 0, fetched.stderr);

  const blocked = (span: ReceivedSpan): boolean =>
    span.name === "outcall dns" && span.attributes.get("server.address") === "blocked.example";
  const tunnel = (span: ReceivedSpan): boolean => span.name === "outcall tunnel";
  await eventually(() => {
    const spans = received(collector);
    return spans.some(blocked) && spans.some(tunnel);
  });
  const spans = received(collector);
  const records = await recordedDecisions(lab);
  const ids = new Set(records.map(({ id }) => id));
  const own = spans.filter(({ name }) => name.startsWith("outcall "));
  for (const { attributes } of own) {
    assert.ok(ids.has(attributes.get("outcall.decision.id") ?? ""), "a span is of a record");
  }
  const { attributes } = spans.find(blocked) ?? { attributes: new Map() };
  assert.deepEqual(
    ["outcall.verdict", "outcall.reason", "client.address", "dns.question.type"]
      .map((key) => attributes.get(key)),
    ["block", "default", "10.200.255.10", "A"],
  );
  assert.equal(spans.find(tunnel)?.attributes.get("outcall.rule.id"), "allow-example");
});
