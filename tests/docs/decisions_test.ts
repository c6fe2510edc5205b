/** docs/decisions.md describes the record as it is, and its examples run. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { createParser, type EventSourceMessage } from "eventsource-parser";
import { DECISION_LAYERS, DecisionLog, REASONS, TUNNEL_ENDS } from "../../lib/decision.ts";
import { History } from "../../lib/record/history.ts";
import { HistoryLookup } from "../../lib/record/lookup.ts";
import { DecisionRecords } from "../../lib/record/records.ts";
import { decisionSchema } from "../../lib/record/schema.ts";
import { databasePath, openDatabase } from "../../lib/store/database.ts";
import { serveHost, withDirectory } from "../api/running.ts";
import { healthy, services } from "../api/services.ts";
import { eventually } from "../eventually.ts";
import { labTest } from "../lab/requirements.ts";
import { blockedName } from "../record/support.ts";

const PAGE = Deno.readTextFileSync(
  fileURLToPath(new URL("../../docs/decisions.md", import.meta.url)),
);

function blocks(language: string): string[] {
  return [...PAGE.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms"))]
    .map(([, text = ""]) => text);
}

Deno.test("the record in docs/decisions.md is one", () => {
  const [example = ""] = blocks("json");
  const json: unknown = JSON.parse(example);
  assert.deepEqual(decisionSchema.parse(json), json);
});

Deno.test("docs/decisions.md names every field, layer, reason and end of a tunnel", () => {
  const rows = new Set([...PAGE.matchAll(/^\| `(\w+)`/gm)].map(([, name]) => name));
  const rowed = [...Object.keys(decisionSchema.shape), ...REASONS];
  assert.deepEqual(rowed.filter((name) => !rows.has(name)), []);
  const words = new Set(PAGE.match(/\w+/g));
  const { attempt, agent } = decisionSchema.shape;
  const others = [
    ...Object.keys(attempt.shape),
    ...Object.keys(agent.unwrap().shape),
    ...DECISION_LAYERS,
    ...TUNNEL_ENDS,
  ];
  assert.deepEqual(others.filter((name) => !words.has(name)), []);
});

labTest(
  "the requests in docs/decisions.md are answered as it says",
  { tools: ["curl"] },
  () =>
    withDirectory(async (directory) => {
      openDatabase(directory).close();
      const database = databasePath(directory);
      const log = new DecisionLog();
      const history = new History({
        path: database,
        bounds: { maxBytes: 1024 ** 3, maxAgeMs: 86_400_000 },
      });
      log.addSink(history.add);
      history.start();
      const decisions = new DecisionRecords(log, new HistoryLookup(database), () => 0);
      const path = `${directory}/host.sock`;
      const server = await serveHost(path, {
        ...services(healthy(), { calls: [] }),
        decisions,
      });
      try {
        const made = log.record(blockedName("www.example.org"));
        await eventually(() => history.counters.written === 1);
        const [requests = "", stream = ""] = blocks("sh");
        const [list, stats] = (await shell(requests, path)).trim().split("}{").map((text, i) =>
          JSON.parse(i === 0 ? `${text}}` : `{${text}`)
        );
        assert.deepEqual(list.decisions, [made]);
        assert.equal(stats.blocked, 1);
        const messages: EventSourceMessage[] = [];
        createParser({ onEvent: (message) => void messages.push(message) })
          .feed(await shell(stream, path));
        assert.deepEqual(messages.map(({ event, data }) => [event, JSON.parse(data)]), [
          ["decision", made],
        ]);
        assert.equal(messages[0]?.id, String(log.sequence));
      } finally {
        decisions.stop();
        await server.close();
        await history.stop();
      }
    }),
);

async function shell(script: string, socket: string): Promise<string> {
  const { stdout } = await new Deno.Command("sh", {
    args: ["-c", script.replaceAll("/run/outcall/host.sock", socket)],
  }).output();
  return new TextDecoder().decode(stdout);
}
